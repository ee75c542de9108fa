"""AsyncOpenAI against the whole product: what streams, goes on, is laid side by side and is left, with a real model."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, Field

from tests.e2e.conftest import Service
from tests.e2e.test_api import MESSAGES, WEATHER

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LONG: Any = {"model": "policy", "messages": MESSAGES, "max_tokens": 512, "stream": True,
             "extra_body": {"ignore_eos": True}}  # fmt: skip
CHUNKS = {"cast_to": ChatCompletionChunk, "stream": True, "stream_cls": AsyncStream[ChatCompletionChunk]}


class Place(BaseModel):
    city: str = Field(max_length=12)


@pytest.fixture
async def sdk(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=service.key, timeout=120, max_retries=0) as client:
        yield client


async def all_of(chunks: AsyncIterator[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in chunks]


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


async def running(service: Service) -> int:
    """Requests that vLLM works on now, as it says itself."""
    settings = service.settings
    headers = {"authorization": f"Bearer {settings.resolved_engine_key()}"}
    async with httpx.AsyncClient(headers=headers) as http:
        text = (await http.get(f"{settings.resolved_engine_url()}/metrics")).text
    return sum(int(float(value)) for value in re.findall(r"^vllm:num_requests_running\{.*\} (.+)$", text, re.MULTILINE))


async def until_running(service: Service, wanted: int, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (count := await running(service)) != wanted:
        assert time.monotonic() < deadline, f"the engine works on {count} requests, not on {wanted}"
        await asyncio.sleep(0.05)


async def test_a_stream_that_is_closed_frees_the_engine(service: Service, sdk: AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(**LONG)
    seen = [await anext(stream) for _ in range(5)]
    await until_running(service, 1, seconds=10)
    await stream.close()
    await until_running(service, 0, seconds=5)
    kept: Any = await sdk.chat.completions.retrieve(seen[0].id)
    assert kept.choices[0].message.content.startswith(text_of(seen))
    assert kept.usage.completion_tokens < 512


async def test_who_is_cancelled_while_a_whole_answer_is_awaited_frees_it_too(
    service: Service, sdk: AsyncOpenAI
) -> None:
    asking = asyncio.create_task(sdk.chat.completions.create(**{**LONG, "stream": False}))
    await until_running(service, 1, seconds=10)
    asking.cancel()
    await until_running(service, 0, seconds=5)


async def test_a_stream_goes_on_where_its_connection_broke(sdk: AsyncOpenAI) -> None:
    wanted = {"model": "policy", "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    body = {**wanted, "stream": True, "stream_options": {"resumable": True}}
    async with await sdk.post("/chat/completions", body=body, **CHUNKS) as stream:
        seen = [await anext(stream) for _ in range(5)]
    headers = {"headers": {"Last-Event-ID": str(len(seen))}}
    rest = await all_of(await sdk.get(f"/chat/completions/{seen[0].id}/stream", options=headers, **CHUNKS))
    whole = await sdk.chat.completions.create(**wanted)
    assert text_of([*seen, *rest]) == whole.choices[0].message.content


async def test_answers_side_by_side_in_one_stream_and_the_vote(sdk: AsyncOpenAI) -> None:
    body = {"model": "auto", "k": 2, "messages": MESSAGES, "max_tokens": 8, "temperature": 1.0, "stream": True}
    chunks = await all_of(await sdk.post("/comparisons", body=body, **CHUNKS))
    ends = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert (sorted(ends), {chunk.model for chunk in chunks}) == ([0, 1], {"policy"})
    sides: Any = await sdk.get(f"/comparisons/{chunks[0].id}", cast_to=object)
    assert [side["message"]["content"] for side in sides["answers"]] == [text_of(chunks, slot) for slot in (0, 1)]
    vote = {"type": "comparison", "comparison_id": sides["id"], "winner": "right"}
    told: Any = await sdk.post("/feedback", body=vote, cast_to=object)
    assert set(told["reveal"]) == {"left", "right"}


async def test_a_vote_ends_a_stream_that_is_still_written(service: Service, sdk: AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(**LONG)
    seen = [await anext(stream) for _ in range(5)]
    rating = {"type": "rating", "completion_id": seen[0].id, "value": -1}
    said: Any = await sdk.post("/feedback", body=rating, cast_to=object)
    rest: list[Any] = await all_of(stream)
    assert rest[-1].ratchet["partial"]
    await until_running(service, 0, seconds=5)
    assert (await sdk.get(f"/feedback/{said['id']}", cast_to=dict[str, Any]))["judgement"]["value"] == -1


async def test_forms_and_tools_stream_through_the_sdks_own_helper(sdk: AsyncOpenAI) -> None:
    shaped: Any = {"model": "policy", "messages": MESSAGES, "max_tokens": 96, "temperature": 0}
    async with sdk.chat.completions.stream(**shaped, response_format=Place) as stream:
        made = (await stream.get_final_completion()).choices[0].message
    assert isinstance(made.parsed, Place)
    async with sdk.chat.completions.stream(**shaped, tools=[WEATHER], tool_choice="required") as stream:
        kinds = {event.type async for event in stream}
        [call] = (await stream.get_final_completion()).choices[0].message.tool_calls or []
    assert "tool_calls.function.arguments.done" in kinds
    assert (call.function.name, set(json.loads(call.function.arguments))) == ("weather", {"city"})


async def test_several_at_once_get_their_own_answers_and_errors(sdk: AsyncOpenAI) -> None:
    def ask(**more: Any) -> Any:
        return sdk.chat.completions.create(**{"model": "policy", "messages": MESSAGES, "max_tokens": 8, **more})

    asked = [ask(), ask(n=2, temperature=1.0), ask(model="policy-v99"), ask(temperature=9), ask(logprobs=True)]
    one, two, unknown, wrong, detailed = await asyncio.gather(*asked, return_exceptions=True)
    assert [len(answer.choices) for answer in (one, two, detailed)] == [1, 2, 1]
    assert len({answer.id for answer in (one, two, detailed)}) == 3
    assert len(detailed.choices[0].logprobs.content) == detailed.usage.completion_tokens
    assert (type(unknown), type(wrong)) == (openai.NotFoundError, openai.BadRequestError)
