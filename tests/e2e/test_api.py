"""The openai SDK against the whole product: every call that it has for us, with a real model behind it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.conftest import Service
from tests.guide import follow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MESSAGES: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
              "additionalProperties": False}  # fmt: skip
WEATHER: Any = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": PARAMETERS}}
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": PARAMETERS}}


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[OpenAI]:
    with service.client() as client:
        yield client


def ask(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "policy", "messages": MESSAGES, "max_tokens": 8, **more})


def test_an_answer_says_who_wrote_it(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="policy@stable", messages=MESSAGES, max_tokens=8)
    answer: Any = raw.parse()
    assert raw.headers["x-policy-version"] == str(answer.ratchet["policy_version"])
    assert answer.model == f"policy-v{answer.ratchet['policy_version']}"
    assert answer.usage.completion_tokens <= 8
    assert answer.ratchet["stored"]
    assert {answer.model, "policy", "policy@stable"} == {model.id for model in client.models.list()}
    assert client.models.retrieve(answer.model).id == answer.model


async def test_streams_say_the_same_as_whole_answers_sync_and_async(service: Service, client: OpenAI) -> None:
    wanted: Any = {"model": "policy", "messages": MESSAGES, "max_tokens": 8, "temperature": 0, "seed": 1}
    whole = client.chat.completions.create(**wanted)
    chunks = list(client.chat.completions.create(**wanted, stream=True, stream_options={"include_usage": True}))
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0) as sdk:
        later = [chunk async for chunk in await sdk.chat.completions.create(**wanted, stream=True)]
        again = await sdk.chat.completions.create(**wanted)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    for streamed in (chunks, later):
        text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        assert text == whole.choices[0].message.content == again.choices[0].message.content


def test_what_shapes_an_answer_reaches_the_engine(client: OpenAI) -> None:
    several = ask(client, n=3, temperature=1.0, logprobs=True, top_logprobs=2, frequency_penalty=0.5)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len(several.choices[0].logprobs.content[0].top_logprobs) == 2
    seeded = [ask(client, temperature=1.0, seed=7).choices[0].message.content for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert "a" not in (ask(client, stop=["a"], max_tokens=32).choices[0].message.content or "")


def test_structured_output_and_tools(client: OpenAI) -> None:
    made = ask(client, response_format=SCHEMA, max_tokens=64, temperature=0).choices[0].message.content
    assert set(json.loads(made)) == {"city"}
    forced = {"tools": [WEATHER], "max_tokens": 96, "temperature": 0, "tool_choice": "required"}
    answer = ask(client, **forced)
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, set(json.loads(call.function.arguments))) == ("weather", {"city"})
    pieces = [chunk.choices[0].delta.tool_calls or [] for chunk in ask(client, **forced, stream=True)]
    arguments = "".join(piece.function.arguments or "" for calls in pieces for piece in calls)
    assert arguments == call.function.arguments
    kept: Any = client.chat.completions.retrieve(answer.id)
    assert kept.choices[0].message.tool_calls[0].function.arguments == call.function.arguments
    told = [*MESSAGES, answer.choices[0].message.model_dump(exclude_none=True, include={"role", "tool_calls"}),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]  # fmt: skip
    assert ask(client, messages=told, tools=[WEATHER]).choices[0].message.content


def test_stored_answers_are_found_rated_and_deleted(service: Service, client: OpenAI) -> None:
    answer = ask(client, metadata={"page": "api-test"}, store=True)
    assert [one.id for one in client.chat.completions.list(metadata={"page": "api-test"})] == [answer.id]
    kept = client.chat.completions.retrieve(answer.id).choices[0].message
    assert (kept.role, kept.content) == ("assistant", answer.choices[0].message.content)
    assert [one.content for one in client.chat.completions.messages.list(answer.id)] == [MESSAGES[0]["content"]]
    client.chat.completions.update(answer.id, metadata={"page": "api-test", "feedback": "up"})
    [said] = service.get(f"/v1/feedback?completion_id={answer.id}:0")["data"]
    assert said["judgement"]["value"] == 1
    assert client.chat.completions.delete(answer.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(answer.id)
    assert service.get(f"/v1/feedback?completion_id={answer.id}:0")["data"] == []
    private: Any = ask(client, store=False)
    assert not private.ratchet["stored"]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(private.id)


async def test_stored_answers_are_found_changed_and_deleted_by_the_async_sdk(service: Service) -> None:
    wanted: Any = {"model": "policy", "messages": MESSAGES, "max_tokens": 8, "metadata": {"page": "async"}}
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=service.key, timeout=120, max_retries=0) as sdk:
        whole = await sdk.chat.completions.create(**wanted)
        chunks = [chunk async for chunk in await sdk.chat.completions.create(**wanted, stream=True)]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert [one.id async for one in sdk.chat.completions.list(metadata={"page": "async"})] == [
            whole.id, chunks[0].id,
        ]  # fmt: skip
        for id, shown in ((whole.id, whole.choices[0].message.content), (chunks[0].id, text)):
            assert (await sdk.chat.completions.retrieve(id)).choices[0].message.content == shown
            told = [one.content async for one in sdk.chat.completions.messages.list(id)]
            assert told == [MESSAGES[0]["content"]]
            changed = await sdk.chat.completions.update(id, metadata={"page": "changed"})
            assert changed.metadata == {"page": "changed"}
            assert (await sdk.chat.completions.delete(id)).deleted
            with pytest.raises(openai.NotFoundError):
                await sdk.chat.completions.retrieve(id)
        assert [one.id async for one in sdk.chat.completions.list(metadata={"page": "changed"})] == []


def test_the_readme_can_be_followed(service: Service, tmp_path: Path) -> None:
    follow(service.url, service.key, tmp_path)


def test_answers_side_by_side_are_blind_until_the_vote(service: Service) -> None:
    body = {"model": "auto", "k": 2, "messages": MESSAGES, "max_tokens": 8, "temperature": 1.0}
    laid = service.post("/v1/comparisons", body)
    assert "policy-v" not in laid.text and "x-policy-version" not in laid.headers
    id = laid.json()["ratchet"]["comparison_id"]
    vote = service.post("/v1/feedback", {"type": "comparison", "comparison_id": id, "winner": "left"})
    assert (vote.status_code, set(vote.json()["reveal"])) == (201, {"left", "right"})
    winner = vote.json()["continue_from"]
    conversation = laid.json()["ratchet"]["conversation_id"]
    assert service.get(f"/v1/conversations/{conversation}")["head"] == winner


def test_the_sdk_raises_its_own_errors_and_repeats_only_what_may_help(service: Service, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(client, model="policy-v99")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, messages=[{"role": "user", "content": "word " * 3000}])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError):
        ask(client, temperature=9)
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{service.url}/v1", api_key="rk-wrong", max_retries=0).models.list()
    with pytest.raises(openai.NotFoundError, match="chat completions only"):
        client.responses.create(model="policy", input="hi")
    asked: list[str] = []
    counting = httpx.Client(event_hooks={"request": [lambda request: asked.append(request.url.path)]})
    with OpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=2, http_client=counting) as patient:
        with pytest.raises(openai.BadRequestError):
            ask(patient, temperature=9)
        assert len(asked) == 1
        serving = ask(patient).model
        asked.clear()
        late = {"to": serving, "expected": "policy-v99"}
        with pytest.raises(openai.ConflictError):  # a kind that the SDK repeats unless it is told not to
            patient.post("/rollback", body=late, cast_to=object)
        assert len(asked) == 1, "what cannot succeed was repeated"


def test_a_prompt_may_fill_the_context_but_for_one_token(client: OpenAI) -> None:
    """One more is a 400, and the engine lives on."""
    limit = 1024

    def prompt(words: int) -> Any:
        return [{"role": "user", "content": "word" + " word" * words}]

    used = ask(client, messages=prompt(100), max_tokens=1).usage.prompt_tokens
    fitting = 100 + limit - 1 - used
    assert ask(client, messages=prompt(fitting), max_tokens=1).usage.prompt_tokens == limit - 1
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, messages=prompt(fitting + 1), max_tokens=1)
    assert refused.value.code == "context_length_exceeded"
    assert ask(client).choices
