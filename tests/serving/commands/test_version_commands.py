"""Commands about versions, on a real registry: what became of them, where they come from, in what they differ."""

import getpass
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from feedback.judgements import Feedback, Rating
from feedback.policies.manifest import Manifest, describe_files, write_manifest
from feedback.policies.registry import PolicyRegistry
from feedback.records import Completion, Message
from feedback.releases.book import ReleaseBook
from feedback.releases.plan import Plan
from feedback.settings import load_secrets
from feedback.store import Ledger, connect
from serving.cli import app
from serving.commands.versions import _counted, _period, _shown
from serving.views.version_diff import for_people


def lineage(round: int, ids: list[str], origin: int, **more: Any) -> dict[str, Any]:
    return {
        "round": round, "trigger": "count", "since": f"{round - 1}-0", "watermark": f"{round}-0",
        "feedback": {"rankings": len(ids), "ratings": 0}, "feedback_ids": ids, "raters": ["ann", "bob"],
        "live": ["chatcmpl-1"], "reward_origin": origin, "reward_model": f"sha{round}", **more,
    }  # fmt: skip


def gate(value: float, passed: bool) -> dict[str, Any]:
    return {"checks": [{"name": "KL", "value": value, "sign": "<=", "threshold": 20.0, "passed": passed}]}


VERSIONS: list[dict[str, Any]] = [
    {"parent": None, "kind": "base"},
    {"parent": 0, "lineage": lineage(1, ["fb_1", "fb_2"], 0), "config": {"seed": 1, "ppo": {"kl_coef": 0.05}},
     "metrics": {"gate": {"gate/kl": 3.0, **gate(3.0, True)}, "sft": {"skipped": "no demonstrations"}}},
    {"parent": 1, "lineage": lineage(2, ["fb_2", "fb_3", "fb_4"], 1), "config": {"seed": 1, "ppo": {"kl_coef": 0.1}},
     "metrics": {"gate": {"gate/kl": 2.5, **gate(2.5, True)}}},
    {"parent": 1, "lineage": lineage(3, ["fb_5"], 1), "metrics": {}},
]  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> PolicyRegistry:
    """1 and 3 come from 0 and 1, 2 from 1 as well; 1 and then 2 were promoted."""
    load_secrets(tmp_path)
    for name, value in {"HOME": str(tmp_path), "REDIS_URL": valkey_url, "PORT": "1"}.items():
        monkeypatch.setenv(f"RATCHET_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")
    registry = PolicyRegistry(connect(valkey_url), tmp_path / "policies")
    for version, told in enumerate(VERSIONS):
        directory = registry.directory(version)
        directory.mkdir(parents=True)
        for name in ("adapter", "merged"):
            (directory / name).mkdir()
            (directory / name / "model.safetensors").write_bytes(bytes(version))
        known = {"kind": "trained", "base_model": "b", "dtype": "float32", "model_path": "merged", "created": 0.0,
                 "adapter_path": "adapter"}  # fmt: skip
        empty = {"weights": {}, "golden": (), "golden_logprobs": (), "files": describe_files(directory)}
        write_manifest(directory, Manifest.model_validate({"version": version, **known, **empty, **told}))
        registry.publish(version, actor="training", reason=f"round {version}")
        if version < 3:
            registry.point_stable(version, expected=registry.stable(), actor="ann", reason="[better]")
    return registry


def policies(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policies", *arguments])


def printed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> str:
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    return result.stderr.strip()


@pytest.mark.parametrize("command", ["history", "lineage", "diff", "pin", "unpin", "retire", "export", "import"])
def test_each_explains_itself(command: str) -> None:
    assert "Usage:" in policies(command, "--help").stdout


def test_options_before_the_word_are_the_commands(
    registry: PolicyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "elsewhere"))
    home = ("--home", str(tmp_path))
    assert printed(policies(*home, "--json", "list"))["stable"] == 2
    assert printed(policies(*home, "--json", "show", "1"))["version"] == 1
    assert policies(*home, "pin", "3").stdout == "policy-v3 is pinned\n"
    assert "there is no installation in" in refused(policies(*home, "list", "--home", str(tmp_path / "nowhere")))
    put_aside = CliRunner().invoke(app, ["raters", *home, "quarantine", "ann"])
    assert refused(put_aside) == "ratchet: nobody is called ann; `ratchet raters` shows them"


