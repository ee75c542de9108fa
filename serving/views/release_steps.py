"""The steps of a release as operators write and read them: `5%,30m,25%,pause,analysis`."""

import re
from collections.abc import Sequence
from decimal import Decimal

from feedback.releases.plan import UNITS, Analysis, BadPlan, Pause, SetWeight, Step, plan_of, seconds_of

NAMES = {"d": "day", "h": "hour", "m": "minute", "s": "second"}
LANGUAGE = "5% is a weight, 30m a pause (s, m, h, d), pause waits for an operator, analysis for the votes"


def steps_of(text: str) -> tuple[Step, ...]:
    """`5%` sets the candidate's weight, `30m` waits so long, `pause` for an operator, `analysis` for the votes.

    Raises BadPlan naming the word that is none of these.
    """
    return plan_of({"steps": [_step(word.strip().lower()) for word in text.split(",")]}).steps


def in_short(steps: Sequence[Step]) -> str:
    """What `steps_of` reads."""
    return ",".join(_word(step) for step in steps)


def in_words(step: Step) -> str:
    match step:
        case SetWeight(set_weight=percent):
            return f"{percent:g}% of conversations"
        case Pause(pause=None):
            return "wait for an operator"
        case Pause(pause=seconds) if seconds is not None:
            return f"wait {duration(seconds)}"
    return "wait for the votes"


def duration(seconds: float) -> str:
    """In the largest unit that it is a whole number of."""
    unit = _unit(seconds)
    count = seconds / UNITS[unit]
    return f"{count:g} {NAMES[unit]}{'' if count == 1 else 's'}"


def _step(word: str) -> dict[str, object]:
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)%", word):
        return {"set_weight": float(found[1])}
    if word in ("pause", "analysis"):
        return {"pause": None} if word == "pause" else {"analysis": True}
    if isinstance(seconds_of(word), float):
        return {"pause": word}
    raise BadPlan(f"steps: {word!r} is no step; {LANGUAGE}")


def _word(step: Step) -> str:
    match step:
        case SetWeight(set_weight=percent):
            return f"{_plain(percent)}%"
        case Pause(pause=seconds) if seconds is not None:
            unit = _unit(seconds)
            return f"{_plain(seconds / UNITS[unit])}{unit}"
    return "analysis" if isinstance(step, Analysis) else "pause"


def _unit(seconds: float) -> str:
    """The largest one that it is a whole number of."""
    return next((unit for unit in NAMES if seconds >= UNITS[unit] and seconds % UNITS[unit] == 0), "s")


def _plain(value: float) -> str:
    """All digits of it, never an exponent."""
    return format(Decimal(repr(value)), "f").removesuffix(".0")
