"""Signing in as the API takes and shows it, for its document."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from feedback.people.keys import Role
from feedback.records import Record
from serving.document.openapi import documented
from serving.document.schema import example

Secret = Annotated[str, Field(min_length=1, max_length=256)]


class SignIn(Record):
    """A key, or what stands behind the `#` of a link from `ratchet user invite`; neither in single-user mode."""

    key: Secret | None = None
    invite: Secret | None = None


class ShownSession(BaseModel):
    object: Literal["session"]
    role: Role
    name: str
    rater: str = Field(description="the pseudonym that judgements carry")
    single_user: bool = Field(description="as whom this machine lets in for nothing, in single-user mode")
    expires: float | None = Field(description="Unix seconds; null of a key that never does")

    model_config = example({
        "object": "session", "role": "user", "name": "ann", "rater": "rater_0f3a", "single_user": False,
        "expires": 1769817600.0,
    })  # fmt: skip


class EndedSession(BaseModel):
    object: Literal["session.deleted"]
    deleted: bool

    model_config = example({"object": "session.deleted", "deleted": True})


SIGN_IN = documented(
    "Sign in with a browser: the cookie `ratchet_session_PORT` then stands for the key",
    tag="session",
    returns=ShownSession,
    body=SignIn,
    examples={"with a key": {"key": "rk-0f3a"}, "with a link": {"invite": "inv_0f3a"}, "in single-user mode": {}},
    optional=True,
    errors=(401, 403, 408, 429, 503),
)
SIGN_IN["responses"][401]["description"] = "Neither a key nor a link that can be used, or none where one is needed."
SESSION = documented("Who is signed in", tag="session", returns=ShownSession)
SIGN_OUT = documented("Sign out", tag="session", returns=EndedSession)
