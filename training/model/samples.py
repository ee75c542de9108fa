"""Token sequences in and out of batches. Tokens come from the ledger as ids and are never tokenised a second time.

Letters: B batch, T tokens of prompt and completion, C completion tokens, N real completion tokens of a batch.
"""

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from training.model.attention import Blocks


@dataclass(frozen=True)
class Sample:
    """One completion of one prompt, as token ids. The completion ends with its stop token if it was finished."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.completion_ids:
            raise ValueError("a sample needs at least one prompt token and one completion token")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    def truncated(self, max_tokens: int) -> "Sample":
        """At most `max_tokens` in all: the oldest prompt tokens go first, then the end of the completion."""
        completion = self.completion_ids[: max_tokens - 1]
        return Sample(self.prompt_ids[-(max_tokens - len(completion)) :], completion)


def _require_weight(weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise ValueError(f"a weight is finite and not negative, not {weight}")


@dataclass(frozen=True)
class RankedSamples:
    """The completions of one prompt with their places: 0 is the best, equal places are ties.

    Those in the tier `unplaced` are worse than all others, and nothing is said among them.
    """

    samples: tuple[Sample, ...]
    tiers: tuple[int, ...]
    unplaced: int | None = None
    weight: float = 1.0  # of this judgement beside the others, 0 or more
    rater: str = ""  # pseudonym of who said it
    source: str = ""  # where it came from: live, operator or import

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.tiers) or len(self.samples) < 2:
            raise ValueError("a ranking places two or more completions, each once")
        if self.unplaced is not None and (max(self.tiers) > self.unplaced or min(self.tiers) == self.unplaced):
            raise ValueError("what is unplaced comes after what is placed, and something is placed")
        _require_weight(self.weight)
        if len({sample.prompt_ids for sample in self.samples}) > 1:
            raise ValueError("the completions of a ranking answer one prompt")

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.samples[0].prompt_ids

    @property
    def has_ties(self) -> bool:
        """Whether it says of any two that neither is better."""
        placed = [tier for tier in self.tiers if tier != self.unplaced]
        return len(set(placed)) < len(placed)


@dataclass(frozen=True)
class RatedSample:
    """A completion and its thumb: label 1 is up, 0 is down."""

    sample: Sample
    label: float
    weight: float = 1.0  # of this judgement beside the others, 0 or more
    rater: str = ""  # pseudonym of who said it
    source: str = ""  # where it came from: live, operator or import

    def __post_init__(self) -> None:
        if not 0 <= self.label <= 1:
            raise ValueError(f"a label lies between 0 and 1, not at {self.label}")
        _require_weight(self.weight)

    has_ties: ClassVar[bool] = False

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (self.sample,)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.sample.prompt_ids


Judgement = RankedSamples | RatedSample


@dataclass(frozen=True)
class Batch:
    """Samples padded on the right, or end to end in a row whose completions then count as one.

    Padding is known by the masks alone: the pad id may also be a real token.
    """

    input_ids: Tensor  # (B, T)
    attention_mask: Tensor | Blocks  # (B, T), 1 = real, or which token sees which
    lengths: Tensor  # (B,) real tokens of prompt and completion
    completion_ids: Tensor  # (B, C)
    completion_mask: Tensor  # (B, C), True = a real completion token
    positions: Tensor  # (B, C) where in T the state lies that predicts each completion token

    def predictors(self, states: Tensor) -> Tensor:
        """From states (B, T, D) those (N, D) that predict a real completion token."""
        rows = torch.arange(len(states), device=states.device).unsqueeze(1).expand_as(self.positions)
        return states[rows[self.completion_mask], self.positions[self.completion_mask]]

    def with_ends(self, ends: Tensor) -> "Batch":
        """One more position where `ends` (B, C + 1) says so, whose state has read the whole completion."""
        return replace(
            self,
            completion_ids=F.pad(self.completion_ids, (0, 1)),
            completion_mask=F.pad(self.completion_mask, (0, 1)) | ends,
            positions=torch.where(ends, self.lengths.unsqueeze(1) - 1, F.pad(self.positions, (0, 1))),
        )

    def spread(self, x: Tensor) -> Tensor:
        """Values (N,) of the real completion tokens as (B, C), 0 in the padding."""
        return torch.zeros_like(self.completion_mask, dtype=x.dtype).masked_scatter(self.completion_mask, x)


def _padded(rows: Sequence[Sequence[int]], pad: int, left: bool = False) -> Tensor:
    width = max(len(row) for row in rows)
    fill = [[pad] * (width - len(row)) for row in rows]
    return torch.tensor([[*f, *row] if left else [*row, *f] for row, f in zip(rows, fill, strict=True)])


def collate(samples: Sequence[Sample], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """Samples as one right-padded batch on `device`."""
    starts = torch.tensor([[len(s.prompt_ids) - 1] for s in samples])  # (B, 1)
    completion_mask = _padded([[1] * len(s.completion_ids) for s in samples], 0).bool()
    return Batch(
        input_ids=_padded([s.prompt_ids + s.completion_ids for s in samples], pad_id).to(device),
        attention_mask=_padded([[1] * len(s) for s in samples], 0).to(device),
        lengths=torch.tensor([len(s) for s in samples]).to(device),
        completion_ids=_padded([s.completion_ids for s in samples], pad_id).to(device),
        completion_mask=completion_mask.to(device),
        positions=(starts + torch.arange(completion_mask.shape[1])).masked_fill(~completion_mask, 0).to(device),
    )


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Prompts (B, T) padded on the left, for generation, and their attention mask (B, T)."""
    return _padded(prompts, pad_id, left=True), _padded([[1] * len(p) for p in prompts], 0, left=True)


