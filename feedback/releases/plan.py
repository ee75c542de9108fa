"""How a candidate is let in: the steps it takes, and the rules by which it is judged. Fixed when its release begins."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from feedback.records import Record
from feedback.releases.decisions import Rules
from feedback.releases.votes import Caps

PLAN_FILE = "release.json"
#: Stable keeps at least the rest: what is compared needs both sides, and somebody must catch a fall.
MOST_PERCENT = 90.0
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class BadPlan(ValueError):
    """The plan cannot be used; the message names the field."""


def seconds_of(value: Any) -> Any:
    """90, "90s", "30m", "2h" or "1d" in seconds; anything else is left for pydantic to refuse."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value) if isinstance(value, str) else None
    return float(found[1]) * UNITS[found[2]] if found else value


# What is infinite, or as good as, cannot be read back or reckoned with, and then nobody could end its release any more.
Seconds = Annotated[float, Field(ge=0, le=1e9), BeforeValidator(seconds_of)]
Ratio = Annotated[float, Field(gt=1, le=1e6)]
Risk = Annotated[float, Field(ge=1e-9, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**6)]


class SetWeight(Record):
    """From here on this many percent of the conversations are the candidate's."""

    set_weight: Annotated[float, Field(gt=0, le=MOST_PERCENT)]


class Pause(Record):
    """Wait so long, or without a time until an operator goes on."""

    pause: Seconds | None


class Analysis(Record):
    """Wait until the votes say that the candidate is better."""

    analysis: Annotated[Literal[True], BeforeValidator(lambda value: True if value == {} else value)]


Step = SetWeight | Pause | Analysis
KINDS = [kind.__name__ for kind in (SetWeight, Pause, Analysis)]
Electorate = Literal["auto", "evaluation", "all"]


class Limits(Record):
    """How much worse than stable a candidate may be: ratios, and the mean score, which may be so much lower.

    The score's unit is the reward model's own, log-odds of being preferred for the first of an installation.
    """

    errors: Ratio = 1.5
    refusals: Ratio = 1.5
    first_token: Ratio = 1.5
    length: Ratio = 2.0
    score: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    alpha: Risk = 0.01


class Plan(Record):
    """`interleave` is the share of chats with several answers that are answered by both, blind, while it is released.

    `raters`: whose votes decide; "auto" is "evaluation" where `least_evaluators` of them have voted before, else "all".
    `patience` is how long no engine may hold the candidate, at first and in a row later. `deadline` ends without a
    decision.
    """

    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=32)] = (
        SetWeight(set_weight=10.0),
        Analysis(analysis=True),
    )
    interleave: Annotated[float, Field(ge=0, le=1)] = 0.5
    raters: Electorate = "auto"
    least_evaluators: Count = 10
    alpha: Risk = 0.05
    max_votes: Count = 4000
    votes_a_day: Count = 50
    plot: Annotated[float, Field(ge=0, lt=1)] = 0.05
    limits: Limits = Limits()
    patience: Seconds = 900.0
    deadline: Seconds | None = None

    @property
    def rules(self) -> Rules:
        return Rules(alpha=self.alpha, max_votes=self.max_votes, caps=Caps(per_day=self.votes_a_day), plot=self.plot)


def plan_of(given: Any) -> Plan:
    """What somebody wrote as a plan; {} is the default one. Raises BadPlan."""
    try:
        return Plan.model_validate(given)
    except ValidationError as error:
        raise BadPlan(_complaint(error)) from error


def load_plan(home: Path) -> Plan:
    """The installation's plan, `home/release.json`, or the default one. Raises BadPlan."""
    path = home / PLAN_FILE
    try:
        return Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Plan()
    except OSError as error:
        raise BadPlan(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise BadPlan(f"{path}: {_complaint(error)}") from error


def _complaint(error: ValidationError) -> str:
    """The first thing wrong with what was written, rather than that it is not something else."""
    found = error.errors()
    wrong = next((each for each in found if each["type"] not in ("missing", "extra_forbidden")), found[0])
    # A kind of step is told by its fields: its class means nothing to who wrote the plan.
    place = ".".join(str(part) for part in wrong["loc"] if part not in KINDS) or "plan"
    return f"{place}: {'there is no such field' if wrong['type'] == 'extra_forbidden' else wrong['msg']}"
