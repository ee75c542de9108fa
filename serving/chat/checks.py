"""Pairs that check raters: one answer is to another question, or both were judged before and have changed sides."""

import random
import re
import time
from collections.abc import Iterable
from dataclasses import replace

from feedback.people.checks import REPEAT_AFTER_S, again, repeatable
from feedback.records import Message, Offer
from serving.chat.answers import Plan, Way
from serving.engine.server import Body
from serving.gateway import Gateway
from serving.http.errors import ApiError, invalid

GOLD = "gold"
#: What decoys answer: something that hardly anybody asks about, each far from the others.
QUESTIONS = (
    "How do I keep the leaves of my potted fern from turning brown?",
    "Why does bread dough need to rest before it is baked?",
    "What is the difference between a violin and a viola?",
    "How were stone bridges built in medieval times?",
    "Why do geese fly south in the shape of a V?",
    "How do I get rust off an old bicycle chain?",
)
#: Where the form of an answer is dictated, or its tokens told, a decoy would give itself away.
TELLING = (
    "tools", "functions", "tool_choice", "response_format", "structured_outputs", "documents", "return_token_ids",
)  # fmt: skip

_draw = random.SystemRandom()


def is_gold(body: Body, share: float) -> bool:
    """Drawn for one comparison, whose policies are the server's choice; more than two answers are never gold."""
    suits = body["n"] == 2 and not any(body.get(name) for name in TELLING)
    return suits and _draw.random() < share


def gold_way(way: Way) -> Way:
    """The same, with a decoy among its two answers."""
    return replace(way, plan=lambda admitted: with_decoy(way.plan(admitted)))


def with_decoy(plan: Plan) -> Plan:
    """Of two answers by one policy one, in a slot drawn by chance, to another question."""
    question = unrelated(plan.ticket.messages)
    if plan.offer is None or question is None:
        return plan
    decoy, asked = _draw.randrange(2), plan.questions[0]
    alone = asked.body | {"n": 1}
    elsewhere = alone | {"messages": [{"role": "user", "content": question}]}
    slots = list(plan.offer.slots)
    slots[decoy] = slots[decoy].model_copy(update={"arm": GOLD})
    return replace(
        plan,
        ticket=replace(plan.ticket, decoy=decoy),
        questions=(replace(asked, body=alone, places=(1 - decoy,)), replace(asked, body=elsewhere, places=(decoy,))),
        offer=plan.offer.model_copy(update={"slots": tuple(slots), "lane": GOLD}),
    )


def unrelated(messages: Iterable[Message]) -> str | None:
    """A question that shares no longer word with a conversation; None in one that is about everything."""
    said = {word for message in messages for word in _words(message.content)}
    far = [question for question in QUESTIONS if not said & _words(question)]
    return _draw.choice(far) if far else None


def _words(text: str) -> set[str]:
    return {word.casefold() for word in re.findall(r"\w{5,}", text)}


def repeated(gateway: Gateway, rater: str) -> Offer:
    """A pair that the rater judged a while ago, laid out again in the other order. Raises ApiError 404."""
    now = time.time()
    offers = repeatable(gateway.archive, rater, now - REPEAT_AFTER_S)
    _draw.shuffle(offers)
    for offer in offers:
        if len(offer.slots) == 2 and len(gateway.ledger.completions(offer.completion_ids)) == 2:
            second = again(offer, now)
            if (laid := gateway.archive.offer(second.id)) is not None:
                return laid
            gateway.archive.add_offer(second)
            if gateway.archive.offer(second.id) is not None:  # else it was erased meanwhile
                return second
    minutes = round(REPEAT_AFTER_S / 60)
    message = f"Nothing to repeat: you chose in no pair more than {minutes} minutes ago that did not come again since."
    raise ApiError(404, message, code="nothing_to_repeat", param="repeat")


def wants_repeat(body: Body) -> bool:
    """Whether a pair is to come again; raises ApiError 400 where anything else is asked for with it."""
    if not isinstance(body.get("repeat", False), bool):
        raise invalid("repeat must be true or false", "repeat")
    if not body.get("repeat"):
        return False
    if surprise := next((name for name in body if name not in ("repeat", "user")), None):
        raise invalid(f"what comes again has its question and its answers already: leave out {surprise}", surprise)
    return True