def test_an_option_before_the_word_that_the_command_has_not_is_refused(registry: PolicyRegistry) -> None:
    result = policies("--json", "pin", "3")
    assert (result.exit_code, registry.pinned()) == (2, set())
    assert "`pin` has no option --json" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("named", ["2", "v2", "policy-v2"])
def test_a_version_is_taken_in_whatever_way_it_is_told(registry: PolicyRegistry, named: str) -> None:
    runner = CliRunner()
    assert printed(policies("show", named, "--json"))["version"] == 2
    assert printed(policies("lineage", named, "--json"))["version"] == 2
    assert printed(policies("diff", named, "policy-v1", "--json"))["versions"] == [2, 1]
    assert {line["version"] for line in printed(policies("history", named, "--json"))} == {2}
    assert policies("pin", named).stdout == "policy-v2 is pinned\n"
    assert printed(runner.invoke(app, ["leaderboard", "--anchor", named, "--json"]))["anchor"] == 2
    stays = "ratchet: the stable policy is no longer policy-v1; it is policy-v2"
    for command in ("promote", "rollback"):
        assert refused(runner.invoke(app, [command, named, "--expect", "policy-v1"])) == stays
    assert (
        refused(runner.invoke(app, ["release", "start", named]))
        == "ratchet: policy-v2 is stable: it cannot be released"
    )


@pytest.mark.parametrize("named", ["policy-vv2", "vv2", "two", "2.0", "²", "9" * 10, ""])
def test_what_names_no_version_is_refused_before_anything_is_done(registry: PolicyRegistry, named: str) -> None:
    for command in (["policies", "show"], ["promote"], ["rollback"], ["release", "start"]):
        result = CliRunner().invoke(app, [*command, named])
        assert (result.exit_code, registry.stable()) == (2, 2)
        assert "write it like 3, v3 or policy-v3" in " ".join(result.stderr.replace("│", " ").split())


def test_history_tells_who_did_what_when_and_why(registry: PolicyRegistry) -> None:
    assert policies("pin", "3", "--reason", "the paper's").exit_code == 0
    lines = printed(policies("history", "1", "--json"))
    assert [(line["version"], line["action"], line["actor"], line["reason"]) for line in lines] == [
        (1, "publish", "training", "round 1"), (1, "promote", "ann", "[better]"), (2, "promote", "ann", "[better]"),
    ]  # fmt: skip
    assert len(printed(policies("history", "--json"))) == 8
    table = policies("history").stdout
    assert "[better]" in table and "the paper's" in table and f"cli:{getpass.getuser()}" in table
    assert refused(policies("history", "9")) == "ratchet: policy-v9 does not exist"


def test_people_read_rolled_back_and_machines_rolled_back_in_one_word(registry: PolicyRegistry) -> None:
    book = ReleaseBook(registry)
    begun = book.start(3, Plan(), mode="manual", whose="all", since="0", actor="ann", reason="try", seen=None)
    book.end(begun, "rolled_back", actor="ann", reason="worse")
    for command in ([], ["show", "3"], ["history"], ["lineage", "3"]):
        shown = policies(*command).stdout
        assert "rolled back" in shown and "rolled_back" not in shown, command
    assert [row["state"] for row in printed(policies("--json"))["policies"]][3] == "rolled_back"
    assert printed(policies("history", "3", "--json"))[-1]["action"] == "rolled_back"
    assert printed(policies("lineage", "3", "--json"))["state"] == "rolled_back"


