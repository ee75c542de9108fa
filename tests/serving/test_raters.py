"""`ratchet raters` against a real ledger."""

import json
from pathlib import Path

import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from feedback.judgements import Feedback, Rating
from feedback.manifest import Manifest, write_manifest
from feedback.raters import Raters, RaterWeight
from feedback.registry import PolicyRegistry
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
    table = ratchet().stdout
    assert "0.125" in table and "0.500 (capped)" in table and "ann" in table


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


def test_unknown_pseudonym_is_refused(redis: Redis) -> None:
    done = ratchet("quarantine", "evee")
    assert done.exit_code == 1
    assert "nobody is called evee" in done.stderr
    assert Raters(redis).quarantined() == {}
