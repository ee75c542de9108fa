"""Stable against itself, always: should it ever win or lose by more than chance, the votes measure something else."""

import math

from feedback.e_values import log_e
from feedback.records import Record
from feedback.releases.ballots import StableAgainstItself
from feedback.store import Ledger

KEY = "releases:aa"
ALPHA = 0.01  # the chance of an alarm, ever, with nothing wrong
THRESHOLD = -math.log(ALPHA)

# Whoever began anew meanwhile is not undone by what was counted before.
_KEEP = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
"""


class SelfTest(Record):
    """Decisive votes since a cursor, those that the second of the two won, and the highest evidence there ever was."""

    since: str = "0"
    votes: int = 0
    wins: int = 0
    log_e: float = 0.0
    alarm: bool = False

    @property
    def says(self) -> str:
        if not self.votes and not self.alarm:
            return "nobody has decided yet between two answers of stable's"
        what = f"of {self.votes} decisive votes on stable against itself the second won {self.wins}"
        if not self.alarm:
            return f"{what}, as chance may have it"
        then = "no vote decides, and nothing is promoted by itself, until somebody has found out why"
        return f"{what}, which chance does not do: {then}"


class Watch:
    """The test as votes come; `look` keeps what it found for everybody."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._keep = ledger.redis.register_script(_KEEP)
        self._since = self._seen = ""

    def look(self) -> SelfTest:
        """An alarm stands until somebody resets it."""
        raw, newest = self.ledger.redis.get(KEY) or "", self.ledger.watermark()
        before = _read(raw)
        if before.since != self._since:
            self._votes, self._since, self._seen = StableAgainstItself(self.ledger, before.since), before.since, ""
        if newest == self._seen:
            return before
        found = self._found(before)
        self._seen = newest
        if found != before:
            self._keep(keys=[KEY], args=[raw, found.model_dump_json()])
        return found

    def _found(self, before: SelfTest) -> SelfTest:
        wins = losses = 0
        highest = 0.0
        for vote in self._votes.votes():
            wins, losses = wins + (vote.winner == "candidate"), losses + (vote.winner == "stable")
            highest = max(highest, log_e(wins, losses))
        alarm = before.alarm or highest >= THRESHOLD
        return SelfTest(since=before.since, votes=wins + losses, wins=wins, log_e=highest, alarm=alarm)


def self_test_of(ledger: Ledger) -> SelfTest:
    """What is known of it now."""
    return _read(ledger.redis.get(KEY) or "")


def reset(ledger: Ledger) -> None:
    """Whoever has found the fault begins again: only votes from now on count."""
    ledger.redis.set(KEY, SelfTest(since=ledger.watermark()).model_dump_json())


def _read(raw: str) -> SelfTest:
    return SelfTest.model_validate_json(raw) if raw else SelfTest()
