"""Reward models outside of rounds, on a tiny base: what a file says, what comes of it, and that it is a round's."""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from feedback.exchange.exporting import Wanted, export
from feedback.exchange.importing import Importer
from feedback.exchange.judged import Origin
from feedback.exchange.reading import Rejected
from feedback.judgements import Comparison, Rating
from feedback.people.keys import KeyRing
from feedback.people.raters import Raters
from feedback.policies.manifest import Manifest, describe_files, write_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.records import Message, digest
from tests.training.people import CONFIG, People, file_of, planted
from training.config import RoundConfig
from training.lessons.collect import TrainingData
from training.lessons.judged import RankedAnswers
from training.model.samples import collate, encode_demonstration
from training.offline import reward as offline_reward
from training.offline.datafile import BadLines, read_file
from training.offline.reward import Evidence
from training.offline.reward_models import NoRewardModel, in_directory, load_trunk, of_version
from training.offline.run_directory import REPORT, SPLIT, CannotTrain, Plan
from training.offline.scores import score_lines
from training.round.stages import TextEncoder

USER = {"role": "user", "content": "hi"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
HH = "\n\nHuman: hi\n\nAssistant: "
TREE = {
    "message_tree_id": "t",
    "prompt": {
        "message_id": "p", "role": "prompter", "text": "hi", "replies": [
            {"message_id": "a", "role": "assistant", "text": "good", "rank": 0, "replies": []},
            {"message_id": "b", "role": "assistant", "text": "bad", "rank": 1, "replies": []},
        ],
    },
}  # fmt: skip


def said_in(path: Path, base: Path, config: RoundConfig = CONFIG, format: str = "auto", **options: Any) -> TrainingData:
    return offline_reward.of_file(path, format, base=base, config=config, **options)


@pytest.fixture
def data(tmp_path: Path, base_directory: Path) -> TrainingData:
    return said_in(file_of(tmp_path / "planted.jsonl.gz", planted(40)), base_directory)


@pytest.mark.parametrize(
    ("format", "line", "ranked", "rated"),
    [
        ("trl", {"prompt": "hi", "chosen": "good", "rejected": "bad"}, {"good": 0, "bad": 1}, {}),
        ("hh", {"chosen": HH + "good", "rejected": HH + "bad"}, {"good": 0, "bad": 1}, {}),
        (
            "openai_dpo",
            {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
            {"good": 0, "bad": 1},
            {},
        ),
        (
            "arena",
            {"winner": "tie", "conversation_a": [USER, GOOD], "conversation_b": [USER, BAD]},
            {"good": 0, "bad": 0},
            {},
        ),
        (
            "arena",
            {"winner": "both_bad", "conversation_a": [USER, GOOD], "conversation_b": [USER, BAD]},
            {},
            {"good": 0.0, "bad": 0.0},
        ),
        ("oasst", TREE, {"good": 0, "bad": 1}, {}),
        ("pairwise", {"messages": [USER], "a": "bad", "b": "good", "label": "b"}, {"good": 0, "bad": 1}, {}),
        (
            "kwise",
            {"messages": [USER], "responses": ["bad", "good", "best"], "ranks": [7, 5, 5]},
            {"bad": 1, "good": 0, "best": 0},
            {},
        ),
        ("kto", {"prompt": "hi", "completion": "good", "label": True}, {}, {"good": 1.0}),
        ("thumbs", {"messages": [USER], "response": "good", "up": 3, "down": 1}, {}, {"good": 0.75}),
        (
            "trl",
            {"prompt": "hi", "chosen": "good", "rejected": "bad", "kind": "demonstration"},
            {"good": 0, "bad": 1},
            {},
        ),
        ("sft", {"messages": [USER, GOOD]}, {}, {}),
        ("demonstrations", {"messages": [USER], "demonstration": "good"}, {}, {}),
    ],
)
def test_a_line_of_each_format_in_tokens(
    format: str, line: dict[str, Any], ranked: dict[str, int], rated: dict[str, float],
    tmp_path: Path, base_directory: Path, tokenizer: PreTrainedTokenizerFast,
) -> None:  # fmt: skip
    path = file_of(tmp_path / "one.jsonl", [line])
    found = said_in(path, base_directory)
    tokens = {text: encode_demonstration(tokenizer, [USER], text) for text in (*ranked, *rated)}
    assert {c: tier for r in found.rankings for c, tier in zip(r.completions, r.tiers, strict=True)} == {
        tokens[text].completion_ids: tier for text, tier in ranked.items()
    }
    assert {r.completion_ids: r.label for r in found.ratings} == {
        tokens[text].completion_ids: label for text, label in rated.items()
    }
    assert {r.prompt_ids for r in (*found.rankings, *found.ratings)} <= {s.prompt_ids for s in tokens.values()}
    assert {r.source for r in (*found.rankings, *found.ratings)} <= {"import"}
    written = format in ("sft", "demonstrations") or line.get("kind") == "demonstration"
    assert [each.content for each in found.demonstrations] == ["good"] * written
    assert said_in(path, base_directory, format=format) == found


def test_lines_that_cannot_be_used_are_named_and_only_strictly_fatal(tmp_path: Path, base_directory: Path) -> None:
    good = {"prompt": "hi", "chosen": "good", "rejected": "bad"}
    path = file_of(tmp_path / "mixed.jsonl", [good, b'{"prompt"\n', b"\n", {"prompt": "hi", "chosen": "x"}, good])
    seen: list[tuple[int, tuple[Rejected, ...]]] = []
    said = read_file(path, "trl", TextEncoder(base_directory).encode, on_lines=lambda *each: seen.append(each))
    assert [number for number, _ in seen] == [1, 2, 4, 5]
    assert [item for _, items in seen for item in items] == [
        Rejected(2, "the line is not JSON: Expecting ':' delimiter at character 11"),
        Rejected(4, "rejected is missing"),
    ]
    assert (said.rejected, len(said.standing), len(said.known)) == (2, 1, 2)  # the last line says the first again
    with pytest.raises(BadLines, match=r"mixed.jsonl, line 2: the line is not JSON"):
        said_in(path, base_directory, strict=True)


def test_an_answer_that_has_no_tokens_is_left_out_and_counted(tmp_path: Path, base_directory: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calling = {"role": "assistant", "content": "", "tool_calls": [call]}
    lines = [{"prompt": "hi", "chosen": [GOOD], "rejected": [each]} for each in (calling, BAD)]
    found = said_in(file_of(tmp_path / "tools.jsonl", lines), base_directory)
    assert (len(found.rankings), found.unencodable) == (1, 1)


def test_the_last_word_counts_and_who_only_evaluates_never_trains(tmp_path: Path, base_directory: Path) -> None:
    def line(prompt: str, rater: str, label: str = "a", **more: str) -> dict[str, Any]:
        asked = [{"role": "user", "content": prompt}]
        return {"messages": asked, "a": "one", "b": "two", "label": label, "rater": rater, **more}

    lines = [line(f"p{n}", "ann") for n in range(12)] + [line("p0", "ann", label="tie")]
    lines += [line("p1", "judge", split="eval"), line("p2", "bob"), line("p2", "ann")]
    found = said_in(file_of(tmp_path / "pairs.jsonl", lines), base_directory, replace_held_out(0.01))
    prompts = {
        n: TextEncoder(base_directory).encode((Message(role="user", content=f"p{n}"),), "x")[0] for n in (0, 1, 2)
    }
    held_out = {ranked.prompt_ids for ranked in found.held_out_rankings}
    assert prompts[1] in held_out
    assert not held_out & {ranked.prompt_ids for ranked in found.rankings}
    everything = [*found.rankings, *found.held_out_rankings]
    assert [ranked.tiers for ranked in everything if ranked.prompt_ids == prompts[0]] == [(0, 0)]
    assert len([ranked for ranked in everything if ranked.prompt_ids == prompts[2]]) == 2
    assert set(found.trained) == {digest(ranked.prompt_ids) for ranked in found.rankings}
    assert {digest(prompt) for prompt in held_out} == set(found.held_out)


def replace_held_out(fraction: float) -> RoundConfig:
    return replace(CONFIG, reward=replace(CONFIG.reward, held_out_fraction=fraction))


def test_it_learns_and_leaves_what_a_round_leaves(
    data: TrainingData, base_directory: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    out = tmp_path / "rm"
    report = offline_reward.train_on(
        data, source="planted", base=base_directory, out=out, classifier=True,
        progress=lambda stage, step, total, _: seen.append((stage, step, total)),
    )  # fmt: skip
    assert report.held_out is not None and report.held_out.accuracy.mean > 0.85
    assert report.counts["rankings"] + report.counts["held_out_rankings"] == 40
    steps = 4 * -(-report.counts["rankings"] // 8)
    assert ("reward", steps, steps) in seen
    assert {path.name for path in out.iterdir()} == {
        ".lock", "run.json", "reward", "split.json", "report.json", "classifier"
    }  # fmt: skip
    assert json.loads((out / REPORT).read_text()) == report.model_dump(mode="json")
    trunk = load_trunk(base_directory, CONFIG.reward)
    trunk.load_adapter("reward", out / "reward")
    sample = encode_demonstration(tokenizer, [USER], "zzzz")
    line = json.dumps({"messages": [USER], "completion": "zzzz"}).encode()
    [scored] = score_lines(in_directory(out), [(1, line)])
    assert not isinstance(scored, Rejected)
    assert scored["score"] == pytest.approx(trunk.score(collate([sample], trunk.pad_id)).item(), abs=1e-5)
    classifier = AutoModelForSequenceClassification.from_pretrained(out / "classifier")
    ids = AutoTokenizer.from_pretrained(out / "classifier")
    assert classifier.config.num_labels == 1 and ids.pad_token_id == classifier.config.pad_token_id
    with pytest.raises(CannotTrain, match="never overwritten"):
        offline_reward.train_on(data, source="planted", base=base_directory, out=out)


def test_thumbs_alone_train_and_the_report_has_no_pairs(base_directory: Path, tmp_path: Path) -> None:
    lines = [{"prompt": f"p{n}", "completion": "z" * 4 if n % 2 else "y" * 4, "label": bool(n % 2)} for n in range(20)]
    data = said_in(file_of(tmp_path / "kto.jsonl", lines), base_directory)
    report = offline_reward.train_on(data, source="f", base=base_directory, out=tmp_path / "rm")
    assert (report.counts["rankings"], report.held_out) == (0, None)
    asked = [json.dumps({"prompt": "new", "completion": text}).encode() for text in ("zzzz", "yyyy")]
    up, down = score_lines(in_directory(tmp_path / "rm"), enumerate(asked))
    assert not isinstance(up, Rejected) and not isinstance(down, Rejected)
    assert up["score"] > down["score"]


class Killed(BaseException):
    pass


def test_a_run_that_was_killed_goes_on_to_the_very_same_weights(
    data: TrainingData, base_directory: Path, tmp_path: Path
) -> None:
    def kill_at(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == 7:
            raise Killed

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = offline_reward.train_on(data, source="f", base=base_directory, out=whole)
    with pytest.raises(Killed):
        offline_reward.train_on(data, source="f", base=base_directory, out=broken, progress=kill_at)
    assert not (broken / REPORT).exists()
    assert [path.name for path in sorted((broken / "checkpoints").iterdir())][-1] == "step-00000006"
    with pytest.raises(NoRewardModel, match="no finished reward model"):
        in_directory(broken)
    first: list[int] = []
    again = offline_reward.train_on(
        data, source="f", base=base_directory, out=broken,
        progress=lambda stage, step, total, _: first.append(step) if stage == "reward" else None,
    )  # fmt: skip
    assert first[0] == 7
    assert again == expected
    for name in ("adapter_model.safetensors", "head.safetensors"):
        ours, theirs = (load_file(out / "reward" / name) for out in (broken, whole))
        assert ours.keys() == theirs.keys()
        assert all(bool((ours[key] == theirs[key]).all()) for key in ours)


def test_a_run_goes_on_with_nothing_else(data: TrainingData, base_directory: Path, tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise Killed

    out = tmp_path / "rm"
    with pytest.raises(Killed):
        offline_reward.train_on(data, source="f", base=base_directory, out=out, progress=stop)
    config = replace(CONFIG, reward=replace(CONFIG.reward, learning_rate=0.5))
    other = data.model_copy(update={"config": config.to_dict()})
    with pytest.raises(CannotTrain, match=r"was begun with learning_rate 0.01, not 0.5: remove it"):
        offline_reward.train_on(other, source="f", base=base_directory, out=out)
    longer = replace(CONFIG, reward=replace(CONFIG.reward, epochs=CONFIG.reward.epochs + 1))
    with pytest.raises(CannotTrain, match=f"epochs {CONFIG.reward.epochs}, not {CONFIG.reward.epochs + 1}"):
        offline_reward.train_on(
            data.model_copy(update={"config": longer.to_dict()}), source="f", base=base_directory, out=out
        )  # its rates would have been others from the first step on
    fewer = data.model_copy(update={"rankings": data.rankings[:-1]})
    with pytest.raises(CannotTrain, match="other judgements, some of which are gone or new by now"):
        offline_reward.train_on(fewer, source="f", base=base_directory, out=out)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("dear")
    with pytest.raises(CannotTrain, match="not empty"):
        offline_reward.train_on(data, source="f", base=base_directory, out=taken)
    assert Plan.kept(taken) is None
    few = data.model_copy(update={"rankings": data.rankings[:7]})
    with pytest.raises(CannotTrain, match="7 judgements may train"):
        offline_reward.train_on(few, source="f", base=base_directory, out=tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_what_it_learned_from_measures_nothing(data: TrainingData, base_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "rm"
    report = offline_reward.train_on(data, source="f", base=base_directory, out=out)
    model = in_directory(out)
    everything = offline_reward.evidence_of_file(tmp_path / "planted.jsonl.gz", "auto", base=base_directory)
    fit, ratings, left_out = offline_reward.evaluate_on(model, everything)
    assert (left_out, len(everything.rankings), ratings) == (len(data.rankings), 40, None)
    assert fit is not None and report.held_out is not None
    assert (fit.pairs, fit.ties, fit.raters) == (report.held_out.pairs, report.held_out.ties, report.held_out.raters)
    for name in ("accuracy", "log_loss", "brier", "kendall_tau"):
        assert getattr(fit, name).mean == pytest.approx(getattr(report.held_out, name).mean, abs=1e-5), name
    assert offline_reward.evaluate_on(model, Evidence(data.rankings)) == (None, None, len(data.rankings))


def test_thumbs_are_measured_by_the_chance_of_approval(
    base_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a slow computation, at whatever scale the model carries on: each rating from its line, alone in its batch."""
    monkeypatch.setattr("training.model.trunk.local_dtype", lambda: "float32")  # in bf16 a batch's size shows
    lines = [{"prompt": f"p{n}", "completion": "z" * 4 if n % 3 else "y" * 4, "label": bool(n % 3)} for n in range(40)]
    path = file_of(tmp_path / "kto.jsonl", lines)
    data, out = said_in(path, base_directory), tmp_path / "rm"
    report = offline_reward.train_on(data, source="f", base=base_directory, out=out)
    evidence = offline_reward.evidence_of_file(path, "auto", base=base_directory)
    found = offline_reward.evaluate_on(in_directory(out), evidence)
    assert (found.held_out, found.left_out) == (None, len(data.ratings))
    chances, learned = [], {rated.prompt_ids for rated in data.ratings}
    numbered = [(n, json.dumps(line).encode()) for n, line in enumerate(lines)]
    for scored in score_lines(in_directory(out), numbered, batch_size=1):
        assert isinstance(scored, dict)
        asked = (Message(role="user", content=scored["prompt"]),)
        if TextEncoder(base_directory).encode(asked, "z")[0] not in learned:
            up = 1 / (1 + math.exp(report.fitted["threshold"] - scored["score"]))
            chances.append(up if scored["label"] else 1 - up)
    assert found.ratings is not None and found.ratings.ratings == len(chances) == 40 - len(data.ratings) > 5
    assert found.ratings.log_loss.mean == pytest.approx(-fmean(map(math.log, chances)), abs=1e-5)
    assert found.ratings.brier.mean == pytest.approx(fmean((1 - each) ** 2 for each in chances), abs=1e-5)
    assert found.ratings.log_loss.high < math.log(2) and found.ratings.entropy == (0, 0, 0)

    trunk = load_trunk(base_directory, CONFIG.reward)
    trunk.load_adapter("reward", out / "reward")
    trunk.set_temperature(3.0)
    shutil.rmtree(out / "reward")
    trunk.save_adapter("reward", out / "reward")
    scaled = {**report.fitted, "threshold": 3 * report.fitted["threshold"], "temperature": 3.0}
    (out / REPORT).write_text(report.model_copy(update={"fitted": scaled}).model_dump_json())
    again = offline_reward.evaluate_on(in_directory(out), evidence).ratings
    assert again is not None
    assert tuple(again.log_loss) == pytest.approx(tuple(found.ratings.log_loss), abs=1e-5)


def test_what_a_file_gives_to_measure_by(base_directory: Path, tmp_path: Path) -> None:
    """An edit is better than what it stands over; nobody acceptable is a thumb down for each; pairs stay pairs."""
    lines = [
        {"prompt": "hi", "chosen": "good", "rejected": "bad", "kind": "demonstration"},
        {"prompt": "ho", "chosen": "good", "rejected": "bad"},
    ]
    edits = offline_reward.evidence_of_file(file_of(tmp_path / "trl.jsonl", lines), "auto", base=base_directory)
    assert sorted(ranked.kind for ranked in edits.rankings) == ["comparison", "edit"]
    edit = next(ranked for ranked in edits.rankings if ranked.kind == "edit")
    encode = TextEncoder(base_directory).encode
    asked = (Message(role="user", content="hi"),)
    assert dict(zip(edit.completions, edit.tiers, strict=True)) == {
        encode(asked, "good")[1]: 0,
        encode(asked, "bad")[1]: 1,
    }
    battle = {"winner": "both_bad", "conversation_a": [USER, GOOD], "conversation_b": [USER, BAD]}
    bad = offline_reward.evidence_of_file(file_of(tmp_path / "arena.jsonl", [battle]), "auto", base=base_directory)
    assert (list(bad.rankings), [rated.label for rated in bad.ratings], list(edits.ratings)) == ([], [0.0, 0.0], [])
    own = file_of(tmp_path / "sft.jsonl", [{"messages": [USER, GOOD]}])
    assert offline_reward.evidence_of_file(own, "auto", base=base_directory) == ([], [])


def test_what_it_learned_from_measures_nothing_in_other_tokens_either(
    data: TrainingData, base_directory: Path, tmp_path: Path
) -> None:
    """As asked on another day, which a system message tells; a model of before knows its prompts by tokens alone."""
    out = tmp_path / "rm"
    offline_reward.train_on(data, source="f", base=base_directory, out=out)
    learned = data.rankings[0].model_copy(update={"prompt_ids": (7, 7)})
    new = learned.model_copy(update={"question": "new"})
    evidence = Evidence([learned, new])
    assert offline_reward.evaluate_on(in_directory(out), evidence).left_out == 1
    split = json.loads((out / SPLIT).read_text())
    old = {name: split[name] for name in ("schema_version", "trained", "held_out")}
    (out / SPLIT).write_text(json.dumps(old))
    assert offline_reward.evaluate_on(in_directory(out), evidence).left_out == 0
    assert offline_reward.evaluate_on(in_directory(out), Evidence(data.rankings)).left_out == len(data.rankings)


def test_without_thumbs_learned_no_approval_is_known(data: TrainingData, base_directory: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "rm", file_of(tmp_path / "kto.jsonl", [{"prompt": "p", "completion": "z", "label": True}])
    offline_reward.train_on(data, source="f", base=base_directory, out=out)
    evidence = offline_reward.evidence_of_file(path, "auto", base=base_directory)
    assert len(evidence.ratings) == 1
    assert offline_reward.evaluate_on(in_directory(out), evidence) == (None, None, 0)


# From here on with a ledger.


def prompts_of(data: TrainingData) -> tuple[set[tuple[int, ...]], set[tuple[int, ...]]]:
    return {r.prompt_ids for r in data.rankings}, {r.prompt_ids for r in data.held_out_rankings}


def test_the_ledger_is_read_by_the_rules_of_a_round(people: People) -> None:
    asked = {n: people.compare(f"p{n}") for n in range(20)}
    private = people.compare("private", consent=False)
    proof = people.compare("proof", rater="judge", split="eval")
    spam = people.compare("spam", rater="troll")
    Raters(people.redis).quarantine("troll", reason="test", actor="test")
    sides = people.sides
    before = people.data()
    moved = next(r.prompt_ids for r in before.held_out_rankings if r.prompt_ids != proof)
    sides.fix([digest(moved)], "train")
    training, held_out = prompts_of(people.data())
    assert moved in training and proof in held_out
    assert not {private, spam} & (training | held_out)
    assert training | held_out == {*asked.values(), proof}
    assert (people.data().quarantined, people.data().trained == before.trained) == (1, False)
    # Nothing that was asked here fixes a side for the rounds.
    assert sides.of(map(digest, asked.values())) == {digest(moved): "train"}


def test_a_file_trains_as_its_import_would(people: People, tmp_path: Path) -> None:
    """Three raters, of whom one disagrees and so weighs less; thumbs, an edit, and one who only evaluates."""
    lines: list[dict[str, Any]] = []
    for n in range(24):
        for rater in ("ann", "bob", "cid"):
            chosen, rejected = ("y", "z") if rater == "cid" else ("z", "y")
            lines.append({"prompt": f"p{n}", "chosen": chosen, "rejected": rejected, "rater": rater})
    lines.append({"prompt": "p3", "chosen": "zz", "rejected": "z", "rater": "eve", "split": "eval"})
    lines.append({"prompt": "p5", "chosen": "edited", "rejected": "z", "rater": "ann", "kind": "demonstration"})
    path = file_of(tmp_path / "pairs.jsonl.gz", lines)
    keys = KeyRing(people.redis, people.settings.secrets().pepper)
    origin = Origin("pairs", keys.imported, lambda key: "train", None, time.time())
    *_, last = Importer(people.redis, people.ledger, origin).run(path, "trl", tmp_path / "rejected")
    assert (last.tally.new, last.tally.rejected) == (len(lines), 0)
    ours, theirs = said_in(path, people.base), people.data()
    assert {r.weight for r in ours.rankings if r.kind == "comparison"} != {1.0}
    assert (ours.trained, ours.held_out) == (theirs.trained, theirs.held_out)
    assert weighed(ours.rankings) == weighed(theirs.rankings)
    assert weighed(ours.held_out_rankings) == weighed(theirs.held_out_rankings)
    assert [(w.content, w.messages) for w in ours.demonstrations] == [
        (w.content, w.messages) for w in theirs.demonstrations
    ]


def weighed(rankings: Sequence[RankedAnswers]) -> list[tuple[Any, ...]]:
    """Without ids and raters' names, in an order of their own."""
    return sorted((r.prompt_ids, r.completions, r.tiers, r.kind, r.source, round(r.weight, 9)) for r in rankings)


def test_a_version_is_measured_by_what_no_round_trained_on(people: People, tmp_path: Path) -> None:
    for n in range(30):
        people.compare(f"p{n}")
    data = people.data()
    out = tmp_path / "rm"
    report = offline_reward.train_on(data, source="ledger", base=people.base, out=out)
    registry = PolicyRegistry(people.redis, people.settings.policies_dir)
    for version in (0, 1):
        directory = registry.directory(version)
        directory.mkdir(parents=True)
        if version:
            (out / "reward").rename(directory / "reward")
        write_manifest(directory, Manifest(
            version=version, parent=0 if version else None, kind="trained" if version else "base", base_model="tiny",
            dtype="float32", model_path=str(people.base), created=0.0, files=describe_files(directory), weights={},
            golden=(), golden_logprobs=(), config=data.config, metrics={"reward": report.fitted},
        ))  # fmt: skip
        registry.publish(version, actor="test", reason="test")
    model = of_version(people.settings, people.redis, 1)
    sides = people.sides
    sides.fix(data.trained, "train")
    fit, ratings, left_out = offline_reward.evaluate_on(model, Evidence([*data.rankings, *data.held_out_rankings]))
    assert (left_out, ratings) == (len(data.rankings), None)
    assert fit is not None and report.held_out is not None
    assert fit.accuracy.mean == pytest.approx(report.held_out.accuracy.mean)
    held_out = data.held_out_rankings[0]
    rated, taught = (
        next(id for id in people.ledger.completion_ids() if id.split("-")[1] == prompt)
        for prompt in (text_of(people, held_out.prompt_ids), text_of(people, data.rankings[0].prompt_ids))
    )
    people.say(Rating(completion_id=rated, value=-1), "bob")
    people.say(Rating(completion_id=taught, value=1), "bob")
    found = offline_reward.held_out_of_ledger(people.settings, people.redis, model, people.base)
    assert {r.feedback_id for r in found.rankings} == {r.feedback_id for r in data.held_out_rankings}
    assert [(each.prompt_ids, each.label) for each in found.ratings] == [(held_out.prompt_ids, 0.0)]
    Raters(people.redis).quarantine("bob", reason="test", actor="test")
    assert offline_reward.held_out_of_ledger(people.settings, people.redis, model, people.base).ratings == []
    with pytest.raises(ValueError, match="not of the ledger's"):
        offline_reward.held_out_of_ledger(people.settings, people.redis, model, tmp_path)
    with pytest.raises(NoRewardModel, match="policy-v0 is the base model"):
        of_version(people.settings, people.redis, 0)


def text_of(people: People, prompt: tuple[int, ...]) -> str:
    """What was asked, of prompts p0 to p29."""
    texts = (f"p{n}" for n in range(30))
    return next(text for text in texts if people.encode((Message(role="user", content=text),), "z")[0] == prompt)


def test_a_backup_keeps_its_tokens_only_under_the_template_that_made_them(
    people: People, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    left, right = people.ask("cut", ["zzzz", "yyyy"], "ann", finish_reason="length")
    people.say(Comparison(left=left.id, right=right.id, winner="left"), "ann")
    people.compare("private", consent=False)
    lines = list(export(people.ledger, Wanted("ratchet", private=True), b"salt"))
    assert len(lines) == 2
    cut = [line | {"completions": [_cut(each) for each in line["completions"]]} for line in lines]
    path = file_of(tmp_path / "backup.jsonl", cut)
    [ranked] = offline_reward.evidence_of_file(path, "ratchet", base=people.base).rankings
    assert ranked.completions == tuple(each.completion_token_ids[:-1] for each in (left, right))
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<|im_end|>\n", "<|im_end|>\n\n")
    tokenizer.save_pretrained(people.base)
    found = said_in(path, people.base)
    assert (found.rankings, found.held_out_rankings, found.unencodable) == ((), (), 2)


def _cut(completion: dict[str, Any]) -> dict[str, Any]:
    """Without its last token: it met its bound."""
    shorter = {name: completion[name][:-1] for name in ("completion_token_ids", "logprobs")}
    return completion | shorter
