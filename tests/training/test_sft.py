from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.config import SFTConfig
from training.data import Sample, collate
from training.models import Trunk
from training.sft import train_sft

DEMONSTRATIONS = [Sample((5 + i, 6), (40, 41, 42 + i % 3, 2)) for i in range(10)]
CONFIG = SFTConfig(learning_rate=1e-2, epochs=10, batch_size=4, checkpoint_every=2)


class Interrupted(Exception):
    pass


def test_a_demonstration_it_never_saw_becomes_far_likelier(trunk: Trunk, tmp_path: Path) -> None:
    """The other roles stay the base. A random model this narrow can give no token more than about 0.66."""
    unseen = collate([Sample((20, 6), (40, 41, 42, 2))], 0)
    hidden = trunk.lower(unseen.input_ids, unseen.attention_mask)
    train_sft(CONFIG, trunk, DEMONSTRATIONS, checkpoint_dir=tmp_path)
    with torch.no_grad():
        policy, reward, base = (trunk.log_probs(hidden, unseen, role)[0].mean() for role in ("policy", "reward", None))
    assert policy > base + 2  # nats per token
    assert reward == base


def test_prompts_are_not_trained_on(trunk: Trunk, tmp_path: Path) -> None:
    """The reported loss is that of the completion tokens alone."""
    batch = collate(DEMONSTRATIONS, 0)
    with torch.no_grad():
        logits = trunk.model(input_ids=batch.input_ids).logits.log_softmax(-1)
    want = -sum(logits[i, 1 + j, t] for i, s in enumerate(DEMONSTRATIONS) for j, t in enumerate(s.completion_ids)) / 40
    report = train_sft(SFTConfig(epochs=1, batch_size=10), trunk, DEMONSTRATIONS, checkpoint_dir=tmp_path)
    assert report.first_loss == pytest.approx(float(want), abs=1e-4)


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    tiny_trunk: Callable[..., Trunk], tmp_path: Path, stop_at: int
) -> None:
    config = SFTConfig(learning_rate=1e-3, epochs=2, batch_size=4, checkpoint_every=2)

    def interrupt(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if step == stop_at:
            raise Interrupted

    straight, resumed = tiny_trunk(), tiny_trunk()
    want = train_sft(config, straight, DEMONSTRATIONS, checkpoint_dir=tmp_path / "a")
    with pytest.raises(Interrupted):
        train_sft(config, tiny_trunk(), DEMONSTRATIONS, checkpoint_dir=tmp_path / "b", progress=interrupt)
    assert train_sft(config, resumed, DEMONSTRATIONS, checkpoint_dir=tmp_path / "b") == want
    assert all(torch.equal(t, straight.state("policy")[n]) for n, t in resumed.state("policy").items())


def test_nothing_to_learn_from_is_refused(trunk: Trunk, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="demonstrations"):
        train_sft(CONFIG, trunk, [], checkpoint_dir=tmp_path)
