"""When a round starts by itself. Idempotent: any number of beats may ask at the same time."""

import os
import time
from contextlib import suppress
from itertools import islice

from redis import Redis

from feedback.rounds import LeaseLost, RoundBook, RoundRecord
from feedback.settings import Settings
from feedback.store import Ledger

MANY_ROUNDS = 1000


def round_in_need(settings: Settings, redis: Redis) -> int | None:
    """The open round if nobody works on it, opened just now if one was due; None when there is nothing to do."""
    book = RoundBook(redis)
    round = book.open_round()
    if round is None:
        trigger = None if book.is_frozen() else due(settings, book, Ledger(redis), time.time())
        if trigger is None:
            return None
        round_id, _ = book.request(trigger=trigger, actor="beat")
        round = book.get(round_id)
    return round.id if round is not None and book.is_expired(round) else None


def due(settings: Settings, book: RoundBook, ledger: Ledger, now: float) -> str | None:
    """Why a round should start now ("count" or "schedule"), or None.

    What counts are judgements that may train, since the newest round that looked, whatever became of it: a round that
    failed is not repeated by itself on the very same feedback. Without any of them there is never a round.
    """
    rounds = book.list(limit=MANY_ROUNDS)
    since = next((round.watermark for round in rounds if round.watermark), "0")
    said = (item for _, item in ledger.feedback_between(since))
    fresh = (item for item in said if item.split == "train" and not item.is_check)
    judgements = list(islice(fresh, settings.min_rankings))
    if len(judgements) >= settings.min_rankings:
        return "count"
    every_s = settings.round_every_minutes * 60
    if every_s and judgements and now - _last_start(rounds, judgements[0].created) >= every_s:
        return "schedule"
    return None


def _last_start(rounds: list[RoundRecord], first_judgement: float) -> float:
    """When the schedule was last served; before any round it runs from the first judgement."""
    return rounds[0].created if rounds else first_judgement


def release_of_dead(book: RoundBook, owner: str) -> None:
    """Free a round whose worker died on this machine, instead of waiting for its lease to expire.

    `owner` is the caller's own `host:pid`, before it has claimed anything: a round in its name is a predecessor's,
    which had the same pid (in containers it always has).
    """
    round = book.open_round()
    if round is None or round.owner is None or book.is_expired(round):
        return
    host, _, pid = round.owner.rpartition(":")
    if host == owner.rpartition(":")[0] and (round.owner == owner or not _lives(int(pid))):
        with suppress(LeaseLost):  # somebody else saw it first
            book.release(round.id, round.token)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
