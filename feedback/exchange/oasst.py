"""Open Assistant's message trees: a prompt with its replies, rated and ranked, one tree a line.

A tree holds all that was said about dialogues with one first turn. Beside the schema of Open Assistant a line has
`system` (messages before the first turn), and a ranking has `tiers` and `partial`, since ours may tie and leave out.
Demonstrations and comments are not expressed.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from feedback.exchange.datasets import rated
from feedback.exchange.judged import (
    Answer,
    Judged,
    Line,
    Origin,
    Reply,
    field,
    messages_from,
    model_of,
    named_model,
    ordered,
    text_field,
)
from feedback.judgements import Flag, Judgement, Rating, rates
from feedback.records import Completion, Message, digest

_SYSTEM = ("system", "developer")
_TO_OASST = {"user": "prompter"}
_FROM_OASST = {"prompter": "user"}


def root_of(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """(what stands before the first turn, the turns)."""
    first = next((at for at, message in enumerate(messages) if message.role not in _SYSTEM), len(messages) - 1)
    return list(messages[:first]), list(messages[first:])


def tree_of(judged: Judged) -> str:
    """Names the tree that a judgement belongs to."""
    system, turns = root_of(judged.completions[0].messages)
    return digest([message.plain for message in (*system, turns[0])])[:32]


class _Tree:
    """Nodes by their place. Equal turns at one place are one node, but each completion has a node of its own."""

    def __init__(self, id: str, root: Sequence[Message]) -> None:
        system, (first, *_) = root_of(root)
        self.id = id
        self.system = [message.plain for message in system]
        self.root = _node(id, None, first)
        self._free: set[str] = set()
        self._tiers: dict[str, list[int]] = defaultdict(list)

    def prompt(self, messages: Sequence[Message]) -> Line:
        """The node of a prompt's last turn; turns on the way are added."""
        node = self.root
        _, (_, *later) = root_of(messages)
        for turn in later:
            node = self._same(node, turn) or self._add(node, digest([node["message_id"], turn.plain])[:32], turn, True)
        return node

    def reply(self, completion: Completion) -> Line:
        """The node of a completion."""
        parent = self.prompt(completion.messages)
        node: Line | None
        for node in parent["replies"]:
            if node["message_id"] == completion.id:
                return node
        node = self._same(parent, completion.answer)
        if node is not None and node["message_id"] in self._free:
            self._free.discard(node["message_id"])
            node["message_id"] = completion.id
            for child in node["replies"]:
                child["parent_id"] = completion.id
        else:
            node = self._add(parent, completion.id, completion.answer, False)
        node |= {"synthetic": completion.policy_version is not None, "model_name": model_of(completion)}
        return node

    def _same(self, parent: Line, turn: Message) -> Line | None:
        return next((node for node in parent["replies"] if _turn(node) == turn), None)

    def _add(self, parent: Line, id: str, turn: Message, free: bool) -> Line:
        node = _node(id, parent["message_id"], turn)
        parent["replies"].append(node)
        if free:
            self._free.add(id)
        return node

    def note(self, judged: Judged) -> None:
        """Add what a judgement says to the nodes that it is about."""
        said = {"user_id": judged.feedback.rater, "split": judged.feedback.split}
        nodes = [self.reply(completion) for completion in judged.completions]
        match judged.feedback.judgement:
            case Rating() as rating:
                event = {"type": "rating", **said, "rating": rating.value}
                _event(nodes[0], "rating", event)
                thumb = "+1" if rating.label >= 0.5 else "-1"
                nodes[0]["emojis"][thumb] = nodes[0]["emojis"].get(thumb, 0) + 1
            case Flag() as flag:
                event = {"type": "report", **said, "reasons": list(flag.reasons), "report_text": flag.comment}
                _event(nodes[0], "report", event)
            case _:
                self._rank(judged, said)

    def _rank(self, judged: Judged, said: Line) -> None:
        shown = sorted(enumerate(judged.places), key=lambda place: place[1][1])
        tiers = [tier for _, (_, tier) in shown]
        ids = [completion.id for _, (completion, _) in shown]
        prompt = self.prompt(judged.completions[0].messages)
        event = {
            "type": "ranking",
            **said,
            "ranking": [index for index, _ in shown],
            "ranked_message_ids": ids,
            "ranking_parent_id": prompt["message_id"],
            "message_tree_id": self.id,
            "not_rankable": judged.none_acceptable,
            "tiers": tiers,
            "partial": sum(tier == judged.unplaced for tier in tiers)
            > 1,  # a single one left out is the worst, no more
        }
        _event(prompt, "ranking", event)
        for id, tier in zip(ids, tiers, strict=True):
            self._tiers[id].append(tier)

    def line(self) -> Line:
        self._place(self.root)
        return {
            "message_tree_id": self.id,
            "tree_state": "ready_for_export",
            "system": self.system,
            "prompt": self.root,
        }

    def _place(self, node: Line) -> None:
        """Give replies their rank: by the mean of the tiers that people put them in, equal ranks for equal means."""
        known = {
            r["message_id"]: self._tiers[r["message_id"]] for r in node["replies"] if r["message_id"] in self._tiers
        }
        means = {id: sum(tiers) / len(tiers) for id, tiers in known.items()}
        order = sorted(set(means.values()))
        for reply in node["replies"]:
            if reply["message_id"] in means:
                reply["rank"] = order.index(means[reply["message_id"]])
            self._place(reply)


