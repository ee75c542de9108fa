"""Which policies learned from a judgement, as the manifests tell, on a real Valkey."""

from pathlib import Path

from feedback.policies.learned import Learned
from feedback.policies.registry import PolicyRegistry
from feedback.store import connect
from tests.feedback.test_erasure import publish


def test_each_judgement_names_the_policies_that_were_trained_on_it(valkey_url: str, tmp_path: Path) -> None:
    registry = PolicyRegistry(connect(valkey_url), tmp_path)
    publish(registry, 0, None)
    publish(registry, 2, 0, feedback_ids=["fb_1", "fb_2"])
    learned = Learned(registry)
    assert learned.by("fb_1") == []
    learned.refresh()
    assert (learned.by("fb_1"), learned.by("fb_2"), learned.by("fb_3")) == (["policy-v2"], ["policy-v2"], [])
    publish(registry, 10, 2, feedback_ids=["fb_2", "fb_3"])
    learned.refresh()
    learned.refresh()
    assert (learned.by("fb_1"), learned.by("fb_2"), learned.by("fb_3")) == (
        ["policy-v2"], ["policy-v2", "policy-v10"], ["policy-v10"],
    )  # fmt: skip


def test_what_cannot_be_read_is_read_once_it_can(valkey_url: str, tmp_path: Path) -> None:
    registry = PolicyRegistry(connect(valkey_url), tmp_path)
    publish(registry, 0, None, feedback_ids=["fb_1"])
    file = registry.directory(0) / "manifest.json"
    whole = file.read_text()
    file.write_text("broken")
    learned = Learned(registry)
    learned.refresh()
    assert learned.by("fb_1") == []
    file.write_text(whole)
    learned.refresh()
    assert learned.by("fb_1") == ["policy-v0"]
