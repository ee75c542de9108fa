"""Policies as adapters in one engine: loaded side by side, proven, kept for a way back, and unloaded."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedback.manifest import Manifest
from feedback.registry import PolicyRegistry
from serving.engine import SERVED_NAME, Engine, EngineRefused
from serving.hotswap import Loaded, SwapFailed, reading_of
from serving.proof import Proof, digests_agree, judge, leak
from serving.swap_gate import Served, SwapGate
from serving.verified import Policy

log = logging.getLogger("serving.hotswap")

LOOK_S = 5.0


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
        self._former: int | None = None
        self._proofs: dict[int, tuple[Manifest, Proof]] = {}
        adapters.loaders.append(self)

    async def load(self, policy: Policy) -> Loaded:
        manifest, serving = policy.manifest, self.gate.served
        name = SERVED_NAME if manifest.adapter_path is None else adapter_name(manifest.version)
        self._loading = manifest.version
        served = policy.served(engine_model=name, pinned=True, tokenizer_dir=self.base.model_dir)
        proof = await self._proven_before(manifest, name) or await self._loaded(policy, name)
        if not proof.proven:
            raise SwapFailed(proof.reason, proof)
        if self.marks:
            await self.engine.mark(served.label)
        self._proofs[manifest.version] = manifest, proof
        self._former = serving.version if serving is not None else None
        return Loaded(served, proof, 0.0)

    async def _proven_before(self, manifest: Manifest, name: str) -> Proof | None:
        """What is in the engine ever since it was proven needs no proof: a rollback must not wait for one.

        The engine is the same while it holds what serves, and nothing replaces an adapter under its name.
        """
        serving = self.gate.served
        if serving is None or not await self.holds(serving, LOOK_S):
            self._proofs.clear()
        known, proof = self._proofs.get(manifest.version, (None, None))
        if proof is None or known != manifest or name not in await self.engine.models():
            return None
        return proof.model_copy(update={"reason": "proven before, and in the engine ever since"})

    async def _loaded(self, policy: Policy, name: str) -> Proof:
        adapter = policy.manifest.adapter_path
        if adapter is None:
            return await self._prove(policy.manifest, name)
        return await self._added(policy.manifest, policy.directory / adapter)

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
            version in (self._loading, self._former)  # it may be returned to
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
