"""What SFT outside of rounds learns from, of a file or the ledger, and what it is measured by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from feedback.exchange.lines import digest_of
from feedback.settings import Settings
from training.config import RoundConfig
from training.lessons.as_samples import written_samples
from training.lessons.judged import WrittenAnswer, written_answer
from training.model.samples import Sample
from training.offline.datafile import OnLines, read_file, unheard
from training.offline.reward import of_ledger
from training.round.stages import TextEncoder


class Demonstrations(NamedTuple):
    """What SFT learns from, and where it came from."""

    samples: Sequence[Sample]
    watermark: str
    counts: Mapping[str, int]
    held_out: Sequence[Sample] = ()  # these only measure


def demonstrations_of_file(
    path: Path, format: str, *, base: Path, on_lines: OnLines = unheard, strict: bool = False
) -> Demonstrations:
    """All in a file: what may train, and to measure by what only evaluates. Raises what `read_file` raises."""
    said = read_file(path, format, TextEncoder(base).encode, on_lines=on_lines, strict=strict)
    written = [(item.split, each) for item in said.standing if (each := written_answer(item, said.known)) is not None]
    training, measuring = ([each for side, each in written if side == wanted] for wanted in ("train", "eval"))
    return _demonstrations(training, measuring, base, f"sha256:{digest_of(path)}", said.unencodable, said.rejected)


def demonstrations_of_ledger(
    settings: Settings, redis: Redis, *, base: Path, config: RoundConfig, watermark: str
) -> Demonstrations:
    """What a round would fine-tune on and measure by, had the ledger ended at `watermark`."""
    data = of_ledger(settings, redis, base=base, config=config, watermark=watermark)
    measuring = data.held_out_demonstrations[: config.gate.demonstrations]
    return _demonstrations(data.demonstrations, measuring, base, watermark)


def _demonstrations(
    training: Sequence[WrittenAnswer],
    measuring: Sequence[WrittenAnswer],
    base: Path,
    watermark: str,
    lost: int = 0,
    rejected: int = 0,
) -> Demonstrations:
    """Held out is what is to measure, save on prompts that train."""
    (samples, unusable), (others, too) = (written_samples(written, base) for written in (training, measuring))
    learned = {sample.prompt_ids for sample in samples}
    held_out = [sample for sample in others if sample.prompt_ids not in learned]
    counts = {
        "demonstrations": len(samples),
        "held_out_demonstrations": len(held_out),
        "unencodable": lost + unusable + too,
        "rejected": rejected,
    }
    return Demonstrations(samples, watermark, counts, held_out)
