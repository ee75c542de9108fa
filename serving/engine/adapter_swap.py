"""Policies as adapters in one engine: loaded side by side, proven, kept for a way back, and unloaded."""

import asyncio
import logging
from pathlib import Path

from feedback.policies.manifest import Manifest
from feedback.policies.registry import PolicyRegistry
from serving.engine.hotswap import Loaded, SwapFailed, reading_of, unscored
from serving.engine.proof import Proof, digests_agree, judge, leak
from serving.engine.server import SERVED_NAME, Engine, EngineDown, EngineRefused
from serving.engine.swap_gate import Served, SwapGate
from serving.engine.verified import Policy

log = logging.getLogger("serving.hotswap")

LOOK_S = 5.0


class Adapters:
    """The adapters in one engine, whichever loader put them there: none takes away what another needs.

    One that was there before us is ours if it is from the same directory, whose files nobody changes; another that
    bears the name makes way. `proofs` are of what has not left the engine since.
    """

    def __init__(self, engine: Engine, registry: PolicyRegistry) -> None:
        self.present: set[int] = set()
        self.strays: set[int] | None = None
        self.proofs: dict[int, Proof] = {}
        self.loaders: list[AdapterLoader] = []
        self._engine, self._registry = engine, registry
        self._lock = asyncio.Lock()

    async def add(self, version: int, path: Path) -> None:
        """Load it unless it is there. Raises EngineRefused."""
        async with self._lock:
            if (there := await self._from(version)) != str(path):
                if there is not None:
                    await self._unload(version)
                self.proofs.pop(version, None)
                await self._engine.load_adapter(adapter_name(version), path)
            self.present.add(version)

    async def proof(self, version: int, path: Path) -> Proof | None:
        """Of this adapter, if it was proven and has been in the engine ever since."""
        async with self._lock:
            known = self.proofs.get(version)
            return known if known is not None and await self._from(version) == str(path) else None

    async def _from(self, version: int) -> str | None:
        return (await self._engine.models()).get(adapter_name(version))

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
        self.proofs.pop(version, None)
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
        adapters.loaders.append(self)

    async def load(self, policy: Policy) -> Loaded:
        manifest, serving = policy.manifest, self.gate.served
        self._loading = manifest.version
        proof = await self._proven_before(policy)
        if proof is None:
            proof = await self._loaded(policy)
        if not proof.proven:
            raise SwapFailed(proof.reason, proof)
        served = policy.served(engine_model=name_of(manifest), pinned=True, tokenizer_dir=self.base.model_dir)
        if self.marks:
            await self.engine.mark(served.label)
        self.adapters.proofs[manifest.version] = proof
        self._former = serving.version if serving is not None else None
        return Loaded(served, proof, 0.0)

    async def _proven_before(self, policy: Policy) -> Proof | None:
        """What is in the engine ever since it was proven needs no proof: a rollback must not wait for one.

        As long as its label is that of what serves, the engine was not started again. An adapter that vLLM has no room
        for meanwhile comes from its files again, which were verified just before.
        """
        serving, adapter = self.gate.served, policy.manifest.adapter_path
        try:
            if serving is None or not self.marks or await self.engine.marked(LOOK_S) != serving.label:
                return None
            if adapter is None:
                proof = self.adapters.proofs.get(policy.manifest.version)
            else:
                proof = await self.adapters.proof(policy.manifest.version, policy.directory / adapter)
        except (EngineDown, EngineRefused):
            return None  # the long way will tell
        return proof and proof.model_copy(update={"reason": "proven before, and in the engine ever since"})

    async def _loaded(self, policy: Policy) -> Proof:
        adapter = policy.manifest.adapter_path
        if adapter is not None:
            try:
                await self.adapters.add(policy.manifest.version, policy.directory / adapter)
            except EngineRefused as error:
                raise SwapFailed(f"the engine cannot read the adapter: {error}") from error
        return await self._prove(policy.manifest)

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

    async def _prove(self, manifest: Manifest) -> Proof:
        """The change is measured against the base, which every adapter engine can compute at any time."""
        base = self.base.manifest
        # A wrapped layer keeps its weights one level deeper.
        digests = {key.replace(".base_layer.", "."): value for key, value in (await self.engine.checksums()).items()}
        if digests_agree(base.weights, digests) is False:
            raise SwapFailed("the engine was not started with the base model, so adapters on it mean nothing")
        base_scores = await self.engine.score(base.golden)
        old = reading_of(base, base_scores)
        if manifest.adapter_path is None:
            return judge(old, None, None)
        try:
            mixed_base, scores = await asyncio.gather(
                self.engine.score(base.golden), self.engine.score(manifest.golden, model=name_of(manifest))
            )
        except EngineRefused as error:
            return unscored(error)
        # Of other sequences nothing says which way the adapter lies.
        adapted = scores if manifest.golden == base.golden else base_scores
        if reason := leak(base_scores, mixed_base, adapted):
            return Proof(proven=False, decided_by="absolute", reason=reason)
        return judge(reading_of(manifest, scores), old, None)

    async def settle(self) -> None:
        """Unload adapters that neither serve, nor did before what serves, nor have a request running."""
        self._loading = None  # the gate knows by now what came of it
        await self.adapters.settle()


def name_of(manifest: Manifest) -> str:
    """Under which the engine serves it."""
    return SERVED_NAME if manifest.adapter_path is None else adapter_name(manifest.version)


def adapter_name(version: int) -> str:
    return f"policy-v{version}"


def version_of(name: str) -> int | None:
    """Whose adapter has the name; None if it is not one of ours."""
    number = name.removeprefix("policy-v")
    return int(number) if number.isdecimal() and adapter_name(int(number)) == name else None
