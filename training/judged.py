"""What people said of answers, as records that a round trains on."""

from feedback.records import Message, Record
from training.answers import Ids


class RankedAnswers(Record):
    """Completions of one prompt with their places: 0 is the best, equal places are ties.

    Those in the tier `unplaced` are worse than all others, and nothing is said among them.
    """

    feedback_id: str
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    tiers: tuple[int, ...]
    unplaced: int | None = None
    weight: float = 1.0  # of this judgement beside the others, 0 or more
    rater: str = ""  # pseudonym of who said it
    source: str = ""  # where it came from: live, operator or import
    kind: str = ""  # ranking, comparison or edit


class RatedAnswer(Record):
    """A completion and its share of approval, 0 to 1."""

    feedback_id: str
    prompt_ids: Ids
    completion_ids: Ids
    label: float
    weight: float = 1.0
    rater: str = ""
    source: str = ""
    kind: str = ""  # rating, or the ranking or comparison in which none was good enough


class WrittenAnswer(Record):
    """What a person would have answered; text, because no engine ever tokenised it."""

    feedback_id: str
    messages: tuple[Message, ...]
    content: str
