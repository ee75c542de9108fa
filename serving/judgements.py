"""POST /v1/feedback: what people say of the answers they got, kept only if it is about those answers."""

import time
from typing import Any

import anyio
from fastapi import APIRouter, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import JSONResponse

from feedback.keys import ApiKey
from feedback.records import Comparison, Completion, Feedback, Judgement, Ranking, new_id
from feedback.store import Appended
from serving.errors import ApiError, invalid, unavailable
from serving.gateway import CallerDep, Gateway, GatewayDep, read_json

ANSWER_WITHIN_S = 2.0
SET_BY_SERVER = (
    "policy_version", "rater", "weight", "time", "created", "split", "id", "revision", "schema_version", "slot",
    "prompt_digest", "consent",
)  # fmt: skip
UNFINISHED = ("abort", "error")

router = APIRouter()
_judgement: TypeAdapter[Judgement] = TypeAdapter(Judgement)


@router.post("/v1/feedback")
async def create_feedback(request: Request, gateway: GatewayDep, caller: CallerDep) -> JSONResponse:
    body = await read_json(request)
    try:
        with anyio.fail_after(ANSWER_WITHIN_S):
            return await anyio.to_thread.run_sync(accept, gateway, caller, body, abandon_on_cancel=True)
    except TimeoutError:
        raise unavailable("no answer from the ledger in time: repeat the request", "ledger_unavailable") from None


@router.get("/v1/feedback/{id}")
def get_feedback(id: str, gateway: GatewayDep, caller: CallerDep) -> dict[str, Any]:
    feedback = gateway.ledger.feedback(id)
    own = feedback is not None and feedback.rater == gateway.rater(caller, None)
    if feedback is None or not (own or caller.role in ("operator", "admin")):
        raise ApiError(404, f"No feedback {id}.", code="feedback_not_found", param="id")
    return {"object": "feedback", "type": feedback.judgement.type, **feedback.model_dump(mode="json")}


def accept(gateway: Gateway, caller: ApiKey, body: dict[str, Any]) -> JSONResponse:
    """Validate against what was served, append, answer. Returns only after the ledger fsynced."""
    user, client_id = (_text(body, name) for name in ("user", "client_id"))
    judgement = parse({name: value for name, value in body.items() if name not in ("user", "client_id")})
    rater = gateway.rater(caller, user)
    # A completion asked for without naming a user was shown to whomever the key speaks for.
    check_targets(judgement, gateway.ledger.completions(judgement.targets), {rater, gateway.rater(caller, None)})
    split = gateway.keys.split(rater, gateway.settings.evaluation_share)
    feedback = Feedback(id=new_id("fb_"), judgement=judgement, rater=rater, split=split, created=time.time())
    appended = gateway.ledger.append_feedback(feedback, client_id=client_id)
    return JSONResponse(_answer(feedback, appended), status_code=201 if appended.status == "created" else 200)


def _answer(feedback: Feedback, appended: Appended) -> dict[str, Any]:
    return {
        "object": "feedback",
        "id": appended.id,
        "type": feedback.judgement.type,
        "created": int(feedback.created),
        "revision": appended.revision,
        "status": "accepted",
        "split": feedback.split,
    }


def parse(body: dict[str, Any]) -> Judgement:
    """One judgement out of a request body; raises ApiError 400 naming the field at fault."""
    for name in SET_BY_SERVER:
        if name in body:
            raise invalid(f"{name} is set by the server and cannot be sent", name)
    try:
        return _judgement.validate_python(_spelled_out(body))
    except ValidationError as error:
        first = error.errors()[0]
        # Place and type of the discriminated union come first: ("rating", "value").
        place = [str(part) for part in first["loc"][1:]] if first["loc"] else []
        message = first["msg"].removeprefix("Value error, ")
        raise invalid(message, ".".join(place) or _culprit(body, message)) from error


def _culprit(body: dict[str, Any], message: str) -> str:
    """The field that a rule over the whole judgement complains of: its message begins with the name."""
    word = message.split(" ", 1)[0]
    return word if word in body else "type"


def _spelled_out(body: dict[str, Any]) -> dict[str, Any]:
    """Without the shorthands: `choice` beside a response id; `candidates` of a comparison for left and right."""
    spelled = dict(body)
    if "choice" in spelled and spelled.get("type") in ("rating", "demonstration"):
        choice, target = spelled.pop("choice"), spelled.get("completion_id")
        if not isinstance(choice, int) or isinstance(choice, bool) or choice < 0:
            raise invalid("choice must be a whole number from 0", "choice")
        if isinstance(target, str) and ":" in target and not target.endswith(f":{choice}"):
            raise invalid("choice and completion_id name different completions", "choice")
        if isinstance(target, str) and ":" not in target:
            spelled["completion_id"] = f"{target}:{choice}"
    elif isinstance(target := spelled.get("completion_id"), str) and ":" not in target:
        spelled["completion_id"] = f"{target}:0"
    if spelled.get("type") == "comparison" and "candidates" in spelled:
        candidates = spelled.pop("candidates")
        if not isinstance(candidates, list) or len(candidates) != 2 or "left" in spelled or "right" in spelled:
            raise invalid("candidates must be two completions, in place of left and right", "candidates")
        spelled["left"], spelled["right"] = candidates
    return spelled


def check_targets(judgement: Judgement, known: dict[str, Completion], raters: set[str]) -> None:
    """The rule: one may judge what was served to oneself, finished, and side by side only answers to one prompt."""
    for target in judgement.targets:
        param = _param(judgement, target)
        # Somebody else's completion looks like none at all.
        if target not in known or known[target].rater not in raters:
            raise ApiError(404, f"No completion {target}.", code="completion_not_found", param=param)
        if known[target].finish_reason in UNFINISHED:
            raise invalid(f"{target} was never finished", param, status=422, code="completion_unfinished")
    if len({known[target].prompt_digest for target in judgement.targets}) > 1:
        message = "the completions answer different prompts, so they cannot be compared"
        param = _param(judgement, judgement.targets[-1])
        raise invalid(message, param, status=422, code="different_prompts")


def _param(judgement: Judgement, target: str) -> str:
    """The field that names `target`."""
    if isinstance(judgement, Comparison):
        return "left" if target == judgement.left else "right"
    return "candidates" if isinstance(judgement, Ranking) else "completion_id"


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= 256):
        raise invalid(f"{name} must be text of 1 to 256 characters", name)
    return value
