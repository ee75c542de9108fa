"""Files into a real ledger: what is refused, what happens twice, and what happens when the import is killed."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback.archive import Archive
from feedback.erasure import Eraser
from feedback.exchange import importing
from feedback.exchange.exporting import Wanted, export, installation_of
from feedback.exchange.importing import Importer, Tally
from feedback.exchange.judged import Line, Origin
from feedback.exchange.lines import MAX_LINE, BrokenFile, read_lines
from feedback.exchange.reading import recognise
from feedback.judgements import Comparison, Demonstration, Feedback, Ranking, Rating
from feedback.leaderboard.ballots import votes_in
from feedback.records import Completion, Message
from feedback.store import ERASED, Ledger, connect

SALT = b"salt"
HERE = installation_of(SALT)
USER = {"role": "user", "content": "hi"}


def preference(n: int) -> Line:
    return {"prompt": f"prompt {n}\u2028", "chosen": f"good {n}", "rejected": "bad"}


def file_of(path: Path, lines: Sequence[Line | bytes]) -> Path:
    raw = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


class Shelf:
    """A ledger to import into."""

    def __init__(self, url: str) -> None:
        self.redis = connect(url)
        self.ledger = Ledger(self.redis)

    def importer(self, name: str = "file", split: Any = None, installation: str | None = HERE) -> Importer:
        origin = Origin(
            name, lambda name, split: f"imported_{split}_{name}", lambda key: "train", split, time.time(), installation
        )
        return Importer(self.redis, self.ledger, origin)

    def bring(self, path: Path, format: str | None = None, *, dry: bool = False, **origin: Any) -> Tally:
        *_, last = self.importer(**origin).run(path, format or recognise(path), report_of(path), dry=dry)
        return last.tally

    def answer(self, *completions: Completion) -> None:
        for each in completions:
            self.ledger.append_answer(each.frame(model="m"), [each])

    def standing(self) -> list[Feedback]:
        return self.ledger.standing(self.ledger.watermark())

    def export(self, format: str, **wanted: Any) -> list[Line]:
        return list(export(self.ledger, Wanted(format, **wanted), SALT))


def report_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.rejected.jsonl")


@pytest.fixture
def shelf(valkey_url: str) -> Shelf:
    return Shelf(valkey_url)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_import_is_done_once(shelf: Shelf, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "CHUNK_LINES", 3)
    path = file_of(tmp_path / name, [preference(n) for n in range(10)])
    tally = shelf.bring(path)
    assert (tally.line, tally.new, tally.known, tally.rejected, tally.done) == (10, 10, 0, 0, True)
    assert shelf.bring(path) == tally
    shelf.redis.delete(*shelf.redis.keys("import:*"))
    again = shelf.bring(path)
    assert (again.new, again.known) == (0, 10)
    assert len(shelf.standing()) == 10
    assert shelf.redis.xlen("feedback") == 10
    assert not report_of(path).exists()
    assert {line["chosen"][0]["content"] for line in shelf.export("trl")} == {f"good {n}" for n in range(10)}
    assert all("\u2028" in line["prompt"][0]["content"] for line in shelf.export("trl"))


def test_bad_lines_are_reported_and_stop_nothing(shelf: Shelf, tmp_path: Path) -> None:
    path = file_of(
        tmp_path / "mixed.jsonl",
        [
            preference(1),
            b"{not json}\n",
            b"\n",
            b"[1]\n",
            b'{"prompt": "\xff"}\n',
            {"prompt": "x", "chosen": "a", "rejected": "a"},
            b'{"prompt": "x", "chosen": "a", "rejected": "\\ud800"}\n',
            {"prompt": {"deep": 1}, "chosen": 7, "rejected": []},
            b"[" * 100_000 + b"\n",
            b'{"prompt": "' + b"x" * MAX_LINE + b'"}\n',
            json.dumps(preference(2)).encode(),  # and no line feed at the end
        ],
    )
    tally = shelf.bring(path, "trl")
    assert (tally.line, tally.new, tally.rejected) == (11, 2, 8)
    assert tally.offset == path.stat().st_size
    report = [json.loads(line) for line in report_of(path).read_text().splitlines()]
    assert [entry["line"] for entry in report] == [2, 4, 5, 6, 7, 8, 9, 10]
    reasons = [entry["reason"] for entry in report]
    assert reasons[:4] == [
        "the line is not JSON: Expecting property name enclosed in double quotes at character 2",
        "the line is not a JSON object",
        "the line is not UTF-8",
        "both answers are the same",
    ]
    assert reasons[5] == "prompt must be a list of messages"
    assert reasons[6:] == ["the line is nested too deep", "the line is longer than 16 MiB"]


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("feedback", "created", "NaN"),
        ("feedback", "circumstances", '{"shown_at": 1e999}'),
        ("completion", "created", "-Infinity"),
        ("completion", "logprobs", "[NaN, 1e999]"),
        ("completion", "propensity", "Infinity"),
        ("completion", "choice", "1000000000"),
        ("completion", "choice", "-1"),
    ],
)
def test_a_number_that_would_break_whatever_reads_it_is_refused(
    shelf: Shelf, tmp_path: Path, part: str, field: str, value: str
) -> None:
    """NaN, once written, cannot be read again, nor anything that is read with it; a choice stands for all below."""
    shelf.bring(file_of(tmp_path / "one.jsonl", [preference(1)]))
    [line] = shelf.export("ratchet")
    line["completions"][0]["completion_token_ids"] = [1, 2]
    record = line["feedback"] if part == "feedback" else line["completions"][0]
    record[field] = "@"
    sent = json.dumps(line).replace('"@"', value).encode() + b"\n"
    tally = shelf.bring(file_of(tmp_path / "broken.jsonl", [sent]), "ratchet")
    assert (tally.new, tally.rejected) == (0, 1)
    assert field in report_of(tmp_path / "broken.jsonl").read_text()
    assert len(shelf.export("ratchet")) == 1


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "value", [{"stop": "\ud800"}, nested(300), nested(220)], ids=["half a pair", "deep", "deep to read"]
)
@pytest.mark.parametrize("field", ["sampling", "tool_calls"])
def test_what_could_not_be_kept_or_not_be_read_again_is_refused_alone(
    shelf: Shelf, tmp_path: Path, field: str, value: dict[str, Any]
) -> None:
    speak(shelf)
    lines = shelf.export("ratchet", private=True)
    shelf.redis.flushall()
    lines[1]["completions"][0] |= {"id": "bad", "response_id": "bad", field: value if field == "sampling" else [value]}
    lines[1]["feedback"]["judgement"]["completion_id"] = "bad"
    path = file_of(tmp_path / "backup.jsonl", lines)
    tally = shelf.bring(path)
    assert (tally.new, tally.rejected, tally.done) == (2, 1, True)
    assert [json.loads(line)["line"] for line in report_of(path).read_text().splitlines()] == [2]
    assert set(shelf.ledger.completions(tuple(shelf.ledger.completion_ids()))) == {"a", "b", "p"}


def test_calls_of_tools_too_deep_to_be_read_again_are_refused_in_any_format(shelf: Shelf, tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "", "tool_calls": [{"function": nested(220)}]}
    lines = [
        {"prompt": "hi", "completion": [answer], "label": True},
        {"prompt": "hi", "completion": "a", "label": True},
    ]
    tally = shelf.bring(file_of(tmp_path / "kto.jsonl", lines), "kto")
    assert (tally.new, tally.rejected) == (1, 1)
    assert len(shelf.export("kto")) == 1


def test_broken_gzip_keeps_what_came_before(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "CHUNK_LINES", 10)
    noise = [{**preference(n), "id": os.urandom(200).hex()} for n in range(200)]
    path = file_of(tmp_path / "cut.jsonl.gz", noise)
    path.write_bytes(path.read_bytes()[:-10_000])
    with pytest.raises(BrokenFile, match="is damaged after line"):
        shelf.bring(path)
    assert 100 < len(shelf.standing()) < 200


def test_dry_run_stores_nothing(shelf: Shelf, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.jsonl", [preference(1), {"prompt": "x"}])
    before = set(shelf.redis.keys())
    tally = shelf.bring(path, dry=True)
    assert (tally.new, tally.rejected) == (1, 1)
    assert set(shelf.redis.keys()) == before
    assert report_of(path).exists()
    assert shelf.bring(path).new == 1
    assert len(report_of(path).read_text().splitlines()) == 1, "the report is of the last run"


def test_ranking_is_read_whole_across_chunks(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "CHUNK_LINES", 1)
    pairs = [
        {"prompt": "x", "chosen": a, "rejected": b, "ranking_id": id}
        for id in ("r1", "r2")
        for a, b in (("1", "2"), ("1", f"3{id}"), ("2", f"3{id}"))
    ]
    assert shelf.bring(file_of(tmp_path / "a.jsonl", pairs)).new == 2
    assert [type(item.judgement) for item in shelf.standing()] == [Ranking, Ranking]
    weights = [line["weight"] for line in shelf.export("trl")]
    assert weights == pytest.approx([1 / 3] * 6)
    assert len({line["ranking_id"] for line in shelf.export("trl")[:3]}) == 1, "pairs of a ranking stand together"


def test_kill_in_the_middle_loses_and_doubles_nothing(valkey_url: str, tmp_path: Path) -> None:
    """The import runs in a process of its own, which is killed after some chunks, several times."""
    shelf = Shelf(valkey_url)
    count = 3000
    lines = [preference(n) if n % 100 else b"{broken\n" for n in range(1, count + 1)]
    path = file_of(tmp_path / "big.jsonl", lines)
    code = (
        "import sys; from pathlib import Path; from feedback.exchange import importing\n"
        "from feedback.exchange.judged import Origin; from feedback.store import Ledger, connect\n"
        "importing.CHUNK_LINES = 20; redis = connect(sys.argv[1]); path = Path(sys.argv[2])\n"
        "origin = Origin('big', lambda name, split: f'imported_{split}_{name}', lambda key: 'train', None, 1.0)\n"
        "run = importing.Importer(redis, Ledger(redis), origin).run(path, 'trl', Path(f'{path}.rejected.jsonl'))\n"
        "for progress in run: print(progress.tally.line, progress.tally.new, flush=True)\n"
    )
    starts = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code, valkey_url, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        starts.append(int(process.stdout.readline().split()[0]))
        for line in process.stdout:
            if int(line.split()[0]) >= starts[-1] + 400:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert starts[0] == 0
    assert starts[1] >= 400, "it goes on where it stopped"
    assert starts[2] >= starts[1] + 400
    tally = shelf.bring(path, name="big")
    assert (tally.line, tally.new + tally.known, tally.rejected) == (count, count - 30, 30)
    assert len(shelf.standing()) == shelf.redis.xlen("feedback") == count - 30
    reported = [json.loads(line)["line"] for line in report_of(path).read_text().splitlines()]
    assert reported == list(range(100, count + 1, 100))


def test_file_that_changed_is_read_from_its_start(shelf: Shelf, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.jsonl", [preference(1)])
    shelf.bring(path)
    file_of(path, [preference(1), preference(2)])
    tally = shelf.bring(path)
    assert (tally.line, tally.new, tally.known) == (2, 1, 1)
    assert shelf.bring(path, name="other").new == 2, "another rater may say the same"


def completion(id: str, text: str, **fields: Any) -> Completion:
    known = {
        "id": id, "response_id": id, "choice": 0, "conversation_id": "c", "rater": "ann", "text": text,
        "messages": (Message(role="user", content="hi"),), "prompt_token_ids": (1,), "completion_token_ids": (2,),
        "logprobs": (-0.5,), "sampling": {}, "finish_reason": "stop", "policy_version": 3, "created": 1.0,
    }  # fmt: skip
    return Completion.model_validate(known | fields)


def speak(shelf: Shelf) -> None:
    """Three judgements of served answers: one by an evaluation rater, one about an answer without consent."""
    private = completion("p", "secret", consent=False)
    shelf.answer(completion("a", "one", plain=True), completion("b", "two", policy_version=4), private)
    for n, (judgement, rater, split) in enumerate(
        [
            (Comparison(left="a", right="b", winner="right"), "ann", "train"),
            (Rating(completion_id="a", value=1), "joe", "eval"),
            (Demonstration(completion_id="p", content="mine"), "ann", "train"),
        ]
    ):
        feedback = {"id": f"f{n}", "judgement": judgement, "rater": rater, "split": split, "created": 100.0 + n}
        shelf.ledger.append_feedback(Feedback.model_validate(feedback))


def test_export_holds_what_was_asked_for(shelf: Shelf) -> None:
    speak(shelf)
    assert [line["feedback"]["id"] for line in shelf.export("ratchet")] == ["f0", "f1"]
    assert [line["feedback"]["id"] for line in shelf.export("ratchet", private=True)] == ["f0", "f1", "f2"]
    assert [line["feedback"]["id"] for line in shelf.export("ratchet", split="eval")] == ["f1"]
    assert [line["feedback"]["id"] for line in shelf.export("ratchet", split="train")] == ["f0"]
    assert [line["feedback"]["id"] for line in shelf.export("ratchet", since=101.0)] == ["f1"]
    assert shelf.export("ratchet", until=1.0) == []
    assert len(shelf.export("ratchet", until=time.time() + 1)) == 2
    assert len(shelf.export("ratchet", limit=1)) == 1
    assert shelf.export("sft") == []
    assert [line["label"] for line in shelf.export("kto")] == [True]
    assert "secret" not in json.dumps([shelf.export(format) for format in ("ratchet", "oasst", "trl", "kto")])


def test_export_names_no_rater_of_the_ledger(shelf: Shelf) -> None:
    speak(shelf)
    text = json.dumps([shelf.export(format) for format in ("ratchet", "trl", "kto", "arena", "oasst")])
    assert '"ann"' not in text
    assert '"joe"' not in text


def test_limit_never_cuts_a_ranking(shelf: Shelf) -> None:
    shelf.answer(*(completion(id, id) for id in "abc"))
    for n, ranking in enumerate(("A > B > C", "C > B > A")):
        judgement = Ranking(candidates=tuple("abc"), ranking=ranking)
        shelf.ledger.append_feedback(
            Feedback(id=f"f{n}", judgement=judgement, rater=f"r{n}", split="train", created=1.0)
        )
    assert len(shelf.export("trl", limit=1)) == 3
    assert len(shelf.export("oasst")) == 1, "one tree for one prompt"
    assert len(shelf.export("oasst")[0]["prompt"]["events"]["ranking"]) == 2


def test_backup_restores_into_an_empty_ledger_and_changes_nothing_in_its_own(shelf: Shelf, tmp_path: Path) -> None:
    speak(shelf)
    path = file_of(tmp_path / "backup.jsonl", shelf.export("ratchet", private=True))
    assert recognise(path) == "ratchet"
    tally = shelf.bring(path)
    assert (tally.new, tally.known, tally.rejected) == (0, 3, 0)
    assert {item.rater for item in shelf.standing()} == {"ann", "joe"}
    shelf.redis.flushall()
    assert shelf.bring(path).new == 3
    restored = shelf.ledger.completions(("a", "p"))
    assert restored["a"].completion_token_ids == (2,)
    assert restored["a"].policy_version == 3
    assert restored["a"].plain is True
    assert restored["p"].consent is False
    assert len(votes_in(shelf.ledger)) == 1
    assert [item.split for item in shelf.standing()] == ["train", "eval", "train"]
    assert all(item.rater.startswith(f"imported_{item.split}_") for item in shelf.standing())


@pytest.mark.parametrize("told", [True, False], ids=["another's", "nobody's"])
def test_versions_of_another_installation_are_none_of_this_one(shelf: Shelf, tmp_path: Path, told: bool) -> None:
    """Nor are its probabilities: PPO would take them for those of the version that has the same number here."""
    speak(shelf)
    lines = [{name: line[name] for name in line if told or name != "installation"} for line in shelf.export("ratchet")]
    shelf.redis.flushall()
    path = file_of(tmp_path / "theirs.jsonl", lines)
    assert shelf.bring(path, installation="another" if told else HERE).new == 2
    for answer in shelf.ledger.completions(("a", "b")).values():
        assert (answer.policy_version, answer.plain) == (None, False)
        assert answer.completion_token_ids == (2,)
    assert votes_in(shelf.ledger) == []


def test_a_response_that_comes_in_pieces_knows_all_of_its_choices(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads or erases it asks the frame which they are."""
    monkeypatch.setattr(importing, "CHUNK_LINES", 1)
    shared: dict[str, Any] = {"response_id": "a", "conversation_id": '"choices":7'}
    answers = [completion(f"a:{choice}", f"text {choice}", choice=choice, **shared) for choice in range(12)]
    for n, (left, right) in enumerate([(0, 1), (0, 11), (1, 2)]):
        said = Comparison(left=f"a:{left}", right=f"a:{right}", winner="left")
        shelf.ledger.append_answer(answers[0].frame(model="m", choices=12, metadata={"a": "b"}), answers)
        shelf.ledger.append_feedback(Feedback(id=f"f{n}", judgement=said, rater="ann", split="train", created=1.0))
    path = file_of(tmp_path / "backup.jsonl", shelf.export("ratchet"))
    shelf.redis.flushall()
    assert shelf.bring(path).new == 3
    archive = Archive(shelf.ledger)
    frame = archive.response("a")
    assert frame is not None and frame.completion_ids == [each.id for each in answers]
    assert frame.conversation_id == shared["conversation_id"]
    Eraser(archive).person(frame.rater)
    assert shelf.redis.keys("completion:*") == []


