"""The engine's client: the wire as it is, and whose fault a failure was."""

from typing import Any

import pytest

from serving.engine.server import Engine, EngineDown, EngineRefused, EngineSlow, EngineUnreachable, error_message


@pytest.fixture
async def engine(fake_engine: Any) -> Any:
    client = Engine(fake_engine.url, "engine-key")
    yield client
    await client.close()


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "policy", "messages": messages, "max_tokens": 2, "stream": True, **more}


async def test_stream_and_score(engine: Engine) -> None:
    async with engine.stream(body()) as chunks:
        collected = [chunk async for batch in chunks for chunk in batch]
    assert [c["choices"][0]["finish_reason"] for c in collected] == [None, None, "stop"]
    assert await engine.models() == {"policy": "/the/base"}
    assert await engine.score(((1, 2, 3), (4, 5))) == ((-9.0, -9.0), (-9.0,))
    assert await engine.score(()) == ()
    assert await engine.generates(5.0)


async def test_leaving_a_stream_early_aborts_it(engine: Engine, fake_engine: Any, eventually: Any) -> None:
    async with engine.stream(body(max_tokens=1000)) as chunks:
        await anext(chunks)
    await eventually(lambda: fake_engine.state()["aborted"] == 1, seconds=2)


async def test_a_refusal_carries_status_and_message(engine: Engine) -> None:
    with pytest.raises(EngineRefused, match="temperature") as refused:
        async with engine.stream(body(temperature=9)):
            pytest.fail("a refused stream must not open")
    assert refused.value.status == 400


async def test_an_absent_engine_is_down(engine: Engine, fake_engine: Any) -> None:
    fake_engine.kill()
    for attempt in (engine.pause(), engine.health(1.0)):
        with pytest.raises(EngineUnreachable):
            await attempt
    with pytest.raises(EngineUnreachable):
        async with engine.stream(body()):
            pytest.fail("there is nothing to stream from")
    assert not await engine.generates(1.0)


async def test_a_paused_engine_does_not_generate(engine: Engine) -> None:
    await engine.pause()
    assert not await engine.generates(0.2)
    await engine.resume()
    assert await engine.generates(5.0)


async def test_the_connection_lost_in_the_middle_is_down(engine: Engine, fake_engine: Any) -> None:
    fake_engine.set(die_after=3)
    with pytest.raises(EngineDown) as broken:
        async with engine.stream(body(max_tokens=50)) as chunks:
            async for _ in chunks:
                pass
    assert not isinstance(broken.value, EngineUnreachable), "one broken stream says nothing of the engine"


async def test_silence_is_slow_not_gone(fake_engine: Any) -> None:
    engine = Engine(fake_engine.url, "engine-key", silence_s=0.1)
    with pytest.raises(EngineSlow):
        async with engine.stream(body(messages=[{"role": "user", "content": "silence"}])) as chunks:
            await anext(chunks)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ("no", "no"),
    ],
)
def test_the_message_of_any_error_shape(answer: Any, message: str) -> None:
    assert error_message(answer) == message
