"""Versions from one installation to another; and files that somebody has made to do harm."""

import hashlib
import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback.policies.bundles import BadBundle, export_version, import_version
from feedback.policies.fixed_answers import Answer, FixedAnswers, read_answers, write_answers
from feedback.policies.lineage import lineage_of
from feedback.policies.manifest import (
    BrokenPolicy,
    Manifest,
    describe_files,
    read_manifest,
    verify_files,
    write_manifest,
)
from feedback.policies.registry import PolicyRegistry
from feedback.policies.reward_fit import Fit
from feedback.reconcile import reconcile
from feedback.store import connect
from tests.killing import Killed, killing

LINEAGE = {"round": 4, "raters": ["ann", "bob"], "feedback_ids": ["fb_1"], "live": [], "watermark": "7-0"}
SPAN = {"mean": 0.5, "low": 0.25, "high": 0.75}
HELD_OUT = {
    "prompts": 3, "rankings": 6, "pairs": 36, "ties": 0, "confidence": 0.95, "accuracy": SPAN, "log_loss": SPAN,
    "log_loss_with_ties": None, "brier": SPAN, "ece": SPAN, "kendall_tau": None, "length_slope": None,
    "agreement": None, "agreement_pairs": 0, "bins": [{"predicted": 0.5, "observed": 0.5, "pairs": 36}],
    "raters": [{"name": "zoe", "pairs": 36, "accuracy": 0.5}],
    "lengths": [{"name": "-13 to +0", "pairs": 36, "accuracy": 0.5}],
}  # fmt: skip
COLLECTED = {"quarantined": 0, "count": 2, "capped": 1, "largest_share": {"ann": 0.75, "bob": 0.25},
             "least_reliable": {"bob": 0.5}}  # fmt: skip
CHECK = {"name": "KL to the reference", "value": 2.5, "sign": "<=", "threshold": 20.0, "passed": True}
#: As training/round/version.py writes them.
METRICS: dict[str, Any] = {
    "collect": {"rankings": 33, "watermark": "7-0", "raters": COLLECTED},
    "sft": {"skipped": "2 new demonstrations, 16 are needed"},
    "reward": {"loss": 1.0, "held_out": HELD_OUT, "change": None, "no_change": "there is none to go on from"},
    "ppo": {"iterations": 6, "last": {"objective/kl": 2.5}},
    "gate": {"gate/kl": 2.5, "checks": [CHECK]},
}
ANSWERS = FixedAnswers(max_tokens=96, answers=(Answer(prompt="Why?", text="Because."),))
REFUSALS = (BadBundle, BrokenPolicy)


def install(registry: PolicyRegistry, version: int, **changes: Any) -> None:
    """Version 0 is the base; others are trained."""
    directory = registry.directory(version)
    (directory / "adapter").mkdir(parents=True)
    if version:
        (directory / "adapter" / "adapter_config.json").write_text("{}")
        (directory / "merged").mkdir()
        (directory / "merged" / "config.json").write_text('{"model_type": "llama"}')
        (directory / "merged" / "model.safetensors").write_bytes(b"weights" * 200)
        write_answers(directory, ANSWERS)
    known = {"base_model": "m", "dtype": "float32", "golden": [[1, 2]], "golden_logprobs": [[-1.0]], "created": 5.0}
    base = {"kind": "base", "parent": None, "model_path": "/models/m", "weights": {"norm": "aa"}}
    trained = {"kind": "trained", "parent": 1, "model_path": "merged", "adapter_path": "adapter", "lineage": LINEAGE,
               "weights": {"norm": "bb"}, "metrics": METRICS}  # fmt: skip
    fields = {**known, **(trained if version else base), "files": describe_files(directory), **changes}
    write_manifest(directory, Manifest.model_validate({"version": version, **fields}))
    registry.publish(version, actor="test", reason="made")


@pytest.fixture
def here(valkey_url: str, tmp_path: Path) -> PolicyRegistry:
    """Has exported 3 to bundle.tar."""
    registry = PolicyRegistry(connect(valkey_url), tmp_path / "here")
    install(registry, 0)
    install(registry, 3)
    export_version(registry, 3, tmp_path / "bundle.tar")
    return registry


