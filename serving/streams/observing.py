"""What befalls requests under a release, told to its guardrails beside the way of the answers. A crash loses a second.

No units are comparisons, which are judged, and requests that named their policy. Nor are failures that a request may
have asked for: an answer tells its arm, so one person with a grammar that never ends could have undone a release. An
engine that goes away takes many answers along: that is one event, not so many units, and is the business of whoever
watches the engine. One that is silent failed each who waited; who left before the first token had waited at least so
long.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from types import TracebackType

from redis.exceptions import RedisError

from feedback.releases.observations import Observations, Observed, weight_of
from feedback.releases.refusals import refuses
from serving.engine.server import EngineDown, EngineRefused, EngineSlow, is_clients
from serving.ledger.recorder import Draft, Ticket
from serving.metrics import Pace
from serving.streams.relay import Relay, UnprovenWeights

log = logging.getLogger("serving.releases")

EVERY_S = 1.0
MOST = 10_000  # that wait while Redis is away; what comes after is lost


@dataclass
class Observing:
    """Keeps what ended and hands it on once a second."""

    observations: Observations
    every_s: float = EVERY_S
    _ended: list[Observed] = field(default_factory=list, init=False)

    def request(self, ticket: Ticket, pace: Pace) -> "Watching":
        """Around all that is done for one request on one arm."""
        return Watching(self, ticket, pace)

    def add(self, observed: Observed) -> None:
        if len(self._ended) < MOST:
            self._ended.append(observed)

    async def run(self) -> None:
        """Never returns: what cannot be counted is lost, and what comes after it is not."""
        while True:
            await asyncio.sleep(self.every_s)
            try:
                await self.flush()
            except Exception:
                log.exception("observations were lost")

    async def flush(self) -> None:
        """Hand on what has ended; without Redis it waits."""
        ended, self._ended = self._ended, []
        try:
            if ended:
                await asyncio.to_thread(self.observations.add, ended)
        except RedisError as error:
            log.debug("observations are not kept yet: %s", error)
            self._ended = (ended + self._ended)[:MOST]


@dataclass
class Watching:
    """One request; `relay` is its answer, once there is one."""

    observing: Observing
    ticket: Ticket
    pace: Pace
    relay: Relay | None = None

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        ticket = self.ticket
        if ticket.release is None or ticket.propensity is None or ticket.blind:
            return
        fault = error or (self.relay.fault if self.relay else None)
        draft = self.relay.drafts[0] if self.relay else Draft()
        if (seen := _seen(ticket, draft, fault, self.pace)) is not None:
            self.observing.add(seen)


def _seen(ticket: Ticket, draft: Draft, fault: BaseException | None, pace: Pace) -> Observed | None:
    """None where there is nothing to learn of the policy."""
    assert ticket.release is not None and ticket.propensity is not None
    arm = ticket.arms[0]
    weight = weight_of(arm, ticket.propensity)
    unit = Observed(ticket.release, ticket.rater, ticket.conversation_id, arm, weight, failed=False)
    if isinstance(fault, EngineRefused):
        return None if is_clients(fault) or ticket.steered else unit._replace(failed=True)
    if isinstance(fault, EngineSlow):
        return unit._replace(failed=True)
    if isinstance(fault, EngineDown | UnprovenWeights):
        return None
    text, over = "".join(draft.text), draft.finish_reason is not None
    if over and not text.strip() and not draft.tool_calls:
        return None if ticket.steered else unit._replace(failed=True)
    if not over and not text:
        return unit._replace(first_token_s=pace.elapsed_s)
    tokens = len(draft.token_ids) if over else None
    return unit._replace(refused=refuses(text), first_token_s=pace.first_s, tokens=tokens)
