"""What people said, as the models see it: token ids alone."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from training.lessons.judged import RankedAnswers, RatedAnswer, WrittenAnswer
from training.model.samples import RankedSamples, RatedSample, Sample, encode_demonstration


def ranked_samples(rankings: Sequence[RankedAnswers]) -> list[RankedSamples]:
    """The same for the model's eyes."""
    return [
        RankedSamples(
            tuple(Sample(r.prompt_ids, c) for c in r.completions), r.tiers, r.unplaced, r.weight, r.rater, r.source
        )
        for r in rankings
    ]


def rated_samples(ratings: Sequence[RatedAnswer]) -> list[RatedSample]:
    """The same for the model's eyes."""
    return [RatedSample(Sample(r.prompt_ids, r.completion_ids), r.label, r.weight, r.rater, r.source) for r in ratings]


def written_samples(demonstrations: Sequence[WrittenAnswer], base_directory: Path) -> tuple[list[Sample], int]:
    """Demonstrations as samples, and how many could not be, such as text that would become a control token."""
    tokenizer = AutoTokenizer.from_pretrained(base_directory)
    samples: list[Sample] = []
    for written in demonstrations:
        messages = [message.plain for message in written.messages]
        try:
            samples.append(encode_demonstration(tokenizer, messages, written.content))
        except ValueError:
            continue
    return samples, len(demonstrations) - len(samples)
