"""What the swaps of an engine did, for the log, the metrics and operators."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from feedback.policies.manifest import BrokenPolicy
from feedback.records import Arm, Record
from serving.engine.hotswap import Loaded, SwapFailed
from serving.engine.proof import Proof
from serving.engine.swap_gate import SwapGate
from serving.metrics import Metrics

log = logging.getLogger("serving.hotswap")

LAST_SWAP = "engine:last_swap"


class SwapReport(Record):
    """What one swap did: the engine stood still for `pause_s`, clients saw nothing new for `held_s`."""

    from_version: int | None
    to_version: int
    ok: bool
    reason: str
    pause_s: float
    held_s: float
    in_flight: int
    proof: Proof | None
    time: float


@dataclass
class SwapReports:
    """Of one engine. Of the one that serves, the last report is kept for operators. `before` is what it held."""

    arm: Arm
    gate: SwapGate
    redis: Any
    metrics: Metrics
    last: SwapReport | None = field(default=None, init=False)

    async def succeeded(self, loaded: Loaded, *, before: int | None, restoring: bool) -> None:
        """After one that failed, what was restored is not kept: the failure is what an operator needs to see."""
        version, reason = loaded.served.version, loaded.proof.reason
        report = self._report(before, version, ok=True, reason=reason, pause_s=loaded.pause_s, proof=loaded.proof)
        await self._tell(report, keep=not restoring)

    async def failed(self, version: int, failure: BrokenPolicy | SwapFailed, *, before: int | None) -> None:
        proof, pause_s = (failure.proof, failure.pause_s) if isinstance(failure, SwapFailed) else (None, 0.0)
        report = self._report(before, version, ok=False, reason=str(failure), pause_s=pause_s, proof=proof)
        await self._tell(report, keep=True)

    def _report(self, before: int | None, version: int, **told: Any) -> SwapReport:
        in_flight = sum(self.gate.in_flight.values())
        return SwapReport(
            from_version=before, to_version=version, held_s=self.gate.held_s, in_flight=in_flight, time=time.time(),
            **told,
        )  # fmt: skip

    async def _tell(self, report: SwapReport, *, keep: bool) -> None:
        """One log line, and of what serves the record for operators."""
        self.metrics.swaps.labels("ok" if report.ok else "failed").inc()
        log.log(
            logging.INFO if report.ok else logging.ERROR,
            "%s swap %s -> v%d %s: paused %.2f s, held %.2f s, %d in flight, %s",
            self.arm, "nothing" if report.from_version is None else f"v{report.from_version}",
            report.to_version, "ok" if report.ok else "FAILED", report.pause_s, report.held_s, report.in_flight,
            report.reason,
        )  # fmt: skip
        if keep and self.arm == "stable":
            await self._keep(report)

    async def _keep(self, report: SwapReport) -> None:
        self.last = report
        self.metrics.swap_pause_s.set(report.pause_s)
        self.metrics.swap_held_s.set(report.held_s)
        try:
            await asyncio.to_thread(self.redis.set, LAST_SWAP, report.model_dump_json())
        except RedisError as error:
            log.warning("the swap report was not stored: %s", error)
