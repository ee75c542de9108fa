"""What was done to keys and invites, and by whom, for the audit: never the key or the link itself."""

from typing import Any, Literal, Protocol

from feedback.records import Record

AUDIT = "keys:audit"
#: Who does what nobody ordered, such as the first admin key of a single user.
INSTALLATION = "ratchet"

KeyAction = Literal["create", "rotate", "change", "revoke", "invite", "withdraw"]


class Held(Protocol):
    """A key, or an invite to one."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...


class KeyLine(Record):
    """One deed: the name and role are those from then on; `fields` are what a change gave."""

    id: str
    name: str
    role: str
    action: KeyAction
    fields: tuple[str, ...] = ()
    actor: str
    time: float


def line(action: KeyAction, held: Held, actor: str, time: float, *fields: str) -> str:
    """A line as the stream keeps it."""
    told = KeyLine(id=held.id, name=held.name, role=held.role, action=action, fields=fields, actor=actor, time=time)
    return told.model_dump_json()


def note(pipe: Any, written: str) -> None:
    """Add a line, in the same transaction as the deed."""
    pipe.xadd(AUDIT, {"data": written})


def became(line: KeyLine) -> str:
    """What it was from then on."""
    return f"{line.name}, {line.role}" + (f"; given: {', '.join(line.fields)}" if line.fields else "")
