"""Files of judgements into the ledger: streaming, and repeatable, so that a file that was broken off can go on.

Ids are digests of what a line says, so a line that comes again changes nothing; a bookmark in Redis saves the time.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from feedback.exchange.judged import Judged, Origin, model_of
from feedback.exchange.lines import RawLine, digest_of
from feedback.exchange.reading import Group, Rejected, read_judgements, reason
from feedback.judgements import Judgement
from feedback.records import Completion
from feedback.store import Ledger

CHUNK_LINES = 500
CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Tally:
    """What became of a file: up to which line and offset it was read; judgements new and known, lines refused."""

    line: int = 0
    offset: int = 0
    new: int = 0
    known: int = 0
    rejected: int = 0
    done: bool = False


class Progress(NamedTuple):
    """`read` of `size` bytes of the file itself."""

    tally: Tally
    read: int
    size: int


@dataclass
class _Chunk:
    """What is stored at once."""

    groups: list[Group] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    last: RawLine | None = None
    bytes: int = 0

    def add(self, group: Group) -> None:
        if group.rejected:
            self.rejected += group.rejected
        else:
            self.groups.append(group)
        self.last = group.lines[-1]
        self.bytes += sum(len(raw.text) for raw in group.lines)

    @property
    def is_full(self) -> bool:
        return len(self.groups) + len(self.rejected) >= CHUNK_LINES or self.bytes >= CHUNK_BYTES


class Importer:
    """Brings one file into the ledger under one origin."""

    def __init__(self, redis: Redis, ledger: Ledger, origin: Origin) -> None:
        self._redis: Any = redis
        self._ledger = ledger
        self._origin = origin

    def run(self, path: Path, format: str, report: Path, *, dry: bool = False) -> Iterator[Progress]:
        """Read a file from where it was left, telling what was done after each chunk.

        Each yielded tally is on the disk. Refused lines go to `report` as {line, reason}. With `dry` all is read and
        nothing is stored. Raises BrokenFile, OSError or what the ledger raises. After that, and when this one was
        killed, another run goes on.
        """
        size = path.stat().st_size
        bookmark = f"import:{digest_of(path)}:{format}:{self._origin.name}:{self._origin.split or 'hashed'}"
        tally = Tally() if dry else self._remembered(bookmark)
        yield Progress(tally, size if tally.done else 0, size)
        if tally.done:
            return
        _cut_report(report, tally.line)
        for chunk in self._chunks(path, format, tally):
            new, known = self._compare(chunk) if dry else self._store(chunk)
            _append_report(report, chunk.rejected)
            assert chunk.last is not None
            tally = Tally(
                chunk.last.number, chunk.last.end, tally.new + new, tally.known + known,
                tally.rejected + len(chunk.rejected),
            )  # fmt: skip
            self._remember(bookmark, tally, dry)
            yield Progress(tally, chunk.last.read, size)
        tally = replace(tally, done=True)
        self._remember(bookmark, tally, dry)
        yield Progress(tally, size, size)

    def _remembered(self, bookmark: str) -> Tally:
        raw = self._redis.get(bookmark)
        return Tally(**json.loads(raw)) if raw else Tally()

    def _remember(self, bookmark: str, tally: Tally, dry: bool) -> None:
        if not dry:
            self._redis.set(bookmark, json.dumps(asdict(tally)))

    def _chunks(self, path: Path, format: str, tally: Tally) -> Iterator[_Chunk]:
        chunk = _Chunk()
        for group in read_judgements(path, format, self._origin, after=tally.offset, number=tally.line):
            chunk.add(group)
            if chunk.is_full:
                yield chunk
                chunk = _Chunk()
        if chunk.last:
            yield chunk

    def _compare(self, chunk: _Chunk) -> tuple[int, int]:
        """How many judgements would be new, and how many are known."""
        ids = [item.feedback.id for group in chunk.groups for item in group.judged]
        known = len(self._ledger.kept(ids))
        return len(ids) - known, known

    def _store(self, chunk: _Chunk) -> tuple[int, int]:
        """Returns how many judgements were new and how many known; refused ones move to `chunk.rejected`."""
        judged = [item for group in chunk.groups for item in group.judged]
        self._keep({completion.id: completion for item in judged for completion in item.completions})
        answers = self._ledger.completions(tuple({c.id: None for item in judged for c in item.completions}))
        said = {
            kept.feedback.id: kept.feedback.judgement for kept in self._ledger.kept([j.feedback.id for j in judged])
        }
        new = known = 0
        for group in chunk.groups:
            try:
                for item in group.judged:
                    _check(item, answers, said)
            except ValueError as error:
                chunk.rejected += [Rejected(raw.number, reason(error)) for raw in group.lines]
                continue
            for item in group.judged:
                fresh = item.feedback.id not in said and self._ledger.append_feedback(item.feedback).status != "same"
                said[item.feedback.id] = item.feedback.judgement
                new, known = new + fresh, known + (not fresh)
        return new, known

    def _keep(self, completions: dict[str, Completion]) -> None:
        """Store those that are not there yet, the choices of a response together."""
        present = self._ledger.completions(tuple(completions))
        responses: dict[str, list[Completion]] = defaultdict(list)
        for id, completion in completions.items():
            if id not in present:
                responses[completion.response_id].append(completion)
        for answers in responses.values():
            frame = answers[0].frame(model=model_of(answers[0]), choices=max(each.choice for each in answers) + 1)
            self._ledger.append_answer(frame, answers)


def _check(judged: Judged, answers: Mapping[str, Completion], said: Mapping[str, Judgement]) -> None:
    """Raises ValueError when an id stands for something else in the ledger, or for nothing since it was erased."""
    for completion in judged.completions:
        other = answers.get(completion.id)
        if other is None:
            raise ValueError(f"completion {completion.id} was erased from this ledger")
        if (other.prompt_digest, other.answer) != (completion.prompt_digest, completion.answer):
            raise ValueError(f"completion {completion.id} is another one in this ledger")
    if said.get(judged.feedback.id, judged.feedback.judgement) != judged.feedback.judgement:
        raise ValueError(f"feedback {judged.feedback.id} is another one in this ledger")


def _cut_report(report: Path, line: int) -> None:
    """Forget what a broken run reported behind its bookmark, the last line maybe by half: it is read again."""
    if report.exists():
        entries = [entry for entry in report.read_bytes().splitlines(keepends=True) if entry.endswith(b"\n")]
        kept = [entry for entry in entries if json.loads(entry)["line"] <= line]
        report.write_bytes(b"".join(kept))
        if not kept:
            report.unlink()


def _append_report(report: Path, rejected: Sequence[Rejected]) -> None:
    if rejected:
        with report.open("ab") as file:
            file.writelines(json.dumps(entry._asdict()).encode() + b"\n" for entry in rejected)
