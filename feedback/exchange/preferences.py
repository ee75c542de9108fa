"""Formats of pairs, one line for each pair that a judgement orders: trl, hh, openai_dpo, arena.

All lines of a ranking stand together. Ties are left out, except in arena. Each `write_…` gives the lines of one
judgement; each `read_…` the judgements of lines that belong together, and raises ValueError with the reason.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations

from feedback.exchange.judged import (
    Answer,
    Judged,
    Line,
    Origin,
    answer_from,
    field,
    messages_from,
    model_of,
    named_model,
    ordered,
    preferred,
    prompt_of,
    text_field,
    told,
)
from feedback.judgements import Demonstration
from feedback.records import Completion, Message

Pair = tuple[tuple[Message, ...], Message, Message]

ARENA_WINNERS = {
    "model_a": ([0, 1], False), "model_b": ([1, 0], False), "tie": ([0, 0], False),
    "tie (bothbad)": ([0, 0], True), "both_bad": ([0, 0], True),
}  # fmt: skip
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_NAMES = {"user": "Human", "assistant": "Assistant"}


def write_trl(judged: Judged) -> Iterator[Line]:
    """Conversational preferences with an explicit prompt, as TRL's RewardTrainer and DPOTrainer take them.

    `ranking_id` is shared by all pairs of a ranking, and `weight` is 1 over their number. An edit is a pair too, of
    `kind` demonstration: what the person wrote over what was shown.
    """
    edit = judged.feedback.judgement
    if isinstance(edit, Demonstration) and edit.based_on_edit:
        for original in judged.completions:
            if original.text != edit.content:
                yield _trl(judged, original, [{"role": "assistant", "content": edit.content}], None, original, 1)
    pairs = judged.pairs
    for better, worse in pairs:
        yield _trl(judged, better, [better.answer.plain], better.policy_version, worse, len(pairs))


def _trl(
    judged: Judged, asked: Completion, chosen: list[Line], version: int | None, worse: Completion, pairs: int
) -> Line:
    return {
        "prompt": prompt_of(asked),
        "chosen": chosen,
        "rejected": [worse.answer.plain],
        "ranking_id": judged.feedback.id,
        "weight": 1 / pairs,
        "kind": judged.feedback.judgement.type,
        **told(judged),
        "chosen_policy_version": version,
        "rejected_policy_version": worse.policy_version,
    }


def read_trl(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    """Lines of one `ranking_id` become the ranking that has exactly these pairs, if there is one; else comparisons.

    The prompt may be implicit (`chosen` and `rejected` then hold whole dialogues), and all three may be plain text.
    """
    pairs = [trl_pair(row) for row in rows]
    if rows[0].get("kind") == "demonstration":
        return [_edit(pair, row, origin) for pair, row in zip(pairs, rows, strict=True)]
    ranking = _ranking(pairs, rows[0], origin) if len(rows) > 1 else None
    if ranking:
        return [ranking]
    return [
        preferred(messages, Answer(chosen), Answer(rejected), row, origin)
        for (messages, chosen, rejected), row in zip(pairs, rows, strict=True)
    ]


def trl_pair(row: Line) -> Pair:
    chosen, rejected = field(row, "chosen"), field(row, "rejected")
    if row.get("prompt") is not None:
        return messages_from(row["prompt"], "prompt"), answer_from(chosen, "chosen"), answer_from(rejected, "rejected")
    return _common_prompt(messages_from(chosen, "chosen"), messages_from(rejected, "rejected"))


def _common_prompt(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> Pair:
    if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
        raise ValueError("chosen and rejected must be one prompt and two answers")
    if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        raise ValueError("chosen and rejected must end with the assistant's turn")
    return chosen[:-1], chosen[-1], rejected[-1]


def _edit(pair: Pair, row: Line, origin: Origin) -> Judged:
    messages, chosen, original = pair
    return origin.judged(
        messages,
        [Answer(original)],
        lambda ids: Demonstration(completion_id=ids[0], content=chosen.content, based_on_edit=True),
        row,
    )


def _ranking(pairs: Sequence[Pair], row: Line, origin: Origin) -> Judged | None:
    """The ranking whose ordered pairs are these. Lines tell no ties, so several at the bottom count as left out."""
    if len({repr(messages) for messages, _, _ in pairs}) > 1:
        return None
    by_text = {answer.model_dump_json(): answer for _, *both in pairs for answer in both}
    losses = [(better.model_dump_json(), worse.model_dump_json()) for _, better, worse in pairs]
    tiers = {name: sum(worse == name for _, worse in losses) for name in by_text}
    implied = [(a, b) if tiers[a] < tiers[b] else (b, a) for a, b in combinations(by_text, 2) if tiers[a] != tiers[b]]
    if sorted(implied) != sorted(losses):
        return None
    names = sorted(by_text)  # not best first
    bottom = max(tiers.values())
    partial = sum(tier == bottom for tier in tiers.values()) > 1
    places = [tiers[name] for name in names]
    answers = [Answer(by_text[name]) for name in names]
    return origin.judged(pairs[0][0], answers, lambda ids: ordered(ids, places, partial=partial), row)


def group_of_trl(row: Line) -> str | None:
    """Lines with the same name that follow each other belong together."""
    value = row.get("ranking_id")
    return f"{row.get('kind')} {value}" if isinstance(value, str) else None


def write_openai_dpo(judged: Judged) -> Iterator[Line]:
    """OpenAI's (and Fireworks' and Together's) lines for DPO."""
    for better, worse in judged.pairs:
        yield {
            "input": {"messages": prompt_of(better)},
            "preferred_output": [better.answer.plain],
            "non_preferred_output": [worse.answer.plain],
        }


