"""When a round starts by itself. Idempotent: any number of beats may ask at the same time."""

import os
import time
from contextlib import suppress

from redis import Redis

from feedback.rounds.book import LeaseLost, RoundBook, last_on_disk
from feedback.rounds.next_round import next_round
from feedback.settings import Settings
from feedback.store import Ledger


def round_in_need(settings: Settings, redis: Redis) -> int | None:
    """The open round if nobody works on it, opened just now if one was due; None when there is nothing to do."""
    book = RoundBook(redis)
    round = book.open_round()
    if round is None:
        trigger = None if book.is_frozen() else next_round(settings, book, Ledger(redis)).due(time.time())
        if trigger is None:
            return None
        round_id, _ = book.request(trigger=trigger, actor="beat", beyond=last_on_disk(settings.rounds_dir))
        round = book.get(round_id)
    return round.id if round is not None and book.is_expired(round) else None


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
