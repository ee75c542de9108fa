"""A judgement with the answers that it is about, and how lines of other formats become one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple

from feedback.judgements import IMPORTED_ID, Comparison, Feedback, Judgement, Ranking
from feedback.records import Completion, Message, digest

Line = dict[str, Any]
Split = Literal["train", "eval"]
NO_MODEL = "imported"
ROLES = ("system", "developer", "user", "assistant", "tool")


class Judged(NamedTuple):
    """A judgement and those of its targets that may be shown, in the order of the targets; `installation` is the one
    whose policies the versions of these are."""

    feedback: Feedback
    completions: tuple[Completion, ...]
    installation: str | None = None

    @property
    def places(self) -> list[tuple[Completion, int]]:
        """The answers of a ranking or a comparison with their tiers, 0 = best; nothing for other judgements."""
        judgement = self.feedback.judgement
        if not isinstance(judgement, Ranking | Comparison):
            return []
        tiers = dict(zip(judgement.targets, judgement.tiers, strict=True))
        return [(completion, tiers[completion.id]) for completion in self.completions]

    @property
    def unplaced(self) -> int | None:
        """The tier of what a partial ranking left out: worse than all others, and equal to nothing."""
        judgement = self.feedback.judgement
        return judgement.unplaced if isinstance(judgement, Ranking) else None

    @property
    def pairs(self) -> list[tuple[Completion, Completion]]:
        """(better, worse) of each pair that the judgement orders; of two equal answers none can be better."""
        both = combinations(self.places, 2)
        return [(a, b) if i < j else (b, a) for (a, i), (b, j) in both if i != j and a.answer != b.answer]

    @property
    def none_acceptable(self) -> bool:
        judgement = self.feedback.judgement
        both_bad = isinstance(judgement, Comparison) and judgement.winner == "both_bad"
        return both_bad or (isinstance(judgement, Ranking) and judgement.none_acceptable)


class Answer(NamedTuple):
    """What a line gives as an answer; `model` is who wrote it, if the line says so."""

    message: Message
    model: str | None = None


class Reply(NamedTuple):
    """What a line has as an answer, and to what; `completion` where the line keeps the whole record of it."""

    messages: Sequence[Message]
    answer: Message
    completion: Completion | None = None


@dataclass(frozen=True)
class Origin:
    """Where imported lines come from, and what their records have in common.

    `name` is the rater of lines that name none. `pseudonym` makes the rater of a name within a split, `assign` the
    split of a line that does not tell it, from the rater that it names or else from its prompt's digest. `created` is
    the time of the import, `installation` who imports. Ids are digests of contents, so the same line becomes the same
    records.
    """

    name: str
    pseudonym: Callable[[str, Split], str]
    assign: Callable[[str], Split]
    split: Split | None
    created: float
    installation: str | None = None

    def judged(
        self,
        messages: Sequence[Message],
        answers: Sequence[Answer],
        say: Callable[[tuple[str, ...]], Judgement],
        row: Line,
        *,
        rater: str | None = None,
        voice: str = "",
    ) -> Judged:
        """A judgement over answers to one prompt; `say` makes it from their ids. `voice` tells unnamed raters apart.

        Raises ValueError when a record refuses what the line says.
        """
        if not messages:
            raise ValueError("there is no prompt")
        rater = rater or _text_or_none(row.get("rater"))
        split = self.split_of(row, rater or digest([message.plain for message in messages]))
        person = self.pseudonym(f"{self.name}|{rater or voice}", split)
        completions = tuple(
            self._completion(tuple(messages), answer, person, occurrence)
            for answer, occurrence in zip(answers, _occurrences(answers), strict=True)
        )
        judgement = say(tuple(completion.id for completion in completions))
        return Judged(self.feedback(judgement, person, split), completions)

    def split_of(self, row: Line, key: str) -> Split:
        """The split asked for, or the line's own, or that which `key` hashes to."""
        own = row.get("split")
        if own is not None and own not in ("train", "eval"):
            raise ValueError("split must be train or eval")
        return self.split or own or self.assign(key)

    def feedback(self, judgement: Judgement, rater: str, split: Split) -> Feedback:
        id = IMPORTED_ID + digest([rater, judgement.model_dump(mode="json")])[:32]
        return Feedback(id=id, judgement=judgement, rater=rater, split=split, created=self.created)

    def _completion(self, messages: tuple[Message, ...], answer: Answer, rater: str, occurrence: int) -> Completion:
        prompt = digest([message.plain for message in messages])
        response = "import-" + digest([self.name, prompt, answer.message.plain, answer.model, occurrence])[:32]
        return Completion(
            id=f"{response}:0", response_id=response, choice=0, conversation_id=f"import:{self.name}:{prompt[:32]}",
            rater=rater, messages=messages, text=answer.message.content, tool_calls=answer.message.tool_calls or (),
            prompt_token_ids=(), completion_token_ids=(), logprobs=(), finish_reason="stop", policy_version=None,
            sampling={"model": answer.model} if answer.model else {}, created=self.created,
        )  # fmt: skip


