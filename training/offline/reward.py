"""Reward models outside of rounds: trained on a file or on the ledger, and measured.

The same judgements by the same rules as a round's: who consented, what is held out, quarantine, weights.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis
from transformers import AutoTokenizer

from feedback.exchange.lines import digest_of
from feedback.people.raters import Raters
from feedback.policies.reward_fit import Fit, RatingFit
from feedback.records import digest
from feedback.settings import Settings
from feedback.store import Ledger
from training.checkpoints import atomic_directory
from training.config import RoundConfig, shaped_by
from training.lessons.answers import Answers, Encode, heard
from training.lessons.as_samples import ranked_samples, rated_samples, written_samples
from training.lessons.collect import MIN_RANKINGS, Provenance, TrainingData, divided
from training.lessons.judged import RankedAnswers, RatedAnswer, edited_answers, ranked_answers, rated_answers
from training.lessons.prompts import questions_of
from training.model.classifier import export_classifier, padding_id
from training.model.samples import RankedSamples, RatedSample
from training.model.scoring import Scorer
from training.model.trunk import Trunk
from training.offline.datafile import OnLines, read_file, unheard
from training.offline.reward_models import RewardModel, load_trunk
from training.offline.run_directory import REPORT, SPLIT, CannotTrain, Plan, Report, SplitFile, begun, clear, place
from training.optimizing.steps import OnProgress, silent
from training.reward.fit import measure, score
from training.reward.likelihoods import Labels, fitted_labels
from training.reward.rating_fit import measure_ratings
from training.reward.reward import RewardReport, train_reward_model
from training.round.processes import in_processes, process_count
from training.round.stages import TextEncoder, collect_from
from training.round.version import REWARD
from training.workspace import CHECKPOINTS

CLASSIFIER = "classifier"
CHUNK = 64


class Evidence(NamedTuple):
    """Judgements to measure by."""

    rankings: Sequence[RankedAnswers]
    ratings: Sequence[RatedAnswer] = ()


def of_file(
    path: Path,
    format: str,
    *,
    base: Path,
    config: RoundConfig,
    on_lines: OnLines = unheard,
    strict: bool = False,
) -> TrainingData:
    """What a file says, by side and with weights. Raises what `read_file` raises."""
    encode = TextEncoder(base).encode
    said = read_file(path, format, encode, on_lines=on_lines, strict=strict)
    origin = Provenance(f"sha256:{digest_of(path)}", "", 0, config.seed, config)
    data = divided(said.standing, said.known, origin=origin, questions=questions_of(said.known.values()), encode=encode)
    return data.model_copy(update={"unencodable": said.unencodable})


def of_ledger(settings: Settings, redis: Redis, *, base: Path, config: RoundConfig, watermark: str) -> TrainingData:
    """What a round would train on and measure by, had the ledger ended at `watermark`."""
    return collect_from(settings, redis, base, watermark=watermark, since=watermark, parent=0, config=config)


def evidence_of_file(
    path: Path, format: str, *, base: Path, on_lines: OnLines = unheard, strict: bool = False
) -> Evidence:
    """All in a file that compares answers (edits do) or rates them, whoever said it. Raises what `read_file` raises."""
    encode = TextEncoder(base).encode
    said = read_file(path, format, encode, on_lines=on_lines, strict=strict)
    rankings = [ranked for item in said.standing for ranked in ranked_answers(item, said.known)]
    rankings += [edited for item in said.standing if (edited := edited_answers(item, said.known, encode))]
    return Evidence(rankings, [rated for item in said.standing for rated in rated_answers(item, said.known)])


def held_out_of_ledger(settings: Settings, redis: Redis, model: RewardModel, base: Path) -> Evidence:
    """The rankings by which a round would measure now, and the ratings of the same prompts.

    Raises ValueError when the ledger is of another base model.
    """
    model.require_base(base)
    config = RoundConfig.from_dict(shaped_by("reward", {"reward": model.config.to_dict()}))
    watermark = Ledger(redis).watermark()
    data = of_ledger(settings, redis, base=base, config=config, watermark=watermark)
    return Evidence(data.held_out_rankings, _held_out_ratings(redis, data, TextEncoder(base).encode))


def _held_out_ratings(redis: Redis, data: TrainingData, encode: Encode) -> list[RatedAnswer]:
    """On the held-out prompts of `data`, by the rules that it was collected by. A round has no use for them."""
    ledger, quarantined, held_out = Ledger(redis), Raters(redis).quarantined(), set(data.held_out)
    said = heard(ledger, data.watermark, quarantined)
    usable = Answers(ledger, encode).usable({id for item in said for id in item.judgement.targets})
    known = {
        id: each
        for id, each in usable.items()
        if each.rater not in quarantined and digest(each.prompt_token_ids) in held_out
    }
    return [rated for item in said for rated in rated_answers(item, known)]


def train_on(
    data: TrainingData,
    *,
    source: str,
    base: Path,
    out: Path,
    classifier: bool = False,
    processes: int | None = None,
    progress: OnProgress = silent,
) -> Report:
    """Fit a reward model to `data`, by the config and seed in it, and leave it in `out`; goes on where it was stopped.

    `out` then holds the adapter with its head as a round saves it, the report, and by wish a sequence classifier.
    `processes`: see `process_count`. Raises CannotTrain or UnsupportedModel before anything is trained.
    """
    _require_enough(data)
    if classifier:
        padding_id(AutoTokenizer.from_pretrained(base))
    config = RoundConfig.from_dict(data.config).reward
    plan = Plan(
        base=str(base), config=_told(data), seed=data.seed, source=source, watermark=data.watermark, data=_digest(data)
    )
    with begun(out, plan):
        trunk = load_trunk(base, config, data.seed)
        fitted = in_processes(
            process_count(processes, config.batch_rankings),
            partial(load_trunk, base, config),
            train_reward_model,
            replace(config, held_out_fraction=0.0),  # that is done already
            trunk,
            ranked_samples(data.rankings),
            rated_samples(data.ratings),
            checkpoint_dir=out / CHECKPOINTS,
            demonstrations=written_samples(data.demonstrations, base)[0],
            progress=progress,
            seed=data.seed,
        )
        labels = fitted_labels(config.ties, fitted.tie_width)
        held_out = ranked_samples(data.held_out_rankings)
        fit = _measured(Scorer(trunk, [], config), held_out, labels, progress)
        report = _report(data, plan, fitted, fit)
        _leave(out, trunk, data, report, base if classifier else None)
    return report


class Evaluation(NamedTuple):
    """How a model's scores fit what was said of prompts that it has not learned from; None where nothing tells."""

    held_out: Fit | None
    ratings: RatingFit | None  # None, too, where the model learned from no rating: its scores know no approval then
    left_out: int  # judgements on prompts that it has learned from