def test_a_pinned_version_is_not_deleted_and_another_is(registry: PolicyRegistry) -> None:
    assert policies("pin", "3").exit_code == 0
    assert refused(policies("pin", "3")) == "ratchet: policy-v3 is pinned already"
    assert [row["pinned"] for row in printed(policies("--json"))["policies"]] == [False, False, False, True]
    assert "candidate, pinned" in policies().stdout
    assert refused(policies("retire", "3")) == "ratchet: policy-v3 stays: it is pinned"
    assert refused(policies("retire", "1")) == "ratchet: policy-v1 stays: a rollback returns to it"
    assert policies("unpin", "3").exit_code == 0
    assert refused(policies("unpin", "3")) == "ratchet: policy-v3 is not pinned"
    assert policies("retire", "3", "--reason", "disk").exit_code == 0
    assert not (registry.directory(3) / "model.safetensors").exists()
    assert printed(policies("show", "3", "--json"))["state"] == "deleted"
    assert refused(CliRunner().invoke(app, ["promote", "3"])) == "ratchet: policy-v3 is deleted: it cannot serve"


def test_lineage_goes_back_to_judgements_and_forth_to_versions(registry: PolicyRegistry) -> None:
    found = printed(policies("lineage", "1", "--json"))
    assert (found["ancestors"], found["descendants"], found["round"]) == ([0], [2, 3], 1)
    assert (found["judgements"], found["feedback_ids"]) == ({"rankings": 2, "ratings": 0}, ["fb_1", "fb_2"])
    assert (found["raters"], found["live"], found["watermark"], found["reward_model"]) == (2, 1, "1-0", "sha1")
    table = policies("lineage", "2").stdout
    assert "policy-v1, policy-v0" in table and "3 rankings" in table and "2 (count)" in table
    assert "3 judgements, 1 live answer; words of 2 people " in table
    assert [" ".join(line.split()[1:-1]) for line in table.splitlines() if "went on from" in line] == [
        "which went on from │ policy-v1"
    ]
    assert "went on from" not in policies("lineage", "1").stdout, "the base has no reward model"
    assert printed(policies("lineage", "0", "--json"))["round"] is None
    assert refused(policies("lineage", "9")) == "ratchet: policy-v9 does not exist"


def test_lineage_tells_when_and_how_many_in_words() -> None:
    then, last = (datetime.fromisoformat(day).timestamp() for day in ("2026-11-01T08:00:00", "2026-11-02T09:30:00"))
    assert _period("0", f"{last * 1000:.0f}-0") == "from the beginning, up to 2026-11-02 09:30:00"
    assert _period(f"{then * 1000:.0f}-3", f"{last * 1000:.0f}-0") == (
        "after 2026-11-01 08:00:00, up to 2026-11-02 09:30:00"
    )
    assert _period(None, None) == ""
    kinds = {"demonstrations": 1, "held_out_rankings": 12, "live": 1, "unencodable": 2}
    told = [_counted(count, kind) for kind, count in kinds.items()]
    assert told == ["1 demonstration", "12 held-out rankings", "1 live", "2 unencodable"]


def test_lineage_begins_at_an_answer(registry: PolicyRegistry) -> None:
    ledger = Ledger(registry.redis)
    for id, version, changed in (("a", 2, None), ("b", None, None), ("d", 1, 5)):
        answer = Completion(
            id=f"{id}:0", response_id=id, choice=0, conversation_id="c", rater="ann", text="yes",
            messages=(Message(role="user", content="?"),), prompt_token_ids=(), completion_token_ids=(), logprobs=(),
            sampling={}, finish_reason="stop", policy_version=version, version_changed_at=changed, created=1.0,
        )  # fmt: skip
        ledger.append_answer(answer.frame(model="policy"), [answer])
    assert printed(policies("lineage", "a:0", "--json"))["feedback_ids"] == ["fb_2", "fb_3", "fb_4"]
    assert policies("lineage", "a:0").stderr == ""
    both = policies("lineage", "d:0", "--json")
    assert printed(both)["version"] == 1
    assert both.stderr == (
        "d:0 is by two versions: policy-v1 wrote its first 5 tokens, the one that took its place the rest; "
        "this is of the first\n"
    )
    assert "was imported" in refused(policies("lineage", "b:0"))
    assert "neither a version nor" in refused(policies("lineage", "c:0"))


