"""LangChain's ChatOpenAI, unchanged, against the gateway: what it asks, what it reads, and what it repeats."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.serving.chat.test_sdk import a_key, all_of


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


class Place(BaseModel):
    """Where it is."""

    city: str


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the shell says: nothing goes to LangSmith."""
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    yield


@pytest.fixture
def model(live: Any) -> Any:
    """A new ChatOpenAI as the guide makes it."""

    def make(**more: Any) -> ChatOpenAI:
        given = {"model": "policy", "api_key": live.admin_key, "max_retries": 0, "max_tokens": 3, **more}
        return ChatOpenAI(base_url=f"{live.url}/v1", **given)

    return make


def tokens(answer: AIMessage) -> tuple[int, int, int]:
    usage = answer.usage_metadata
    assert usage is not None
    return usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]


async def test_an_answer_is_the_same_sync_and_async_and_can_be_judged(live: Any, model: Any) -> None:
    chat = model(extra_body={"metadata": {"conversation_id": "tea", "app": "chain"}}, include_response_headers=True)
    asked = [SystemMessage("Be brief."), HumanMessage("hi")]
    for answer in (await asyncio.to_thread(chat.invoke, asked), await chat.ainvoke(asked)):
        assert (answer.content, answer.response_metadata["finish_reason"]) == ("w0-0 w0-1 ", "stop")
        assert answer.response_metadata["model_name"] == "policy-v0"
        assert answer.response_metadata["headers"]["x-policy-version"] == "0"
        assert tokens(answer) == (3, 3, 6)
        rating = {"type": "rating", "completion_id": answer.response_metadata["id"], "value": 1}
        assert (await live.http.post("/v1/feedback", json=rating)).status_code == 201
    kept = (await live.http.get("/v1/chat/completions", params={"metadata[app]": "chain"})).json()["data"]
    assert len(kept) == 2
    tree = (await live.http.get("/v1/conversations/tea/tree")).json()["nodes"]
    assert [node["siblings"] for node in tree] == [[tree[1]["completion_id"]], [tree[0]["completion_id"]]]
    assert [message["role"] for message in live.engine.state()["bodies"][-1]["messages"]] == ["system", "user"]


async def test_a_stream_comes_in_pieces_with_its_usage_and_is_judged_as_the_head_of_its_conversation(
    live: Any, model: Any
) -> None:
    chat = model(stream_usage=True, extra_body={"metadata": {"conversation_id": "tea"}})
    pieces = [piece async for piece in chat.astream("hi")]
    assert [piece.content for piece in pieces if piece.content] == ["w0-0 ", "w0-1 "]
    whole = sum(pieces[1:], pieces[0])
    assert tokens(whole) == (3, 3, 6)
    assert (whole.response_metadata["finish_reason"], whole.response_metadata["model_name"]) == ("stop", "policy-v0")
    assert "chatcmpl" not in repr(whole), "LangChain tells the id of a streamed answer: so can the guide"
    head = (await live.http.get("/v1/conversations/tea")).json()["head"]
    rating = {"type": "rating", "completion_id": head, "value": 1}
    assert (await live.http.post("/v1/feedback", json=rating)).status_code == 201
    again = await asyncio.to_thread(lambda: list(chat.stream("hi")))
    assert [piece.content for piece in again] == [piece.content for piece in pieces]


async def test_a_stream_that_is_left_frees_the_engine(live: Any, model: Any, eventually: Any) -> None:
    live.engine.set(hold_at=2)
    stream = model(max_tokens=9).astream("hi")
    while (await anext(stream)).content != "w0-1 ":
        pass
    await stream.aclose()
    await eventually(live.engine_is_free, seconds=1)


async def test_a_tool_is_called_answered_and_told_of(live: Any, model: Any) -> None:
    asked = [HumanMessage("What is the weather in Rome?")]
    called = await model().bind_tools([weather], tool_choice="weather").ainvoke(asked)
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Rome"})
    told = [*asked, called, ToolMessage(await weather.ainvoke(call["args"]), tool_call_id=call["id"])]
    assert (await model().bind_tools([weather]).ainvoke(told)).content == "w0-0 w0-1 "
    sent = live.engine.state()["bodies"][-1]
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"
    assert sent["messages"][2]["content"] == "sunny in Rome"
    streamed = [piece async for piece in model().bind_tools([weather], tool_choice="weather").astream(asked)]
    assert sum(streamed[1:], streamed[0]).tool_calls[0]["args"] == {"city": "Rome"}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of the parsed answer that LangChain copies
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output_is_what_was_asked_for(model: Any, method: str) -> None:
    place = model().with_structured_output(Place, method=method)
    assert await place.ainvoke("Where?") == Place(city="Rome")
    assert [found async for found in place.astream("Where?")][-1] == Place(city="Rome")


async def test_several_questions_at_once_are_answered_in_their_order(model: Any) -> None:
    answers = await model().abatch([f"question {index}" for index in range(8)])
    assert [type(answer) for answer in answers] == [AIMessage] * 8
    assert len({answer.response_metadata["id"] for answer in answers}) == 8


@pytest.mark.parametrize(
    ("more", "kind", "code"),
    [
        ({"api_key": "rk-wrong"}, openai.AuthenticationError, "invalid_api_key"),
        ({"model": "policy-v9"}, openai.NotFoundError, "model_not_found"),
        ({"n": 9}, openai.BadRequestError, None),
        ({"use_responses_api": True}, openai.NotFoundError, "unsupported_endpoint"),
    ],
)
async def test_a_refusal_is_openais_and_is_not_repeated(model: Any, more: Any, kind: type, code: str | None) -> None:
    asked: list[Any] = []

    async def count(request: httpx.Request) -> None:
        asked.append(request)

    async with httpx.AsyncClient(event_hooks={"request": [count]}) as http:
        with pytest.raises(kind) as refusal:
            await model(http_async_client=http, max_retries=2, **more).ainvoke("hi")
    assert refusal.value.code == code
    assert len(asked) == 1


@pytest.mark.parametrize("code", ["queue_full", "rate_limit_exceeded"])
async def test_what_may_succeed_later_is_asked_again(live: Any, model: Any, eventually: Any, code: str) -> None:
    """503 and 429: the only place is taken, and free before ChatOpenAI asks again."""
    key = a_key(live, **({} if code == "queue_full" else {"streams": 1}))
    live.gateway.places.limit = 1 if code == "queue_full" else 100
    live.engine.set(hold_at=2)
    bearer = {"authorization": f"Bearer {key}"}
    before = asyncio.create_task(all_of(live.sse(json=live.body(stream=True, max_tokens=4), headers=bearer)))
    await eventually(lambda: live.engine.state()["active"] == 1)
    seen: list[int] = []

    async def free(response: httpx.Response) -> None:
        seen.append(response.status_code)
        if len(seen) == 1:
            live.engine.set(hold_at=None)
            await before

    async with httpx.AsyncClient(event_hooks={"response": [free]}) as http:
        answer = await model(api_key=key, http_async_client=http, max_retries=2).ainvoke("hi")
    assert answer.content == "w0-0 w0-1 "
    assert seen == [503 if code == "queue_full" else 429, 200]