def evaluate_on(model: RewardModel, evidence: Evidence, *, progress: OnProgress = silent) -> Evaluation:
    """Measure a reward model by judgements on prompts that are new to it."""
    learned = model.trained({name for kind in evidence for each in kind for name in _names(each)})
    ranked = ranked_samples([each for each in evidence.rankings if learned.isdisjoint(_names(each))])
    rated = rated_samples([each for each in evidence.ratings if learned.isdisjoint(_names(each))])
    left_out = sum(map(len, evidence)) - len(ranked) - len(rated)
    if not ranked and not rated:
        return Evaluation(None, None, left_out)
    scorer = model.scorer()
    fit = _measured(scorer, ranked, model.labels, progress)
    return Evaluation(fit, _rated(scorer, rated, model.threshold, progress), left_out)


def _names(judged: RankedAnswers | RatedAnswer) -> set[str]:
    """By which a model may know that it has learned from the prompt: an old one has no questions."""
    return {digest(judged.prompt_ids), judged.question}


def _measured(
    scorer: Scorer, rankings: Sequence[RankedSamples], labels: Labels | None, progress: OnProgress
) -> Fit | None:
    scores: list[list[float]] = []
    for start in range(0, len(rankings), CHUNK):
        scores += score(scorer, rankings[start : start + CHUNK])
        progress("measuring", len(scores), len(rankings), {})
    return measure(rankings, scores, labels)


def _rated(
    scorer: Scorer, ratings: Sequence[RatedSample], threshold: float | None, progress: OnProgress
) -> RatingFit | None:
    if threshold is None:
        return None
    scores: list[float] = []
    for start in range(0, len(ratings), CHUNK):
        scores += scorer.log_odds([rating.sample for rating in ratings[start : start + CHUNK]])
        progress("measuring", len(scores), len(ratings), {})
    return measure_ratings(ratings, scores, threshold)


def _require_enough(data: TrainingData) -> None:
    count = len(data.rankings) + len(data.ratings)
    if count < MIN_RANKINGS:
        held_out = len(data.held_out_rankings)
        raise CannotTrain(
            f"too little to learn from: {count} judgements may train, {held_out} are held out; "
            f"{MIN_RANKINGS} must be able to train"
        )


def _leave(out: Path, trunk: Trunk, data: TrainingData, report: Report, base: Path | None) -> None:
    """The report comes last: what is there without one is made again."""
    clear(out, REWARD, CLASSIFIER)
    with atomic_directory(out / REWARD) as directory:
        trunk.save_adapter("reward", directory)
    if base is not None:
        export_classifier(trunk, out / CLASSIFIER, base_directory=base)
    split = SplitFile(
        trained=data.trained, held_out=data.held_out,
        trained_questions=data.trained_questions, held_out_questions=data.held_out_questions,
    )  # fmt: skip
    place(out / SPLIT, split)
    place(out / REPORT, report)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


def _report(data: TrainingData, plan: Plan, fitted: RewardReport, fit: Fit | None) -> Report:
    return Report(
        base=plan.base,
        config=plan.config,
        seed=plan.seed,
        source=plan.source,
        watermark=plan.watermark,
        data=plan.data,
        split=digest([data.trained, data.held_out]),
        counts={
            **{name: data.counts[name] for name in ("rankings", "ratings", "held_out_rankings", "demonstrations")},
            "unencodable": data.unencodable,
            "quarantined": data.quarantined,
            "prompts": len(data.trained),
            "held_out_prompts": len(data.held_out),
        },
        fitted={name: value for name, value in vars(fitted).items() if name != "held_out"},
        held_out=fit,
    )


def _told(data: TrainingData) -> dict[str, Any]:
    return {name: data.config[name] for name in ("reward", "weights")}


def _digest(data: TrainingData) -> str:
    said = [data.rankings, data.held_out_rankings, data.ratings, data.demonstrations]
    whole = hashlib.sha256()
    for record in (record for records in said for record in records):
        whole.update(record.model_dump_json().encode() + b"\n")
    return whole.hexdigest()
