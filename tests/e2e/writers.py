"""Which version wrote an answer: the one whose own log-probs, by transformers, are nearest to the served ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from feedback.records import Completion

AT_ONCE = 16
# What rounding in the engine may add up to over few tokens, in nats. Over the two dozen of a usual answer another
# version is off by more than ten times as much.
ROUNDING = 0.5


def misnamed(models: Mapping[int, Path], answers: Sequence[Completion]) -> list[str]:
    """The answers that another version than the one they name has written; one model at a time is in memory.

    Of an answer under which the version changed, the tokens from there on must not be by the one that it names.
    """
    off = {version: _deviations(directory, answers) for version, directory in models.items()}
    return [answer.id for at, answer in enumerate(answers) if _is_misnamed(answer, {v: d[at] for v, d in off.items()})]


def _is_misnamed(answer: Completion, off: Mapping[int, Tensor]) -> bool:
    named = answer.policy_version
    assert named is not None
    before, after = slice(answer.version_changed_at), slice(answer.version_changed_at, None)
    wrong = _lead(named, off, before) < -ROUNDING
    return wrong or (answer.version_changed_at is not None and _lead(named, off, after) > ROUNDING)


def _lead(version: int, off: Mapping[int, Tensor], tokens: slice) -> float:
    """By how much the log-probs of `version` are nearer to the served ones than those of all others."""
    total = {number: float(each[tokens].sum()) for number, each in off.items()}
    return min(total[number] for number in total if number != version) - total[version]


def _deviations(directory: Path, answers: Sequence[Completion]) -> list[Tensor]:
    """How far each token's log-prob was, as it was served, from that of the model in `directory`."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    own = own_log_probs(model, [(answer.prompt_token_ids, answer.completion_token_ids) for answer in answers])
    return [(log_probs - torch.tensor(answer.logprobs)).abs() for log_probs, answer in zip(own, answers, strict=True)]


def own_log_probs(model: Any, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Tensor]:
    """The log-prob of each token of the completions, under `model`, for (prompt, completion) each.

    A prompt is read once for all of its completions, and of these several are read at once.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for at, (prompt, _) in enumerate(texts):
        by_prompt.setdefault(tuple(prompt), []).append(at)
    own: dict[int, Tensor] = {}
    for prompt, places in by_prompt.items():
        for few in (places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE)):
            own |= zip(few, _after_prompt(model, prompt, [texts[at][1] for at in few]), strict=True)
    return [own[at] for at in range(len(texts))]


@torch.no_grad()
def _after_prompt(model: Any, prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> list[Tensor]:
    """Padded on the right, where no real token sees it."""
    read = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
    read.past_key_values.batch_repeat_interleave(len(completions))
    ids = pad_sequence([torch.tensor(completion) for completion in completions], batch_first=True)  # (B, C)
    following = model(ids, past_key_values=read.past_key_values).logits[:, :-1]
    logits = torch.cat([read.logits.expand(len(ids), -1, -1), following], dim=1)  # (B, C, V)
    log_probs = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return [row[: len(completion)] for row, completion in zip(log_probs, completions, strict=True)]