def read_openai_dpo(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    messages, better, worse = openai_dpo_pair(rows[0])
    return [preferred(messages, Answer(better), Answer(worse), rows[0], origin)]


def openai_dpo_pair(row: Line) -> Pair:
    messages = messages_from(field(field(row, "input"), "messages"), "input.messages")
    better, worse = (answer_from(field(row, name), name) for name in ("preferred_output", "non_preferred_output"))
    return messages, better, worse


def write_hh(judged: Judged) -> Iterator[Line]:
    """Anthropic's HH-RLHF texts. Left out is what they cannot say: other roles, tools, their marks inside a turn."""
    for better, worse in judged.pairs:
        dialogues = [(*completion.messages, completion.answer) for completion in (better, worse)]
        if all(_hh_can_say(turn) for dialogue in dialogues for turn in dialogue):
            chosen, rejected = map(_hh_text, dialogues)
            yield {"chosen": chosen, "rejected": rejected}


def _hh_can_say(turn: Message) -> bool:
    return turn.role in _HH_NAMES and not (turn.tool_calls or turn.name or _HH_TURN.search(turn.content))


def _hh_text(dialogue: Sequence[Message]) -> str:
    return "".join(f"\n\n{_HH_NAMES[turn.role]}: {turn.content}" for turn in dialogue)


def read_hh(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    messages, chosen, rejected = hh_pair(rows[0])
    return [preferred(messages, Answer(chosen), Answer(rejected), rows[0], origin)]


def hh_pair(row: Line) -> Pair:
    chosen, rejected = (_hh_turns(text_field(row, name), name) for name in ("chosen", "rejected"))
    return _common_prompt(chosen, rejected)


def _hh_turns(text: str, what: str) -> tuple[Message, ...]:
    before, *pieces = _HH_TURN.split(text)
    if before.strip() or not pieces:
        raise ValueError(f'{what} must begin with "\\n\\nHuman:"')
    roles = {name: role for role, name in _HH_NAMES.items()}
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return tuple(Message(role=roles[name], content=content.removeprefix(" ")) for name, content in turns)


def write_arena(judged: Judged) -> Iterator[Line]:
    """Chatbot Arena's battles: two answers side by side, ties too. The pairs of a ranking are as many battles."""
    winners = {"tie": "tie (bothbad)" if judged.none_acceptable else "tie", "a": "model_a", "b": "model_b"}
    for (a, i), (b, j) in combinations(judged.places, 2):
        if i == j == judged.unplaced:
            continue
        yield {
            "question_id": a.prompt_digest[:32],
            "model_a": model_of(a),
            "model_b": model_of(b),
            "winner": winners["tie" if i == j else "a" if i < j else "b"],
            "judge": judged.feedback.rater,
            "split": judged.feedback.split,
            "conversation_a": [*prompt_of(a), a.answer.plain],
            "conversation_b": [*prompt_of(b), b.answer.plain],
            "turn": sum(message.role == "user" for message in a.messages),
            "language": "unknown",
            "tstamp": judged.feedback.created,
        }


def read_arena(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    row = rows[0]
    winner = ARENA_WINNERS.get(text_field(row, "winner"))
    if winner is None:
        raise ValueError(f"winner must be one of {', '.join(ARENA_WINNERS)}")
    tiers, bad = winner
    messages, *turns = arena_pair(row)
    models = (row.get("model_a"), row.get("model_b"))
    answers = [Answer(turn, named_model(model)) for turn, model in zip(turns, models, strict=True)]
    judge = row.get("judge")
    rater = judge if isinstance(judge, str) else None
    return [origin.judged(messages, answers, lambda ids: ordered(ids, tiers, bad=bad), row, rater=rater)]


def arena_pair(row: Line) -> Pair:
    a, b = (messages_from(field(row, name), name) for name in ("conversation_a", "conversation_b"))
    return _common_prompt(a, b)
