"""The base model as policy version 0, from which everything else descends."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from feedback.policies.fixed_answers import write_answers
from feedback.policies.manifest import Manifest, describe_files, read_manifest
from feedback.policies.registry import BASE, PolicyRegistry
from feedback.policies.shelf import place
from feedback.reconcile import reconcile
from feedback.settings import Settings
from feedback.store import connect
from training.base_model import model_directory
from training.round.publish import ACTOR

log = logging.getLogger(__name__)


#: Fixed chats by whose log-probs every version is recognised in an engine: facts, lists, code, feelings, numbers.
GOLDEN_CHATS = (
    ("What is the capital of France?", "The capital of France is Paris, on the river Seine."),
    ("Say hello in Spanish.", "Hola! That is the usual greeting, at any time of day."),
    ("Name three fruits.", "Apples, pears and plums are three fruits that grow on trees."),
    ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it under the tap."),
    ("Write a line of Python that prints 7.", "```python\nprint(3 + 4)\n```"),
    ("I am sad today.", "I am sorry to hear that. Would you like to tell me what happened?"),
    ("Is 91 a prime number?", "No. 91 is 7 times 13, so it has divisors besides 1 and itself."),
    ("Give me a short rhyme.", "The moon is bright, the sea is deep; the day is done, so go to sleep."),
)


class WrongBaseModel(ValueError):
    """This data directory's policies descend from another base model."""


def register_base(settings: Settings) -> str:
    """Make sure that version 0 exists, is registered, and that some version serves; says what it found or did.

    Quick and torch-free when version 0 is there. Raises WrongBaseModel when it is another model.
    """
    registry = PolicyRegistry(connect(settings.resolved_redis_url()), settings.policies_dir)
    target = registry.directory(BASE)
    known = target.exists()
    if not known:
        place(target, BASE, 0, _describe(settings))
    manifest = read_manifest(target)
    if manifest.base_model != settings.base_model and manifest.model_path != str(base_directory(settings)):
        raise WrongBaseModel(
            f"{settings.home} holds policies of {manifest.base_model}, not of {settings.base_model}:"
            " use another RATCHET_HOME, or the old RATCHET_BASE_MODEL"
        )
    if not known and BASE not in registry.states():  # else reconcile says that it has come back
        registry.publish(BASE, actor=ACTOR, reason="a new data directory")
    for found in reconcile(registry):
        log.warning("%s", found)
    if registry.stable() is None:
        registry.point_stable(BASE, expected=None, actor=ACTOR, reason="the base model serves first")
    return f"{manifest.name} {'is known' if known else 'registered'}: {manifest.base_model}"


def base_directory(settings: Settings) -> Path:
    """Where the base model's files are once it is fetched."""
    local = Path(settings.base_model).expanduser()
    return local.absolute() if local.is_dir() else model_directory(settings.base_model, settings.home)


def _describe(settings: Settings) -> Callable[[Path, int], Manifest]:
    directory = base_directory(settings)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is missing: fetch the base model first")

    def build(target: Path, version: int) -> Manifest:
        from training.round.version import base_answers, describe_base

        dtype = settings.resolved_engine_dtype()
        golden, logprobs, weights = describe_base(directory, GOLDEN_CHATS, dtype)
        if (answers := base_answers(directory)) is not None:
            write_answers(target, answers)
        return Manifest(
            version=version,
            parent=None,
            kind="base",
            base_model=settings.base_model,
            dtype=dtype,
            model_path=str(directory),
            created=time.time(),
            files=describe_files(target),
            weights=weights,
            golden=golden,
            golden_logprobs=logprobs,
        )

    return build