def write_oasst(group: Sequence[Judged]) -> Iterator[Line]:
    """The tree of judgements that `tree_of` gives one name; none when nothing of it can be expressed."""
    expressed = [judged for judged in group if _can_say(judged)]
    if not expressed:
        return
    tree = _Tree(tree_of(expressed[0]), expressed[0].completions[0].messages)
    for judged in expressed:
        tree.note(judged)
    yield tree.line()


def _can_say(judged: Judged) -> bool:
    placed = [completion for completion, tier in judged.places if tier != judged.unplaced]
    ranked = bool(placed) and len(judged.places) > 1
    return ranked or rates(judged.feedback.judgement) or isinstance(judged.feedback.judgement, Flag)


def _node(id: str, parent: str | None, turn: Message) -> Line:
    plain = turn.plain
    node = {"message_id": id, "parent_id": parent, "text": plain.pop("content")}
    role = plain.pop("role")
    more: Line = {"rank": None, "emojis": {}, "labels": {}, "events": {}, "replies": []}
    return {**node, "role": _TO_OASST.get(role, role), **plain, **more}


def _event(node: Line, kind: str, event: Line) -> None:
    node["events"].setdefault(kind, []).append(event)


def _turn(node: Line) -> Message:
    """A node as a turn. Raises ValueError."""
    role = text_field(node, "role")
    extra = {name: node[name] for name in ("name", "tool_calls", "tool_call_id") if node.get(name)}
    return messages_from([{"role": _FROM_OASST.get(role, role), "content": text_field(node, "text"), **extra}])[0]


def read_oasst(rows: Sequence[Line], origin: Origin) -> list[Judged]:
    """Rankings as people gave them if the tree has them, else the ranks of replies; ratings, else thumbs; reports."""
    system = messages_from(rows[0]["system"]) if rows[0].get("system") else ()
    return list(_judgements(field(rows[0], "prompt"), system, origin))


def oasst_replies(row: Line) -> list[Reply]:
    """All of the assistant's replies, each followed by those further down: as they stand in the line."""
    system = messages_from(row["system"]) if row.get("system") else ()
    return list(_replies(field(row, "prompt"), system))


def _replies(node: Line, before: tuple[Message, ...]) -> Iterator[Reply]:
    messages = (*before, _turn(node))
    for reply in node.get("replies") or []:
        if (turn := _turn(reply)).role == "assistant":
            yield Reply(messages, turn)
        yield from _replies(reply, messages)


def _judgements(node: Line, before: tuple[Message, ...], origin: Origin) -> Iterator[Judged]:
    messages = (*before, _turn(node))
    replies = node.get("replies") or []
    rankings = _events(node, "ranking") or _ranks(replies)
    for event in rankings:
        yield _ranking(event, messages, replies, origin)
    for reply in replies:
        for event, judgement in _verdicts(reply):
            yield origin.judged(messages, [_answer(reply)], judgement, event, rater=event.get("user_id"))
        yield from _judgements(reply, messages, origin)


def _events(node: Line, kind: str) -> list[Line]:
    events = (node.get("events") or {}).get(kind) or []
    return [event for event in events if isinstance(event, dict)]


def _ranks(replies: Sequence[Line]) -> list[Line]:
    ranked = [reply for reply in replies if isinstance(reply.get("rank"), int)]
    if len(ranked) < 2:
        return []
    return [{"ranked_message_ids": [r["message_id"] for r in ranked], "tiers": [r["rank"] for r in ranked]}]


def _ranking(event: Line, messages: Sequence[Message], replies: Sequence[Line], origin: Origin) -> Judged:
    by_id = {reply.get("message_id"): reply for reply in replies}
    ids = field(event, "ranked_message_ids")
    if not isinstance(ids, list) or len(ids) < 2 or not set(ids) <= set(by_id):
        raise ValueError("a ranking must name two or more replies")
    tiers = event.get("tiers") or list(range(len(ids)))  # best first, and without ties where the line tells none
    if len(tiers) != len(ids) or not all(isinstance(tier, int) for tier in tiers):
        raise ValueError("a ranking must give each reply its tier")
    order = event.get("ranking")
    if isinstance(order, list) and sorted(order) == list(range(len(ids))):  # back to how they were shown
        ids, tiers = ([x for _, x in sorted(zip(order, xs, strict=True))] for xs in (ids, tiers))
    say = partial(ordered, tiers=tiers, partial=bool(event.get("partial")), bad=bool(event.get("not_rankable")))
    answers = [_answer(by_id[id]) for id in ids]
    return origin.judged(messages, answers, say, event, rater=event.get("user_id"))


def _verdicts(reply: Line) -> Iterator[tuple[Line, Any]]:
    ratings = _events(reply, "rating")
    for event in ratings:
        yield event, partial(rated, value=float(field(event, "rating")))
    emojis = reply.get("emojis") or {}
    up, down = emojis.get("+1", 0), emojis.get("-1", 0)
    if not ratings and up + down > 0:
        yield {}, partial(rated, value=up / (up + down))
    for event in _events(reply, "report"):
        reasons, comment = event.get("reasons") or (), event.get("report_text")
        yield event, partial(_flag, reasons=tuple(reasons), comment=comment)


def _flag(ids: tuple[str, ...], reasons: tuple[str, ...], comment: str | None) -> Judgement:
    return Flag(completion_id=ids[0], reasons=reasons, comment=comment)


def _answer(reply: Line) -> Answer:
    turn = _turn(reply)
    if turn.role != "assistant":
        raise ValueError("only replies of the assistant can be judged")
    return Answer(turn, named_model(reply.get("model_name")))
