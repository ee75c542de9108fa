"""A judgement as a client sends it: shorthands spelled out, before anybody looks at what was served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from feedback.judgements import Circumstances, Judgement
from serving.engine.server import Body
from serving.http.errors import ApiError, invalid

SET_BY_SERVER = frozenset({
    "policy_version", "rater", "weight", "time", "created", "split", "id", "revision", "schema_version", "slot",
    "prompt_digest", "consent",
})  # fmt: skip
ABOUT_ONE = ("rating", "demonstration", "comment", "flag")
ENVELOPE = ("user", "client_id", "dry_run")
LETTERS = "ABCDEFGH"
# As names of metadata. The record knows no bound: it must read what it had before there was one.
MAX_TAG = 64

_judgement: TypeAdapter[Judgement] = TypeAdapter(Judgement)
_circumstances = TypeAdapter(Circumstances)
AROUND, UNKNOWN = tuple(Circumstances.model_fields), Circumstances()
APART = {*ENVELOPE, *AROUND}


@dataclass(frozen=True)
class Said:
    """What was sent. One of `judgement` and `vote` is None: a vote becomes a judgement once the sides are known."""

    judgement: Judgement | None
    vote: Body | None
    comparison_id: str | None
    user: str | None
    client_id: str | None
    dry_run: bool
    circumstances: Circumstances

    def about(self, shown: Sequence[str]) -> Judgement:
        """The judgement; `shown` are its comparison's completions. Raises ApiError 400 naming the field at fault."""
        return self.judgement or parse(with_sides(self.vote or {}, shown))


def read(body: Body) -> Said:
    """Split a request into the judgement and what surrounds it. Raises ApiError 400 naming the field at fault."""
    if taken := SET_BY_SERVER & body.keys():
        name = min(taken)
        raise invalid(f"{name} is set by the server and cannot be sent", name)
    dry_run = body.get("dry_run")
    if not isinstance(dry_run, bool | None):
        raise invalid("dry_run must be true or false", "dry_run")
    around = {name: body[name] for name in AROUND if name in body}
    circumstances = validated(_circumstances, around) if around else UNKNOWN
    if not all(1 <= len(name) <= MAX_TAG for name in circumstances.tags):
        raise invalid(f"tags have names of 1 to {MAX_TAG} characters", "tags")
    rest = {name: value for name, value in body.items() if name not in APART}
    comparison = _text(rest, "comparison_id")
    return Said(
        judgement=parse(rest) if comparison is None else None, vote=rest if comparison else None,
        comparison_id=comparison, user=_text(body, "user"), client_id=_text(body, "client_id"),
        dry_run=bool(dry_run), circumstances=circumstances,
    )  # fmt: skip


def parse(body: Body) -> Judgement:
    """One judgement; raises ApiError 400 naming the field at fault."""
    judgement: Judgement = validated(_judgement, _spelled_out(body))
    return judgement


def with_sides(body: Body, ids: Sequence[str]) -> Body:
    """A vote on an offer with the completions that were shown: two by left and right, more by their letters."""
    for name in ("left", "right", "candidates"):
        if name in body:
            raise invalid(f"comparison_id says already which answers are meant: leave out {name}", name)
    if body.get("type") == "ranking" or (len(ids) > 2 and "ranking" in body and "winner" not in body):
        return {**body, "type": "ranking", "candidates": list(ids)}
    if body.get("type") != "comparison":
        raise invalid("a comparison takes a judgement of type comparison or ranking", "type")
    if len(ids) == 2:
        return {**body, "left": ids[0], "right": ids[1]}
    rest = {name: value for name, value in body.items() if name not in ("type", "winner")}
    if surprise := next((name for name in rest if name != "comparison_id"), None):
        raise invalid(f"{surprise} does not belong to a pick of one: rank the answers to say more", surprise)
    return rest | _pick(body.get("winner"), ids)


def _pick(winner: Any, ids: Sequence[str]) -> Body:
    """One of several: better than the others, of which nothing is said."""
    letters = LETTERS[: len(ids)]
    if winner == "tie":
        return {"type": "ranking", "candidates": list(ids), "ranking": [list(ids)]}
    if winner == "none":
        return {"type": "ranking", "candidates": list(ids), "ranking": [list(ids)], "none_acceptable": True}
    if not isinstance(winner, str) or len(winner) != 1 or winner not in letters:
        raise invalid(f"winner must be one of {', '.join(letters)}, tie or none", "winner")
    return {"type": "ranking", "candidates": list(ids), "ranking": [[ids[letters.index(winner)]]], "partial": True}


def _spelled_out(body: Body) -> Body:
    """Without the shorthands: `choice` beside a response id; `candidates` of a comparison for left and right."""
    spelled = dict(body)
    if "choice" in spelled and spelled.get("type") in ABOUT_ONE:
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


def validated(adapter: TypeAdapter[Any], value: Body) -> Any:
    """Raises ApiError 400 naming the field at fault."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _fault(error, value) from error


def _fault(error: ValidationError, body: Body) -> ApiError:
    """The first complaint, with the field at fault."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List")
    # In the discriminated union the type comes first: ("rating", "value").
    loc = first["loc"]
    place = [str(part) for part in (loc[1:] if loc and loc[0] == body.get("type") else loc)]
    # A rule over the whole judgement begins with the name of the field that it complains of.
    word = message.split(" ", 1)[0]
    named = ".".join(place)
    told = f"{named} is required" if first["type"] == "missing" and named else message
    return invalid(told, named or (word if word in body else "type"))


def _text(body: Body, name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= 256):
        raise invalid(f"{name} must be text of 1 to 256 characters", name)
    return value
