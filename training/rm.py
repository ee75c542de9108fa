"""`python -m training.rm train|eval|score`: reward models outside of rounds. What `ratchet rm` starts.

Progress and what is wrong with lines go to stderr; stdout holds a JSON object, or the scored lines.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from feedback.exchange.lines import MAX_LINE, encode, read_lines
from feedback.exchange.reading import Rejected
from feedback.manifest import BrokenPolicy
from feedback.registry import UnknownPolicy
from feedback.settings import Settings
from feedback.store import Ledger, connect
from training.base_model import BaseModelError, check_model_files
from training.config import RoundConfig
from training.register import base_directory
from training.stages import StageFailed, die_with_parent, load_config

STOPPED = 130
PLAIN_LINE_EVERY_S = 20.0
REJECTED_SHOWN = 20
LEDGER = "ledger"
SHAPE = ("lora_rank", "lora_alpha", "lora_layers")

Faults = (ValueError, OSError, RedisError, BaseModelError, StageFailed, BrokenPolicy, UnknownPolicy)


def train(arguments: argparse.Namespace) -> int:
    """Fit a reward model and leave it in a directory; the same again goes on where it was stopped."""
    from training import offline
    from training.run_directory import Plan

    said = _Said(arguments)
    plan = Plan.kept(arguments.out)
    config = configured(said.overrides(), vars(arguments))
    base = said.base()
    line = ProgressLine()
    try:
        if arguments.file is not None:
            source = str(arguments.file.absolute())
            reading = Reading(arguments.file, line)
            data = offline.of_file(
                arguments.file, arguments.format, base=base, config=config, on_lines=reading, strict=arguments.strict
            )
            reading.sum_up()
        else:
            redis = said.redis()
            watermark = plan.watermark if plan is not None else Ledger(redis).watermark()
            source, line.note = LEDGER, "collecting"
            data = offline.of_ledger(said.settings, redis, base=base, config=config, watermark=watermark)
        report = offline.train_on(
            data, source=source, base=base, out=arguments.out, classifier=arguments.classifier, progress=line
        )
    except KeyboardInterrupt:
        line.end()
        print(f"stopped{line.where}; run the same command again to go on", file=sys.stderr)
        return STOPPED
    finally:
        line.end()
    print(json.dumps({"name": str(arguments.out), **report.model_dump(mode="json")}))
    return 0




def configured(overrides: Mapping[str, Any], given: Mapping[str, Any]) -> RoundConfig:
    """The round's config with what was given on the command line; of its stages the reward model alone matters."""
    reward = dict(overrides.get("reward", {}))
    named = {"epochs": "epochs", "learning_rate": "learning_rate", "held_out": "held_out_fraction"}
    reward |= {field: given[option] for option, field in named.items() if given[option] is not None}
    shape = {name: reward[name] for name in SHAPE if name in reward}
    stages = {stage: {**overrides.get(stage, {}), **shape} for stage in ("sft", "ppo")}
    seed = {} if given["seed"] is None else {"seed": given["seed"]}
    try:
        return RoundConfig.from_dict({**overrides, **stages, "reward": reward, **seed})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"config: {problems}") from error
