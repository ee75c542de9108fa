"""Two ways to go on token after token, and no way to tell them apart by what comes out."""

from collections.abc import Callable

import pytest
import torch

from training.model import decoding
from training.model.decoding import Fixed, Growing
from training.model.trunk import Trunk
from training.ppo.rollout import sample_completions

PROMPTS = [(5, 6, 7), (10,), (12, 2, 13, 14, 15)]


def own_logits(trunk: Trunk, ids: tuple[int, ...]) -> torch.Tensor:
    """Without padding or cache: the slow way."""
    trunk._activate("policy")
    return trunk.model(input_ids=torch.tensor([ids])).logits[0, -1]


@pytest.mark.parametrize("way", [Growing, lambda *about: Fixed(*about, room=3)])
@torch.no_grad()
def test_logits_are_those_of_whole_sequences(way: Callable[..., Growing | Fixed], perturbed: Trunk) -> None:
    writer, texts = way(perturbed, PROMPTS, "policy"), list(PROMPTS)
    for tokens in ((20, 21, 22), (23, 24, 25), (26, 27, 28)):
        expected = torch.stack([own_logits(perturbed, text) for text in texts])
        torch.testing.assert_close(writer.logits(), expected, rtol=1e-5, atol=1e-5)
        writer.go_on(torch.tensor(tokens), [True] * 3)
        texts = [(*text, token) for text, token in zip(texts, tokens, strict=True)]
    torch.testing.assert_close(
        writer.logits(), torch.stack([own_logits(perturbed, t) for t in texts]), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_a_growing_batch_drops_the_rows_that_ended(perturbed: Trunk) -> None:
    writer = Growing(perturbed, PROMPTS, "policy")
    writer.logits()
    writer.go_on(torch.tensor([20, 21, 22]), [True, False, True])
    assert writer.rows == [0, 2]
    expected = torch.stack([own_logits(perturbed, (*PROMPTS[row], token)) for row, token in ((0, 20), (2, 22))])
    torch.testing.assert_close(writer.logits(), expected, rtol=1e-5, atol=1e-5)
    writer.go_on(torch.tensor([30, 31]), [True, True])
    expected = torch.stack(
        [own_logits(perturbed, (*PROMPTS[row], *tokens)) for row, tokens in ((0, (20, 30)), (2, (22, 31)))]
    )
    torch.testing.assert_close(writer.logits(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("room", [1, 3, 32])
def test_both_write_the_same_completions_to_their_ends(
    perturbed: Trunk, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the growing one has to make room between tokens, and between rows that end."""
    monkeypatch.setattr(decoding, "ROOM", room)
    how = {"role": "policy", "eos_ids": frozenset(range(40, 128)), "max_new_tokens": 12, "seed": 3}
    growing = sample_completions(perturbed, PROMPTS * 4, **how)
    monkeypatch.setattr("training.ppo.rollout.decoder", Fixed)
    fixed = sample_completions(perturbed, PROMPTS * 4, **how)
    assert fixed == growing
    assert len(set(map(len, growing))) > 1, "all end at once: nothing was dropped"


def test_where_attention_sees_only_so_far_back_the_places_are_not_fixed(
    perturbed: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trunk, "device", torch.device("cuda"))
    monkeypatch.setattr(decoding, "Fixed", lambda *about: "fixed")
    monkeypatch.setattr(decoding, "Growing", lambda *about: "growing")
    assert decoding.decoder(perturbed, PROMPTS, "policy", 8) == "fixed"
    perturbed.model.config.sliding_window = 12
    assert decoding.decoder(perturbed, PROMPTS, "policy", 8) == "growing"
    assert decoding.decoder(perturbed, PROMPTS, "policy", 7) == "fixed"


@pytest.mark.parametrize(
    "unlike", [{"_attn_implementation": "eager"}, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}]
)
def test_kernels_are_not_recorded_that_would_be_others_later(
    unlike: dict[str, object], perturbed: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trunk, "device", torch.device("cuda"))
    monkeypatch.setattr(decoding, "Growing", lambda *about: "growing")
    for name, value in unlike.items():
        monkeypatch.setattr(perturbed.model.config, name, value)
    assert decoding.decoder(perturbed, PROMPTS, "policy", 8) == "growing"


def test_long_prompts_are_written_to_in_smaller_batches() -> None:
    gpu = torch.device("cuda")
    assert decoding.at_once(gpu, 100) == 512 and decoding.at_once(gpu, 1024) == 64 and decoding.at_once(gpu, 10**6) == 1
    assert decoding.at_once(torch.device("cpu"), 100) == 64
