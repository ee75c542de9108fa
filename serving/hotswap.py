"""The swap of one policy for another inside a running engine, with nobody's request lost."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from feedback.manifest import BrokenPolicy, Manifest, directory_name, read_manifest
from feedback.registry import PolicyRegistry
from serving.engine import SERVED_NAME, Engine, EngineDown, EngineRefused, Scores
from serving.proof import Proof, Reading, digests_agree, judge, leak
from serving.swap_gate import Close, Load, Served, SwapGate, Taint
from serving.verified import Policy

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
        except EngineRefused as error:  # vLLM has no JSON for NaN
            reason = f"the engine has no log-probs for the golden sequences: {error}"
            return Proof(proven=False, decided_by="absolute", reason=reason), reading_of(policy.manifest, ())
        reading = reading_of(policy.manifest, scores).model_copy(update={"parent": parent_logprobs(policy)})
        return judge(reading, self._known, checksum), reading

    async def holds(self, served: Served, deadline_s: float) -> bool:
        return await self.engine.marked(deadline_s) in (None, served.label)

    async def settle(self) -> None:
        """Nothing stays behind: the old weights were overwritten."""


class Adapters:
    """The adapters in one engine, whichever loader put them there: none takes away what another needs.

    What was there before us belongs to nobody any more: who needs it loads it anew.
    """

    def __init__(self, engine: Engine, registry: PolicyRegistry) -> None:
        self.present: set[int] = set()
        self.strays: set[int] | None = None
        self.loaders: list[AdapterLoader] = []
        self._engine, self._registry = engine, registry
        self._lock = asyncio.Lock()

    async def add(self, version: int, path: Path) -> bool:
        """Whether it was loaded now: one that has its name already is left alone, and has to be proven like any other.

        Raises EngineRefused.
        """
        async with self._lock:
            held = adapter_name(version) in await self._engine.models()
            if not held:
                await self._engine.load_adapter(adapter_name(version), path)
            self.present.add(version)
        return not held

    async def renew(self, version: int, path: Path) -> None:
        """In the place of what bears its name wrongly. Raises EngineRefused."""
        async with self._lock:
            await self._unload(version)
            await self._engine.load_adapter(adapter_name(version), path)

    async def settle(self) -> None:
        """Unload those that no loader needs, nor will: one just promoted is not loaded again. Raises RedisError."""
        if self.strays is None:
            self.strays = {found for name in await self._engine.models() if (found := version_of(name)) is not None}
        for version in sorted(version for version in self.present | self.strays if not self._needed(version)):
            stable = await asyncio.to_thread(self._registry.stable)
            async with self._lock:
                if version != stable and not self._needed(version):
                    await self._unload(version)
                    self.present.discard(version)
                    self.strays.discard(version)

    def _needed(self, version: int) -> bool:
        return any(loader.needs(version) for loader in self.loaders)

    async def _unload(self, version: int) -> None:
        try:
            await self._engine.unload_adapter(adapter_name(version))
        except EngineRefused as error:
            # A restarted engine has lost it already; others must not wait for it for ever.
            log.info("policy-v%d was not unloaded: %s", version, error)


class AdapterLoader:
    """Policies as LoRA adapters side by side under their own names: no pause, the old one drains. For GPUs.

    Of several loaders of one engine a single one `marks` it: each load has another label.
    """

    def __init__(self, engine: Engine, gate: SwapGate, base: Policy, adapters: Adapters, *, marks: bool = True) -> None:
        self.engine, self.gate, self.base, self.adapters, self.marks = engine, gate, base, adapters, marks
        self._loading: int | None = None
        adapters.loaders.append(self)

    async def load(self, policy: Policy) -> Loaded:
        manifest = policy.manifest
        adapter = manifest.adapter_path
        name = SERVED_NAME if adapter is None else adapter_name(manifest.version)
        self._loading = manifest.version
        served = policy.served(engine_model=name, pinned=True, tokenizer_dir=self.base.model_dir)
        if adapter is None:
            proof = await self._prove(manifest, name)
        else:
            proof = await self._added(manifest, policy.directory / adapter)
        if not proof.proven:
            raise SwapFailed(proof.reason, proof)
        if self.marks:
            await self.engine.mark(served.label)
        return Loaded(served, proof, 0.0)

    async def _added(self, manifest: Manifest, path: Path) -> Proof:
        version, name = manifest.version, adapter_name(manifest.version)
        with _reading():
            fresh = await self.adapters.add(version, path)
        proof = await self._prove(manifest, name)
        if proof.proven or fresh:
            return proof
        with _reading():
            await self.adapters.renew(version, path)
        return await self._prove(manifest, name)

    async def holds(self, served: Served, deadline_s: float) -> bool:
        if served.engine_model not in await self.engine.models(deadline_s):
            return False
        return not self.marks or await self.engine.marked(deadline_s) in (None, served.label)

    def needs(self, version: int) -> bool:
        served = self.gate.served
        return (
            version == self._loading
            or bool(self.gate.in_flight[version])
            or (served is not None and served.version == version)
        )

    async def _prove(self, manifest: Manifest, name: str) -> Proof:
        """The change is measured against the base, which every adapter engine can compute at any time."""
        base = self.base.manifest
        # A wrapped layer keeps its weights one level deeper.
        digests = {key.replace(".base_layer.", "."): value for key, value in (await self.engine.checksums()).items()}
        if digests_agree(base.weights, digests) is False:
            raise SwapFailed("the engine was not started with the base model, so adapters on it mean nothing")
        base_scores = await self.engine.score(base.golden)
        old = reading_of(base, base_scores)
        if name == SERVED_NAME:
            return judge(old, None, None)
        mixed_base, scores = await asyncio.gather(
            self.engine.score(base.golden), self.engine.score(manifest.golden, model=name)
        )
        # Of other sequences nothing says which way the adapter lies.
        adapted = scores if manifest.golden == base.golden else base_scores
        if reason := leak(base_scores, mixed_base, adapted):
            return Proof(proven=False, decided_by="absolute", reason=reason)
        return judge(reading_of(manifest, scores), old, None)

    async def settle(self) -> None:
        """Unload adapters that neither serve nor have a request running."""
        self._loading = None  # the gate knows by now what came of it
        await self.adapters.settle()


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except EngineRefused as error:
        raise SwapFailed(f"the engine cannot read the adapter: {error}") from error


def adapter_name(version: int) -> str:
    return f"policy-v{version}"


def version_of(name: str) -> int | None:
    """Whose adapter has the name; None if it is not one of ours."""
    number = name.removeprefix("policy-v")
    return int(number) if number.isdecimal() and adapter_name(int(number)) == name else None


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