def test_a_judgement_names_what_learned_from_it(registry: PolicyRegistry) -> None:
    def used(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["feedback", "used", *arguments])

    found = printed(used("fb_3", "--json"))
    assert found == {"id": "fb_3", "rounds": [2], "policies": ["policy-v2"]}
    assert used("fb_2").stdout == "trained rounds 1, 2: policy-v1, policy-v2, policy-v3\n"
    assert refused(used("fb_9")) == "ratchet: there is no judgement fb_9, and no round knows it"
    rating = Feedback(id="fb_9", judgement=Rating(completion_id="x", value=1), rater="ann", split="eval", created=0.0)
    Ledger(registry.redis).append_feedback(rating)
    assert used("fb_9").stdout == "no policy has trained on it\n"


def test_two_versions_beside_each_other(registry: PolicyRegistry) -> None:
    found = printed(policies("diff", "1", "2", "--json"))
    assert (found["versions"], found["common_ancestor"]) == ([1, 2], 1)
    assert found["judgements"] == {"left": 1, "both": 1, "right": 2}
    assert found["config"] == {"ppo.kl_coef": [0.05, 0.1]}
    assert found["metrics"] == {"gate.gate/kl": [3.0, 2.5], "sft.skipped": ["no demonstrations", None]}
    passed = [{"value": 3.0, "verdict": "passed"}, {"value": 2.5, "verdict": "passed"}]
    assert found["gate"] == {"KL": passed}
    assert found["lineage"]["round"] == [1, 2] and found["lineage"]["ancestors"] == [[0], [1, 0]]
    assert printed(policies("diff", "2", "3", "--json"))["common_ancestor"] == 1
    text = policies("diff", "1", "2").stdout
    assert text.startswith("nearest common ancestor: policy-v1; judgements that trained: 1 only v1's, 1 of both")
    assert "ppo.kl_coef" in text and "value 2.5, verdict passed" in text
    assert "the gate" not in (same := policies("diff", "1", "1").stdout) and "│" not in same, "nothing differs"
    assert refused(policies("diff", "1", "9")) == "ratchet: policy-v9 does not exist"


def test_curves_are_no_reading_and_lists_are_no_python() -> None:
    curve = (0.12345678901234567, None)
    pairs = {"same": (1, 1), "curve": (curve, None), "steps": (None, tuple(range(13))), "gain": (None, 0.5),
             "from": ((), (1, 0))}  # fmt: skip
    assert for_people(pairs) == {"gain": (None, 0.5), "from": ((), (1, 0))}
    assert (_shown(()), _shown((1, 0)), _shown(0.12345678)) == ("none", "1, 0", "0.1235")


def test_a_version_goes_out_and_comes_in_as_a_candidate(registry: PolicyRegistry, tmp_path: Path) -> None:
    file = tmp_path / "v2.tar"
    assert policies("export", "2", str(file)).stdout.startswith(f"policy-v2 is in {file}: ")
    assert refused(policies("export", "2", str(file))) == f"ratchet: {file} exists: nothing is overwritten"
    assert "is the base model" in refused(policies("export", "0", str(tmp_path / "v0.tar")))
    assert policies("import", str(file)).stdout.startswith(f"{file} is policy-v4, a candidate")
    assert "version 2" in policies("lineage", "4").stdout
    assert registry.states()[4] == "candidate"
    file.write_bytes(file.read_bytes()[:700])
    assert refused(policies("import", str(file))).startswith(f"ratchet: {file} was not imported: ")
    assert policies("import", str(tmp_path / "none.tar")).exit_code == 2


def test_what_an_imported_version_tells_is_text_and_no_markup(registry: PolicyRegistry, tmp_path: Path) -> None:
    directory = registry.directory(3)
    checks = gate(2.5, True)["checks"]
    metrics = {"sft": {"skipped": "[/b] none"}, "gate": {"checks": [{**checks[0], "name": "[/i] KL", "sign": "[/]"}]}}
    write_manifest(directory, registry.manifest(3).model_copy(update={"metrics": metrics}))
    assert policies("export", "3", str(tmp_path / "v3.tar")).exit_code == 0
    assert policies("import", str(tmp_path / "v3.tar")).exit_code == 0
    shown = policies("show", "4").stdout
    assert "[/b] none" in shown and "[/i] KL" in shown and "[/]" in shown
