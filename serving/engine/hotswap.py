"""The swap of one policy for another inside a running engine, with nobody's request lost."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from feedback.policies.manifest import BrokenPolicy, Manifest, directory_name, read_manifest
from serving.engine.proof import Proof, Reading, digests_agree, judge
from serving.engine.server import SERVED_NAME, Engine, EngineDown, EngineRefused, Scores
from serving.engine.swap_gate import Close, Load, Served, SwapGate, Taint
from serving.engine.verified import Policy

log = logging.getLogger("serving.hotswap")


@dataclass(frozen=True)
class Loaded:
    """A proven load; `pause_s` is how long the engine stood still."""

    served: Served
    proof: Proof
    pause_s: float


class SwapFailed(RuntimeError):
    """The engine does not hold the policy it was told to load; `spoilt`, it can hold no other now either."""

    def __init__(self, reason: str, proof: Proof | None = None, pause_s: float = 0.0, *, spoilt: bool = False) -> None:
        super().__init__(reason)
        self.proof, self.pause_s, self.spoilt = proof, pause_s, spoilt


class PolicyLoader(Protocol):
    """One way to bring a policy into the engine."""

    async def load(self, policy: Policy) -> Loaded:
        """Load and prove; raises SwapFailed, EngineDown, EngineRefused. The caller opens the gate."""

    async def holds(self, served: Served, deadline_s: float) -> bool:
        """Whether the engine still has what was loaded; raises EngineDown, EngineRefused."""

    async def settle(self) -> None:
        """Clear away what no request needs any more; raises EngineDown, EngineRefused, RedisError."""


class MergedLoader:
    """One policy per engine: freeze, replace all weights, prove, go on. For CPU engines and full fine-tunes.

    Where nothing is known of the engine yet, `anchor` is loaded first, if given: a change can be told from no change.
    """

    def __init__(self, engine: Engine, gate: SwapGate, anchor: Callable[[], Policy | None] | None = None) -> None:
        self.engine, self.gate = engine, gate
        self._anchor = anchor
        self._known: Reading | None = None

    async def load(self, policy: Policy) -> Loaded:
        if self._known is None and self._anchor is not None:
            anchor = await asyncio.to_thread(self._anchor)
            if anchor is not None and anchor.manifest.version != policy.manifest.version:
                await self._hold(anchor)
        return await self._load(policy)

    async def _hold(self, anchor: Policy) -> None:
        """An engine that cannot hold what another one serves is at fault itself; raises EngineDown, EngineRefused."""
        try:
            await self._load(anchor)
        except SwapFailed as failure:
            raise EngineDown(
                f"it cannot hold {anchor.manifest.name}, which another engine serves: {failure}"
            ) from failure

    async def _load(self, policy: Policy) -> Loaded:
        served = policy.served(engine_model=SERVED_NAME, pinned=False, tokenizer_dir=policy.model_dir)
        await self.gate.command(Close())
        started = time.monotonic()
        checksum = await self._replace(policy)
        await self.engine.mark(served.label)
        await self.gate.command(Load(served))
        await self.engine.resume()
        pause_s = time.monotonic() - started
        proof, reading = await self._prove(policy, checksum)
        if not proof.proven:
            await self.gate.command(Taint())
            # Where weights gave no numbers, what they left in the cache spoils those of others.
            raise SwapFailed(proof.reason, proof, pause_s, spoilt=not reading.engine and bool(reading.golden))
        self._known = reading
        return Loaded(served, proof, pause_s)

    async def _replace(self, policy: Policy) -> bool | None:
        """Leaves the engine paused with the new weights; whether their digests agree, None if unknown."""
        await self.engine.pause()
        try:
            await self.engine.reload(policy.model_dir)
        except EngineRefused as error:
            raise SwapFailed(f"the engine cannot read the weights: {error}") from error
        expected, found = policy.manifest.weights, await self.engine.checksums()
        checksum = digests_agree(expected, found)
        if checksum is False:
            # Still paused: not one token was written by these weights.
            proof = judge(Reading(version=policy.manifest.version, golden=(), engine=(), trainer=()), None, False)
            wrong = sorted(name for name in found.keys() & expected.keys() if found[name] != expected[name])
            raise SwapFailed(f"weight digests differ in {len(wrong)} parameters, first {wrong[0]}", proof)
        # Fails while streams hold blocks; Served.label keeps the old prefixes from being used all the same.
        await self.engine.reset_prefix_cache()
        return checksum

    async def _prove(self, policy: Policy, checksum: bool | None) -> tuple[Proof, Reading]:
        try:
            scores = await self.engine.score(policy.manifest.golden)
        except EngineRefused as error:
            return unscored(error), reading_of(policy.manifest, ())
        reading = reading_of(policy.manifest, scores).model_copy(update={"parent": parent_logprobs(policy)})
        return judge(reading, self._known, checksum), reading

    async def holds(self, served: Served, deadline_s: float) -> bool:
        return await self.engine.marked(deadline_s) in (None, served.label)

    async def settle(self) -> None:
        """Nothing stays behind: the old weights were overwritten."""


def unscored(error: EngineRefused) -> Proof:
    """Of weights that the engine has no numbers for: vLLM has no JSON for NaN."""
    reason = f"the engine has no log-probs for the golden sequences: {error}"
    return Proof(proven=False, decided_by="absolute", reason=reason)


def reading_of(manifest: Manifest, scores: Scores) -> Reading:
    """What the engine says of a policy's golden sequences, beside what its trainer said."""
    return Reading(version=manifest.version, golden=manifest.golden, engine=scores, trainer=manifest.golden_logprobs)


def parent_logprobs(policy: Policy) -> Scores:
    """What the trainer said of the parent on the same golden sequences; empty when it cannot be known."""
    manifest = policy.manifest
    if manifest.parent is None:
        return ()
    try:
        parent = read_manifest(policy.directory.parent / directory_name(manifest.parent))
    except BrokenPolicy:
        return ()
    return parent.golden_logprobs if parent.golden == manifest.golden else ()