def test_ids_that_stand_for_something_else_here_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    speak(shelf)
    lines = shelf.export("ratchet")
    other = [{**line, "completions": [{**c, "text": "other"} for c in line["completions"]]} for line in lines]
    other[1]["feedback"] = {**other[1]["feedback"], "id": "new"}
    down = {"type": "rating", "completion_id": "a", "value": -1}
    voted = {**lines[1], "feedback": {**lines[1]["feedback"], "judgement": down}}
    path = file_of(tmp_path / "other.jsonl", [*other, voted])
    tally = shelf.bring(path)
    assert (tally.new, tally.known, tally.rejected) == (0, 0, 3)
    assert [json.loads(line)["reason"] for line in report_of(path).read_text().splitlines()] == [
        "completion a is another one in this ledger",
        "completion a is another one in this ledger",
        "feedback f1 is another one in this ledger",
    ]
    assert shelf.ledger.completions(("a",))["a"].text == "one"


def test_offsets_name_lines(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.jsonl", [b"{}\n", b"\n", b'{"a": "\xe2\x80\xa8"}\n', b"{}"])
    lines = list(read_lines(path))
    assert [line.number for line in lines] == [1, 3, 4]
    for at, line in enumerate(lines):
        rest = list(read_lines(path, after=line.end, number=line.number))
        assert [(r.number, r.text) for r in rest] == [(r.number, r.text) for r in lines[at + 1 :]]


def test_what_was_taken_back_or_erased_since_stays_so(shelf: Shelf, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.jsonl", [preference(1), preference(2)])
    shelf.bring(path)
    first, second = shelf.standing()
    assert shelf.ledger.retract(first.id)
    for id in second.judgement.targets:
        response = shelf.ledger.completions((id,))[id].response_id
        shelf.redis.sadd(ERASED, response)
        shelf.redis.delete(f"completion:{id}")
    shelf.redis.delete(*shelf.redis.keys("import:*"))
    tally = shelf.bring(path)
    assert (tally.new, tally.known, tally.rejected) == (0, 1, 1)
    assert "was erased from this ledger" in report_of(path).read_text()
    assert [item.id for item in shelf.standing()] == [second.id]


def test_an_import_goes_on_though_its_report_was_cut_within_a_line(shelf: Shelf, tmp_path: Path) -> None:
    path = file_of(tmp_path / "pairs.jsonl", [preference(1), b"{not json}\n"])
    report_of(path).write_bytes(b'{"line": 2, "reason": "the li')
    tally = shelf.bring(path)
    assert (tally.new, tally.rejected) == (1, 1)
    assert [json.loads(line)["line"] for line in report_of(path).read_text().splitlines()] == [2]