@pytest.fixture
def there(here: PolicyRegistry, tmp_path: Path) -> PolicyRegistry:
    """Another installation, whose newest version is 6."""
    return installation(here, tmp_path / "there")


def installation(other: PolicyRegistry, directory: Path) -> PolicyRegistry:
    other.redis.flushall()
    registry = PolicyRegistry(other.redis, directory)
    install(registry, 0)
    install(registry, 6)
    return registry


def names(registry: PolicyRegistry) -> list[str]:
    return sorted(path.name for path in registry.policies_dir.iterdir())


def test_a_version_travels_whole_and_gets_a_new_number(there: PolicyRegistry, tmp_path: Path) -> None:
    version = import_version(there, tmp_path / "bundle.tar", actor="op", reason="from the lab")
    assert (version, there.states()[7]) == (7, "candidate")
    manifest = there.manifest(7)
    verify_files(there.directory(7), manifest)
    sent = read_manifest(tmp_path / "here" / "000003")
    changed = {"version": 7, "parent": 0, "lineage": manifest.lineage, "metrics": manifest.metrics}
    assert manifest == sent.model_copy(update=changed)
    assert read_answers(there.directory(7)) == {"Why?": Answer(prompt="Why?", text="Because.")}
    line = there.audit()[-1]
    assert (line.actor, line.reason) == ("op", "from the lab: policy-v3 of bundle.tar")
    found = lineage_of(there, 7)
    assert (found.ancestors, found.round, found.feedback_ids, found.watermark) == ((0,), None, (), None)
    assert found.imported is not None and found.imported["version"] == 3
    assert found.imported["lineage"] == {"round": 4, "raters": 2, "feedback_ids": 1, "live": 0, "watermark": "7-0"}
    assert import_version(there, tmp_path / "bundle.tar", actor="op", reason="again") == 8
    assert reconcile(there) == []


def test_a_bundle_names_nobody_and_is_never_written_over(here: PolicyRegistry, tmp_path: Path) -> None:
    written = (tmp_path / "bundle.tar").read_bytes()
    assert not any(word in written for word in (b"ann", b"bob", b"zoe", b"fb_1"))
    metrics = json.loads(entries(tmp_path / "bundle.tar")[1][1])["metrics"]
    shares = {"quarantined": 0, "count": 2, "capped": 1, "largest_share": 2, "least_reliable": 1}
    assert metrics["collect"] == {**METRICS["collect"], "raters": shares}
    assert metrics["reward"] == {**METRICS["reward"], "held_out": {**HELD_OUT, "raters": []}}
    assert Fit.model_validate(metrics["reward"]["held_out"]).raters == ()
    assert [metrics[stage] for stage in ("sft", "ppo", "gate")] == [METRICS[s] for s in ("sft", "ppo", "gate")]
    with pytest.raises(FileExistsError):
        export_version(here, 3, tmp_path / "bundle.tar")
    assert (tmp_path / "bundle.tar").read_bytes() == written
    with pytest.raises(BadBundle, match="base model"):
        export_version(here, 0, tmp_path / "base.tar")
    (here.directory(3) / "merged" / "config.json").write_text("{}")
    with pytest.raises(BrokenPolicy):
        export_version(here, 3, tmp_path / "other.tar")
    assert sorted(path.name for path in tmp_path.glob("*.tar*")) == ["bundle.tar"]


@pytest.mark.parametrize("changes", [{"weights": {"norm": "cc"}}, {"golden": [[1, 3]]}, {"dtype": "bfloat16"}])
def test_another_base_model_is_refused(there: PolicyRegistry, tmp_path: Path, changes: dict[str, Any]) -> None:
    base = there.directory(0)
    write_manifest(base, Manifest.model_validate({**read_manifest(base).model_dump(), **changes}))
    with pytest.raises(BadBundle, match="is not the base model"):
        import_version(there, tmp_path / "bundle.tar", actor="op", reason="r")


Entry = tuple[tarfile.TarInfo, bytes]


def entries(bundle: Path) -> list[Entry]:
    with tarfile.open(bundle) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]  # all are files


