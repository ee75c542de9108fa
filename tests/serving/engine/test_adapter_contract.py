"""What is taken for granted of adapters in vLLM, asked of a real one with a real model.

On a CPU it needs to be told which layers adapters are for, and lets them leak into other rows of a batch: so what is
asked here is asked alone.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from feedback.policies.registry import PolicyRegistry
from feedback.settings import Settings
from feedback.store import connect
from serving.engine.hotswap import reading_of
from serving.engine.proof import judge
from serving.engine.server import Engine, EngineRefused
from tests.conftest import free_port, own_valkey
from tests.e2e.candidates import publish_adapter
from tests.serving.live import real_vllm
from training.register import register_base

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MATRICES = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
NAME = "policy-v1"


@pytest.fixture(scope="module")
def settings(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Of an installation with a policy of its own; its engine runs and holds the base."""
    home = tmp_path_factory.mktemp("home")
    with own_valkey() as valkey:
        settings = Settings(
            home=home, base_model=str(real_model), redis_url=valkey.url, engine_port=free_port(),
            engine_mode="adapter", engine_args=f"--enable-lora --max-loras 4 --lora-target-modules {MATRICES}",
        )  # fmt: skip
        with real_vllm(settings, real_model, VLLM_ALLOW_RUNTIME_LORA_UPDATING="1") as await_engine:
            register_base(settings)
            publish_adapter(registry_of(settings), real_model, seed=1)
            await_engine()
            yield settings


def registry_of(settings: Settings) -> PolicyRegistry:
    return PolicyRegistry(connect(settings.resolved_redis_url()), settings.policies_dir)


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    client = Engine(settings.resolved_engine_url(), settings.resolved_engine_key())
    yield client
    await client.close()


async def test_an_adapter_has_its_name_and_directory_from_load_to_unload(engine: Engine, settings: Settings) -> None:
    path = registry_of(settings).directory(1) / "adapter"
    assert list(await engine.models()) == ["policy"]
    await engine.load_adapter(NAME, path)
    assert (await engine.models())[NAME] == str(path)
    with pytest.raises(EngineRefused, match="already"):
        await engine.load_adapter(NAME, path)
    await engine.unload_adapter(NAME)
    assert list(await engine.models()) == ["policy"]
    with pytest.raises(EngineRefused):
        await engine.unload_adapter(NAME)
    with pytest.raises(EngineRefused):
        await engine.load_adapter(NAME, path / "nothing")


async def test_an_adapter_says_what_its_trainer_said(engine: Engine, settings: Settings) -> None:
    registry = registry_of(settings)
    base, trained = registry.manifest(0), registry.manifest(1)
    alone = await engine.score(base.golden)
    await engine.load_adapter(NAME, registry.directory(1) / str(trained.adapter_path))
    old = reading_of(base, alone)
    proof = judge(reading_of(trained, await engine.score(trained.golden, model=NAME)), old, None)
    assert proof.proven and proof.decided_by == "change", proof
    unmoved = judge(reading_of(trained, await engine.score(trained.golden)), old, None)
    assert not unmoved.proven, "the base under the adapter's name would pass"
    await engine.unload_adapter(NAME)
