"""Who did what to policies, releases, raters, freezes, keys and rounds, when and why: one list of all, newest first."""

import re
from collections.abc import Mapping
from heapq import merge
from itertools import islice
from typing import Any, Literal, NamedTuple

from redis import Redis

from feedback import freezes
from feedback.freezes import FreezeLine
from feedback.people import key_audit, raters
from feedback.people.key_audit import KeyLine
from feedback.people.raters import RaterLine
from feedback.policies import registry
from feedback.records import Record
from feedback.releases import book as releases
from feedback.releases.book import Release, describe
from feedback.rounds import cancelling
from feedback.rounds.cancelling import RoundLine

Kind = Literal["policy", "release", "rater", "freeze", "key", "round"]
#: Where each kind is written; of one moment the first kind is the newest.
STREAMS: dict[Kind, str] = {
    "policy": registry.AUDIT, "release": releases.HISTORY, "rater": raters.AUDIT, "freeze": freezes.AUDIT,
    "key": key_audit.AUDIT, "round": cancelling.AUDIT,
}  # fmt: skip
CURSOR = re.compile(rf"(\d{{1,15}}-\d{{1,15}})-({'|'.join(STREAMS)})", re.ASCII)


class Entry(Record):
    """One line of it; `id` is its place among all. `became` tells of a release, a key or an
    invite what it was from then on."""

    id: str
    time: float
    kind: Kind
    what: str
    action: str
    actor: str
    reason: str
    became: str | None = None


class Audited(NamedTuple):
    """A page, and whether there are older ones."""

    entries: list[Entry]
    more: bool


def audit(redis: Redis, before: str | None = None, limit: int = 50, only: Kind | None = None) -> Audited:
    """Those before an entry, by its id, of all kinds or of one. Raises ValueError for what is no id."""
    place = CURSOR.fullmatch(before) if before is not None else None
    if before is not None and place is None:
        raise ValueError("not the id of an entry")
    older = [_older(redis, kind, place, limit + 1) for kind in STREAMS if only in (None, kind)]
    found = list(islice(merge(*older, key=_place, reverse=True), limit + 1))
    return Audited(found[:limit], len(found) > limit)


def _older(redis: Any, kind: Kind, place: re.Match[str] | None, count: int) -> list[Entry]:
    """Of one kind; of the moment of the entry before which they stand, those kinds that come after it."""
    newest = "+"
    if place is not None:
        newest = place[1] if _rank(kind) > _rank(place[2]) else f"({place[1]}"
    rows = redis.xrevrange(STREAMS[kind], max=newest, count=count)
    return [Entry(id=f"{id}-{kind}", kind=kind, **_told(kind, fields)) for id, fields in rows]


def _told(kind: Kind, fields: Mapping[str, str]) -> dict[str, Any]:
    match kind:
        case "policy":
            names = ("action", "actor", "reason", "time")
            return {"what": f"policy-v{fields['version']}", **{name: fields[name] for name in names}}
        case "release":
            release = Release.model_validate_json(fields["data"])
            became = {"what": f"release {release.id}", "action": _action(release), "became": describe(release)}
            return {**became, **{name: fields[name] for name in ("actor", "reason", "time")}}
        case "rater":
            return _named(RaterLine.model_validate_json(fields["data"]).model_dump(), "rater")
        case "freeze":
            return _named(FreezeLine.model_validate_json(fields["data"]).model_dump(), "what")
        case "round":
            round = RoundLine.model_validate_json(fields["data"])
            return {"what": f"round {round.round}", **round.model_dump(exclude={"round"})}
        case "key":  # nobody is asked why
            line = KeyLine.model_validate_json(fields["data"])
            told = line.model_dump(include={"action", "actor", "time"})
            return {"what": line.id, "reason": "", "became": key_audit.became(line), **told}


def _named(line: dict[str, Any], name: str) -> dict[str, Any]:
    return {"what": line.pop(name), **line}


def _action(release: Release) -> str:
    """What was done, as far as the release tells that came of it."""
    if not release.is_open:
        return release.state
    if release.revision == 0:
        return "start"
    return "pause" if release.paused else "propose" if release.proposed else "move"


def _place(entry: Entry) -> tuple[int, int, int]:
    milliseconds, number, kind = entry.id.split("-")
    return int(milliseconds), int(number), -_rank(kind)


def _rank(kind: str) -> int:
    return list(STREAMS).index(kind)  # type: ignore[arg-type]
