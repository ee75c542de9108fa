"""The formats by name: how each is written, read and recognised, and where it has its answers."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from feedback.exchange import answers, datasets, oasst, preferences
from feedback.exchange.judged import Judged, Line, Origin, Reply

Read = Callable[[Sequence[Line], Origin], list[Judged]]


class Format(NamedTuple):
    """Judgements to lines, and lines to judgements.

    `fields` tell a line of the format; `replies` are the answers of one, as they stand in it; `group` names the lines
    that are read as one, None for a line that stands alone; `tree` names the judgements that are written as one.
    """

    read: Read
    fields: frozenset[str]
    replies: Callable[[Line], list[Reply]]
    write: Callable[[Sequence[Judged]], Iterator[Line]] | None = None
    group: Callable[[Line], str | None] = lambda line: None
    tree: Callable[[Judged], str] | None = None


def _each(write: Callable[[Judged], Iterator[Line]]) -> Callable[[Sequence[Judged]], Iterator[Line]]:
    return lambda group: (line for judged in group for line in write(judged))


def _both(pair: Callable[[Line], preferences.Pair]) -> Callable[[Line], list[Reply]]:
    def replies(line: Line) -> list[Reply]:
        messages, first, second = pair(line)
        return [Reply(messages, first), Reply(messages, second)]

    return replies


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: The first whose fields a line has is its format. hh has TRL's fields as text, see `recognised`.
FORMATS: dict[str, Format] = {
    "ratchet": Format(
        answers.read_ratchet, _fields("feedback completions"), answers.ratchet_replies, _each(answers.write_ratchet)
    ),
    "oasst": Format(
        oasst.read_oasst,
        _fields("message_tree_id prompt"),
        oasst.oasst_replies,
        oasst.write_oasst,
        tree=oasst.tree_of,
    ),
    "openai_dpo": Format(
        preferences.read_openai_dpo,
        _fields("input preferred_output non_preferred_output"),
        _both(preferences.openai_dpo_pair),
        _each(preferences.write_openai_dpo),
    ),
    "arena": Format(
        preferences.read_arena,
        _fields("winner conversation_a conversation_b"),
        _both(preferences.arena_pair),
        _each(preferences.write_arena),
    ),
    "hh": Format(
        preferences.read_hh, _fields("chosen rejected"), _both(preferences.hh_pair), _each(preferences.write_hh)
    ),
    "trl": Format(
        preferences.read_trl,
        _fields("chosen rejected"),
        _both(preferences.trl_pair),
        _each(preferences.write_trl),
        group=preferences.group_of_trl,
    ),
    "kto": Format(answers.read_kto, _fields("prompt completion label"), answers.plain_reply, _each(answers.write_kto)),
    "pairwise": Format(datasets.read_pairwise, _fields("messages a b label"), datasets.pairwise_replies),
    "kwise": Format(datasets.read_kwise, _fields("messages responses ranks"), datasets.kwise_replies),
    "thumbs": Format(datasets.read_thumbs, _fields("messages response up down"), answers.plain_reply),
    "demonstrations": Format(
        datasets.read_demonstrations, _fields("messages demonstration"), datasets.demonstration_reply
    ),
    "sft": Format(answers.read_sft, _fields("messages"), answers.sft_reply, _each(answers.write_sft)),
}
EXPORTED = tuple(sorted(name for name, format in FORMATS.items() if format.write))


class UnknownFormat(ValueError):
    """The message names the formats that there are."""

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__(f"format must be one of {', '.join(sorted(known))}")


def recognised(line: Line) -> str:
    """The name of a line's format. Raises UnknownFormat."""
    for name, format in FORMATS.items():
        if format.fields <= line.keys() and (name != "hh" or _is_hh(line)):
            return name
    raise UnknownFormat(tuple(FORMATS))


def replies_of(line: Line) -> list[Reply]:
    """The answers of a line of any format, or of a `plain_reply`, as they stand in it. Raises what a Read raises."""
    if line.get("completion") is not None or line.get("response") is not None:
        return answers.plain_reply(line)
    try:
        format = recognised(line)
    except UnknownFormat:
        raise ValueError("there is no completion or response, nor what a format has instead") from None
    return FORMATS[format].replies(line)


def _is_hh(line: Line) -> bool:
    return "prompt" not in line and isinstance(line["chosen"], str) and line["chosen"].lstrip().startswith("Human:")