def length_bucketed(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of `batch_size` (the last may be smaller), like lengths together: least padding."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` things in an epoch: a pure function of its arguments, so a resumed run repeats it."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def evenly_cut(order: Sequence[int], parts: int) -> list[Sequence[int]]:
    """`order` in so many pieces, whose lengths differ by one at most."""
    cuts = [len(order) * part // parts for part in range(parts + 1)]
    return [order[start:end] for start, end in pairwise(cuts)]


def endless(count: int, seed: int) -> Iterator[int]:
    """Indices below `count`, epoch after epoch, each epoch in its own order."""
    epoch = 0
    while True:
        yield from shuffled(count, seed, epoch)
        epoch += 1


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """All tokens that text must not turn into, special or not (Qwen's <think> is an added token, yet not special)."""
    return {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Text as ids in which no control token can occur; ValueError where the tokenizer would make one all the same."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    if set(ids) & set(_control_tokens(tokenizer).values()):
        raise ValueError("this text would become a control token")
    return ids


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool
) -> str:
    """The chat template's text. Raises ValueError where the template cannot say the messages."""
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except (TemplateError, TypeError) as error:  # such as: roles must alternate; or it counts what is not there
        raise ValueError(f"the chat template: {error}") from error
    return text


class _Marks:
    """What stands in the template for the strings that `which` finds: as long as they are, for templates count, too."""

    def __init__(self, which: re.Pattern[str]) -> None:
        self._which = which
        self._texts: list[str] = []

    def over(self, value: Any) -> Any:
        """A JSON value with marks; an empty string holds nothing."""
        if isinstance(value, Mapping):
            return {key: self.over(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.over(item) for item in value]
        if not isinstance(value, str) or not value or not self._which.search(value):
            return value
        self._texts.append(value)
        return f"\ue000{len(self._texts) - 1}".ljust(len(value) - 1, "\ue002") + "\ue001"

    def undone(self, text: str) -> str:
        return re.sub("\ue000(\\d+)\ue002*\ue001", lambda mark: self._texts[int(mark[1])], text)


def _names(value: Any) -> Iterator[str]:
    """The keys in a JSON value, which no mark can stand for: a template asks for them."""
    if isinstance(value, Mapping):
        yield from value
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool
) -> list[int]:
    """The chat template's ids, where what people wrote is always plain text. Raises ValueError where it cannot say it.

    The template is rendered around marks; only what stands outside them may hold control tokens. It may look at what
    people wrote, and trim it, so harmless texts stand for themselves: the result equals the tokenizer's own. Where that
    made other control tokens, out of pieces that met, they are marked as well.
    """
    control = _control_tokens(tokenizer)
    splitter = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
    if any(map(splitter.search, [*_names(messages), *(message["role"] for message in messages)])):
        raise ValueError("a role or the name of a field would become a control token")

    def rendered(marks: _Marks) -> str:
        marked = [{**marks.over(message), "role": message["role"]} for message in messages]
        return _rendered(tokenizer, marked, add_generation_prompt)

    some, all_texts = _Marks(re.compile(f"\ue000|{splitter.pattern}")), _Marks(re.compile(""))
    text, safe = rendered(some), rendered(all_texts)
    text, marks = (text, some) if splitter.findall(text) == splitter.findall(safe) else (safe, all_texts)
    ids: list[int] = []
    end = 0
    for match in [*splitter.finditer(text), None]:
        piece = marks.undone(text[end : match.start() if match else None])
        ids += _plain(tokenizer, piece) if piece else []
        if match:
            ids.append(control[match.group()])
            end = match.end()
    return ids


def encode_demonstration(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], answer: str
) -> Sample:
    """A person's answer to `messages` as a sample, which ends with the end-of-turn token like a finished completion.

    Raises ValueError as `encode_chat` does, and where the template puts no end behind an answer.
    """
    prompt = encode_chat(tokenizer, messages, add_generation_prompt=True)
    whole = encode_chat(tokenizer, [*messages, {"role": "assistant", "content": answer}], add_generation_prompt=False)
    eos = tokenizer.eos_token_id
    if whole[: len(prompt)] != prompt or eos not in whole[len(prompt) :]:
        raise ValueError("the chat template does not end an answer after its generation prompt with the end token")
    completion = whole[len(prompt) :]
    return Sample(tuple(prompt), tuple(completion[: completion.index(eos) + 1]))
