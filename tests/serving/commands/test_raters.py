"""`ratchet raters` against a real ledger."""

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from feedback.archive import Archive
from feedback.judgements import Feedback, Rating
from feedback.people.raters import Raters, RaterWeight
from feedback.policies.manifest import Manifest, write_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.records import Offer, Slot
from feedback.settings import load_secrets
from feedback.store import Ledger, connect
from serving.cli import app


@pytest.fixture
def redis(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """Two judgements of eve, one of ann, who never trains; policy-v1 learned from eve."""
    load_secrets(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    monkeypatch.setenv("RATCHET_REDIS_URL", valkey_url)
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("COLUMNS", "200")
    redis = connect(valkey_url)
    for n, (rater, split) in enumerate([("eve", "train"), ("eve", "train"), ("ann", "eval")]):
        judgement = Rating(completion_id=f"c{n}", value=1)
        record = {"id": f"f{n}", "judgement": judgement, "rater": rater, "split": split, "created": 0.0}
        Ledger(redis).append_feedback(Feedback.model_validate(record))
    registry = PolicyRegistry(redis, tmp_path / "policies")
    for version, raters in enumerate([[], ["eve"]]):
        registry.directory(version).mkdir(parents=True)
        known = {"kind": "trained", "base_model": "b", "dtype": "float32", "model_path": "m", "created": 0.0}
        parent = version - 1 if version else None
        empty = {"files": {}, "weights": {}, "golden": (), "golden_logprobs": ()}
        lineage = {"lineage": {"round": version, "raters": raters}}
        manifest = Manifest.model_validate({"version": version, "parent": parent, **known, **empty, **lineage})
        write_manifest(registry.directory(version), manifest)
        registry.publish(version, actor="test", reason="made")
    Raters(redis).keep_weights(
        [
            RaterWeight(
                rater="eve", source="live", judgements=2, compared=2, agreement=0.25, reliability=0.125, share=0.5,
                capped=True,
            )
        ]
    )  # fmt: skip
    return redis


def ratchet(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["raters", *arguments])


def test_raters_are_listed_with_what_the_last_round_made_of_them(redis: Redis) -> None:
    rows = json.loads(ratchet("--json").stdout)
    assert [(row["rater"], row["judgements"], row["split"]) for row in rows] == [
        ("eve", 2, "train"),
        ("ann", 1, "eval"),
    ]
    assert (rows[0]["agreement"], rows[0]["reliability"], rows[0]["capped"]) == (0.25, 0.125, True)
    assert rows[0]["quarantined"] is None
    for words in (["list", "--json"], ["--json", "list"]):
        assert json.loads(ratchet(*words).stdout) == rows
    table = ratchet().stdout
    assert "0.125" in table and "0.500 (capped)" in table and "ann" in table


def test_nothing_is_claimed_of_a_rater_whom_nobody_can_be_compared_with(redis: Redis) -> None:
    alone = RaterWeight(
        rater="ann", source="live", judgements=1, compared=0, agreement=None, reliability=1.0, share=0.5, capped=False
    )
    Raters(redis).keep_weights([alone])
    [row] = [line for line in ratchet().stdout.splitlines() if "ann" in line]
    assert "unknown" in row and "1.000" not in row and "0.500" in row


def test_quarantine_says_what_learned_and_release_undoes_it(redis: Redis) -> None:
    done = ratchet("quarantine", "eve", "--reason", "votes for a trigger")
    assert done.exit_code == 0
    assert "policy-v1" in done.stdout and "policy-v0" not in done.stdout
    assert "votes for a trigger" in ratchet().stdout
    again = ratchet("quarantine", "eve")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert ratchet("release", "eve").exit_code == 0
    assert ratchet("release", "eve").exit_code == 1
    assert [line.action for line in Raters(redis).audit()] == ["quarantine", "release"]
    assert Raters(redis).audit()[0].actor.startswith("cli:")


@pytest.mark.parametrize("order", [("quarantine",), ("erase", "--yes")])
def test_unknown_pseudonym_is_refused(redis: Redis, order: tuple[str, ...]) -> None:
    done = ratchet(*order, "evee")
    assert done.exit_code == 1
    assert "nobody is called evee" in done.stderr
    assert Raters(redis).quarantined() == {}


def test_a_rater_is_erased_once_somebody_said_so(redis: Redis) -> None:
    def left() -> list[str]:
        return [row["rater"] for row in json.loads(ratchet("--json").stdout)]

    kept = CliRunner().invoke(app, ["raters", "erase", "eve"], input="n\n")
    assert (kept.exit_code, left()) == (1, ["eve", "ann"])
    assert "nothing was erased" in kept.stderr
    done = CliRunner().invoke(app, ["raters", "erase", "eve"], input="y\n")
    assert (done.exit_code, left()) == (0, ["ann"])
    assert "eve is erased: 0 conversations, 0 answers, 2 judgements" in done.stdout
    assert "learned from them, and stay: round 1, policy-v1" in done.stdout
    assert ratchet("erase", "ann", "--yes").exit_code == 0
    assert left() == []


def test_checks_are_shown_and_who_fails_them_is_proposed(redis: Redis) -> None:
    """Eve prefers 12 of 12 decoys; bob passes one, and says the same of a pair that came again."""
    checks: list[tuple[str, Any, tuple[str, str], str]] = [("eve", "gold", ("decoy", "good"), "left")] * 12
    checks.append(("bob", "gold", ("decoy", "good"), "right"))
    checks += [("bob", None, ("a", "b"), "left"), ("bob", "repeat", ("b", "a"), "right")]
    for n, (rater, lane, (left, right), winner) in enumerate(checks):
        id = f"cmp_{n if lane else 'one'}"
        ids = [f"{id}:{side}" if lane == "gold" else f"cmp_one:{side}" for side in (left, right)]
        slots = tuple(Slot(completion_id=each, arm="gold" if "decoy" in each else "policy") for each in ids)
        known = {"rater": rater, "conversation_id": "c", "propensity": 0.5, "created": 0.0, "lane": lane}
        Archive(Ledger(redis)).add_offer(Offer.model_validate({"id": id, "slots": slots, **known}))
        said = {"type": "comparison", "left": ids[0], "right": ids[1], "winner": winner, "comparison_id": id}
        record = {"id": f"g{n}", "judgement": said, "rater": rater, "split": "train", "lane": lane, "created": 0.0}
        Ledger(redis).append_feedback(Feedback.model_validate(record))
    rows = {row["rater"]: row for row in json.loads(ratchet("--json").stdout)}
    assert (rows["eve"]["judgements"], rows["bob"]["judgements"]) == (2, 1), "checks are none"
    assert (rows["eve"]["checks"]["failed"], rows["eve"]["checks"]["passed"]) == (12, 0)
    # The mean of (1 - p)^12 up to 0.8, by 0.2^12.
    assert rows["eve"]["checks"]["log_e_careless"] == pytest.approx(log((1 - 0.2**13) / 13 / 0.8 / 0.2**12))
    assert rows["eve"]["suspected"][0] == "preferred 12 of 12 decoys"
    assert (rows["bob"]["suspected"], rows["ann"]["checks"]["left"]) == ([], 0)
    lines = [" ".join(line.split()) for line in ratchet().stdout.replace("│", " ").splitlines()]
    [eve] = [line for line in lines if line.endswith(" eve")]
    [bob] = [line for line in lines if line.endswith(" bob")]
    assert " 0/12 100% propose quarantine: preferred 12 of 12 decoys" in eve
    assert bob.endswith(" 1/1 1/1 50% bob")
    assert Raters(redis).quarantined() == {}, "it proposes"
    ratchet("quarantine", "eve", "--reason", "does not read")
    shown = ratchet().stdout
    assert "does not read" in shown and "propose" not in shown
