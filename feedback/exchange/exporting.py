"""What stands in the ledger as lines of a format, a chunk at a time."""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from feedback.archive import Archive
from feedback.exchange.formats import EXPORTED, FORMATS, UnknownFormat
from feedback.exchange.judged import Judged, Line
from feedback.judgements import Feedback
from feedback.records import Completion
from feedback.store import Ledger

CHUNK = 200
#: What the salt is for under which exports name people and the installation, see `KeyRing.salt`.
NAMES = "export"

Part = Literal["train", "eval", "all"]


@dataclass(frozen=True)
class Wanted:
    """What an export holds: a format, a split, and what was said from `since` on as it stood at `until` (both in
    seconds since 1970).

    `limit` counts judgements that the format can express, or trees: a ranking is never cut. `private` adds completions
    whose people did not consent to training, when asking or for the conversation since.
    """

    format: str
    since: float | None = None
    until: float | None = None
    split: Part = "all"
    limit: int | None = None
    private: bool = False

    def __post_init__(self) -> None:
        if self.format not in EXPORTED:
            raise UnknownFormat(EXPORTED)


def export(ledger: Ledger, wanted: Wanted, salt: bytes) -> Iterator[Line]:
    """Lines in the order in which people first spoke. Only the last word of each slot is exported.

    Raters are named by an HMAC under `salt`, which joins no export with the ledger, nor with an export under another
    salt. The judgements are read at once; completions, which are large, while the lines are taken.
    """
    # A cursor begins with the milliseconds of its time.
    cursor = ledger.watermark() if wanted.until is None else str(max(0, int(wanted.until * 1000)))
    standing = [feedback for feedback in ledger.standing(cursor) if _is_wanted(feedback, wanted)]
    return _lines(ledger, wanted, standing, salt)


def _is_wanted(feedback: Feedback, wanted: Wanted) -> bool:
    """What checks its rater says nothing of the answers."""
    in_time = feedback.created >= (wanted.since or 0.0)
    return in_time and wanted.split in ("all", feedback.split) and not feedback.is_check


def _lines(ledger: Ledger, wanted: Wanted, standing: Sequence[Feedback], salt: bytes) -> Iterator[Line]:
    write = FORMATS[wanted.format].write
    assert write is not None
    written = 0
    for group in _groups(ledger, wanted, standing, salt):
        if wanted.limit is not None and written >= wanted.limit:
            return
        lines = list(write(group))
        written += bool(lines)
        yield from lines


def _groups(ledger: Ledger, wanted: Wanted, standing: Sequence[Feedback], salt: bytes) -> Iterator[Sequence[Judged]]:
    tree = FORMATS[wanted.format].tree
    if tree is None:
        yield from ([judged] for judged in _judged(ledger, wanted, standing, salt))
        return
    members: dict[str, list[Feedback]] = defaultdict(list)
    by_id = {feedback.id: feedback for feedback in standing}
    for judged in _judged(ledger, wanted, standing, salt):
        members[tree(judged)].append(by_id[judged.feedback.id])
    for group in members.values():
        yield list(_judged(ledger, wanted, group, salt))


def _judged(ledger: Ledger, wanted: Wanted, standing: Sequence[Feedback], salt: bytes) -> Iterator[Judged]:
    """Judgements with those of their completions that may be shown, unless none is left."""
    installation = installation_of(salt)
    for start in range(0, len(standing), CHUNK):
        chunk = standing[start : start + CHUNK]
        known = ledger.completions(tuple({id: None for feedback in chunk for id in feedback.judgement.targets}))
        hidden = Archive(ledger).withheld(known.values())  # as rounds leave them out
        shown = {
            id: _unnamed(c, salt).model_copy(update={"consent": id not in hidden})  # also where it is imported again
            for id, c in known.items()
            if not c.decoy and (wanted.private or id not in hidden)
        }
        for feedback in chunk:
            completions = tuple(shown[id] for id in feedback.judgement.targets if id in shown)
            if completions:
                rater = pseudonymous(feedback.rater, salt)
                yield Judged(feedback.model_copy(update={"rater": rater}), completions, installation)


def _unnamed(completion: Completion, salt: bytes) -> Completion:
    return completion.model_copy(update={"rater": pseudonymous(completion.rater, salt)})


def seconds(moment: datetime | None) -> float | None:
    """Seconds since 1970; a time without a zone is UTC."""
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def pseudonymous(rater: str, salt: bytes) -> str:
    """A rater as exports name them."""
    return f"rater_{_hmac(rater, salt)}"


def installation_of(salt: bytes) -> str:
    """The installation as exports name it: by its secret, which outlives a Redis that is lost."""
    return _hmac("installation", salt)


def _hmac(text: str, salt: bytes) -> str:
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:24]