def _occurrences(answers: Sequence[Answer]) -> Iterator[int]:
    """How many equal answers came before each: an answer may be given twice, and each time is another completion."""
    return (list(answers[:index]).count(answer) for index, answer in enumerate(answers))


def ordered(ids: Sequence[str], tiers: Sequence[int], *, partial: bool = False, bad: bool = False) -> Judgement:
    """The judgement that puts `ids` into `tiers`: a comparison of two, else a ranking.

    With `partial` the worst tier was left out by the rater; with `bad` no answer was acceptable. Raises ValueError.
    """
    if len(ids) == 2 and (not bad or tiers[0] == tiers[1]):
        tied = "both_bad" if bad else "tie"
        winner = tied if tiers[0] == tiers[1] else "left" if tiers[0] < tiers[1] else "right"
        return Comparison.model_validate({"left": ids[0], "right": ids[1], "winner": winner})
    groups = [[id for id, tier in zip(ids, tiers, strict=True) if tier == place] for place in sorted(set(tiers))]
    placed = groups[:-1] if partial else groups
    return Ranking.model_validate({"candidates": ids, "ranking": placed, "partial": partial, "none_acceptable": bad})


def preferred(messages: Sequence[Message], better: Answer, worse: Answer, row: Line, origin: Origin) -> Judged:
    """One answer over another. Which stood left is drawn by digest: such lines always name the better one first."""
    if better.message == worse.message:
        raise ValueError("both answers are the same")
    swapped = int(digest([m.plain for m in (*messages, better.message, worse.message)])[:8], 16) % 2 == 1
    answers, tiers = ([worse, better], [1, 0]) if swapped else ([better, worse], [0, 1])
    return origin.judged(messages, answers, lambda ids: ordered(ids, tiers), row)


def prompt_of(completion: Completion) -> list[Line]:
    return [message.plain for message in completion.messages]


def model_of(completion: Completion) -> str:
    """Who wrote an answer: a policy, the model that an imported line named, or nobody known."""
    if completion.policy_version is not None:
        return f"policy-v{completion.policy_version}"
    return str(completion.sampling.get("model", NO_MODEL))


def named_model(value: Any) -> str | None:
    return None if value == NO_MODEL else _text_or_none(value)


def told(judged: Judged) -> Line:
    """What the lines of most formats say besides: who judged, and on which side of the split."""
    return {"rater": judged.feedback.rater, "split": judged.feedback.split}


def field(row: Line, name: str) -> Any:
    """Raises ValueError where a line lacks it."""
    if not isinstance(row, dict) or row.get(name) is None:
        raise ValueError(f"{name} is missing")
    return row[name]


def text_field(row: Line, name: str) -> str:
    value = field(row, name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text")
    return value


def messages_from(value: Any, what: str = "messages") -> tuple[Message, ...]:
    """Turns as OpenAI writes them, or a plain text as one turn of the user. Raises ValueError."""
    if isinstance(value, str):
        return (Message(role="user", content=value),)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{what} must be a list of messages")
    return tuple(_message(raw, what) for raw in value)


def answer_from(value: Any, what: str) -> Message:
    """One turn of the assistant, alone or in a list of one, or a plain text. Raises ValueError."""
    if isinstance(value, str):
        return Message(role="assistant", content=value)
    turns = messages_from([value] if isinstance(value, dict) else value, what)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise ValueError(f"{what} must be one message of the assistant")
    return turns[0]


def _message(raw: Any, what: str) -> Message:
    if not isinstance(raw, dict) or raw.get("role") not in ROLES:
        raise ValueError(f"{what}: each must be a message with a role out of {', '.join(ROLES)}")
    content = raw.get("content")
    if isinstance(content, list):
        texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        content = "".join(texts) if len(texts) == len(content) else content
    if content is None and raw.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise ValueError(f"{what}: a message must have text as content")
    extra = {name: raw[name] for name in ("name", "tool_calls", "tool_call_id") if raw.get(name)}
    return Message.model_validate({"role": raw["role"], "content": content, **extra})


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