def write(bundle: Path, contents: list[Entry], mode: Any = "w") -> None:
    with tarfile.open(bundle, mode) as tar:
        for info, content in contents:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def link(kind: bytes, name: str, target: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def with_manifest(contents: list[Entry], change: Callable[[dict[str, Any]], Any]) -> list[Entry]:
    manifest = json.loads(contents[1][1])
    change(manifest)
    return [contents[0], (contents[1][0], json.dumps(manifest).encode()), *contents[2:]]


def renamed(contents: list[Entry], name: str) -> list[Entry]:
    """The last file under another name, of which the manifest approves."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop(contents[-1][0].name)

    return [*with_manifest(contents, change)[:-1], (tarfile.TarInfo(name), contents[-1][1])]


def running_code(contents: list[Entry]) -> list[Entry]:
    code = b'{"auto_map": {"AutoModel": "x.Model"}}'

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["merged/config.json"] = {"size": len(code), "sha256": hashlib.sha256(code).hexdigest()}

    return [
        (info, code if info.name == "merged/config.json" else each) for info, each in with_manifest(contents, change)
    ]


HARM: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "a path upwards": lambda c: renamed(c, "../../escaped.json"),
    "an absolute path": lambda c: renamed(c, "/tmp/escaped.json"),
    "a pickle": lambda c: renamed(c, "merged/weights.bin"),
    "code": lambda c: renamed(c, "merged/modeling.py"),
    "the manifest again": lambda c: renamed(c, "manifest.json"),
    "a file that is not named": lambda c: [*c, (tarfile.TarInfo("more.json"), b"{}")],
    "a file twice": lambda c: [*c, c[-1]],
    "a file missing": lambda c: c[:-1],
    "a symlink": lambda c: [*c[:-1], link(tarfile.SYMTYPE, c[-1][0].name, "/etc/passwd")],
    "a hard link": lambda c: [*c[:-1], link(tarfile.LNKTYPE, c[-1][0].name, c[2][0].name)],
    "a directory link first": lambda c: [*c[:2], link(tarfile.SYMTYPE, "merged", "/tmp"), *c[2:]],
    "a device": lambda c: [*c[:-1], link(tarfile.CHRTYPE, c[-1][0].name, "")],
    "other bytes": lambda c: [*c[:-1], (c[-1][0], c[-1][1][:-1] + b"x")],
    "a shorter file": lambda c: [*c[:-1], (c[-1][0], c[-1][1][:-1])],
    "a model elsewhere": lambda c: with_manifest(c, lambda m: m.update(model_path="/etc")),
    "an adapter elsewhere": lambda c: with_manifest(c, lambda m: m.update(adapter_path="../000000")),
    "a base": lambda c: with_manifest(c, lambda m: m.update(kind="base")),
    "too large a size": lambda c: with_manifest(c, lambda m: m["files"]["merged/config.json"].update(size=10**18)),
    "no manifest": lambda c: [c[0], *c[2:]],
    "a manifest of another form": lambda c: with_manifest(c, lambda m: m.update(more=1)),
    "a model that runs code": running_code,
    "nothing": lambda c: [],
}


@pytest.mark.parametrize("harm", HARM)
def test_what_would_do_harm_is_refused_and_leaves_nothing(there: PolicyRegistry, tmp_path: Path, harm: str) -> None:
    bundle, outside = tmp_path / "bundle.tar", Path("/tmp/escaped.json")
    write(bundle, HARM[harm](entries(bundle)))
    before = there.audit(), names(there), sorted(tmp_path.iterdir())
    with pytest.raises(REFUSALS):
        import_version(there, bundle, actor="op", reason="r")
    assert (there.audit(), names(there), sorted(tmp_path.iterdir())) == before
    assert not outside.exists()


def telling(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(changes)


def measuring(stage: str, **figures: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["metrics"][stage].update(figures)


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


NONSENSE: dict[str, Callable[[dict[str, Any]], None]] = {
    "no adapter": telling(adapter_path=None),
    "an empty adapter path": telling(adapter_path=""),
    "an adapter without files": telling(adapter_path="reward"),
    "the start of a name": telling(adapter_path="adapt"),
    "the directory itself": telling(adapter_path="."),
    "a model without files": telling(model_path="other"),
    "a file as model": telling(model_path="merged/config.json"),
    "made in no year": telling(created=1e300),
    "made before there were computers": telling(created=-1.0),
    "made never": telling(created=math.nan),
    "a stage that is a number": telling(metrics={"gate": 7}),
    "a stage that is a list": telling(metrics={"reward": []}),
    "checks that are a number": measuring("gate", checks=7),
    "a check that is a text": measuring("gate", checks=["KL"]),
    "a check without a verdict": measuring("gate", checks=[{"name": "KL", "value": 1.0, "threshold": 2.0}]),
    "a check of a text": measuring("gate", checks=[{**CHECK, "value": "1"}]),
    "a reason that is a list": measuring("reward", no_change=[1]),
    "NaN": measuring("gate", **{"gate/kl": math.nan}),
    "infinity far inside": measuring("ppo", curves={"kl": [1.0, [-math.inf]]}),
    "an integer that is no float": measuring("gate", **{"gate/kl": 10**400}),
    "golden numbers that no difference exceeds": telling(golden_logprobs=[[math.nan]]),
    "NaN among the settings": telling(config={"ppo": {"gamma": math.nan}}),
    "infinity in its origin": telling(lineage={"feedback": {"rankings": math.inf}}),
    "deeper than is read again": telling(lineage=nested(190)),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_what_no_command_could_show_is_refused_in_one_line(
    there: PolicyRegistry, tmp_path: Path, nonsense: str
) -> None:
    bundle = tmp_path / "bundle.tar"
    write(bundle, with_manifest(entries(bundle), NONSENSE[nonsense]))
    before = there.audit(), names(there)
    with pytest.raises(BadBundle) as refusal:
        import_version(there, bundle, actor="op", reason="r")
    assert "\n" not in str(refusal.value)
    assert (there.audit(), names(there)) == before


@pytest.mark.parametrize("change", [telling(metrics={}), measuring("gate", checks=[]), telling(lineage=nested(40))])
def test_what_says_less_is_taken(
    there: PolicyRegistry, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    bundle = tmp_path / "bundle.tar"
    write(bundle, with_manifest(entries(bundle), change))
    assert import_version(there, bundle, actor="op", reason="r") == 7


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_a_compressed_file_is_not_unpacked(there: PolicyRegistry, tmp_path: Path, mode: str) -> None:
    bundle = tmp_path / "bundle.tar"
    write(bundle, entries(bundle), mode)
    with pytest.raises(BadBundle):
        import_version(there, bundle, actor="op", reason="r")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_refused_or_the_damage_did_not_matter(
    there: PolicyRegistry, tmp_path: Path, where: float, byte: int, cut: bool
) -> None:
    whole = (tmp_path / "bundle.tar").read_bytes()
    at = int(where * len(whole))
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(whole[:at] if cut else whole[:at] + bytes([byte]) + whole[at + 1 :])
    before = names(there)
    try:
        version = import_version(there, damaged, actor="op", reason="r")
    except REFUSALS:
        assert names(there) == before
        return
    verify_files(there.directory(version), there.manifest(version))
    assert there.manifest(version).files == read_manifest(tmp_path / "here" / "000003").files


def test_an_import_killed_anywhere_leaves_a_whole_version_or_none(here: PolicyRegistry, tmp_path: Path) -> None:
    kill_at, completed = 0, False
    while not completed:
        kill_at += 1
        for after in (False, True):
            there = installation(here, tmp_path / f"{kill_at}-{after}")
            try:
                with killing(kill_at, after):
                    import_version(there, tmp_path / "bundle.tar", actor="op", reason="r")
                completed = True
            except Killed:
                pass
            for found in reconcile(there):
                assert (found.version, found.state) == (7, "candidate")
            for version in there.on_disk():
                verify_files(there.directory(version), there.manifest(version))
            assert import_version(there, tmp_path / "bundle.tar", actor="op", reason="again") in (7, 8)
    assert kill_at > 10, "the kill points were not reached"
