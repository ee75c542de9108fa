"""OpenAI's SDK, sync and async: which class each refusal is, and what it repeats by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest

from feedback.people.keys import Limits
from tests.conftest import free_port

# Of one who has not seen that policy-v0 serves.
LATE = {"to": "policy-v1", "expected": "policy-v1"}


async def nothing() -> None:
    pass


@dataclass
class Sdk:
    """One client of either kind, beside the gateway's loop; it counts what it sends and reacts to what is refused."""

    live: Any
    sync: bool
    sent: int = 0
    on_refusal: Callable[[], Awaitable[None]] = nothing
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    async def post(self, path: str, *, key: str | None = None, body: Any, **options: Any) -> Any:
        chosen = {"base_url": f"{self.live.url}/v1", "api_key": key or self.live.admin_key, **options}
        if self.sync:
            return await asyncio.to_thread(self._post_sync, path, body, chosen)
        async with httpx.AsyncClient(event_hooks={"response": [self._seen]}) as http:
            client = openai.AsyncOpenAI(http_client=http, **chosen)
            return await client.post(path, body=body, cast_to=object)

    def _post_sync(self, path: str, body: Any, chosen: dict[str, Any]) -> Any:
        def seen(response: httpx.Response) -> None:
            asyncio.run_coroutine_threadsafe(self._seen(response), self.loop).result()

        with httpx.Client(event_hooks={"response": [seen]}) as http:
            return openai.OpenAI(http_client=http, **chosen).post(path, body=body, cast_to=object)

    async def _seen(self, response: httpx.Response) -> None:
        self.sent += 1
        if response.status_code >= 400:
            await self.on_refusal()

    async def chat(self, text: str = "hi", *, key: str | None = None, max_retries: int = 0, **more: Any) -> Any:
        body = self.live.body(text, **{"max_tokens": 2, **more})
        return await self.post("/chat/completions", key=key, body=body, max_retries=max_retries)


@pytest.fixture(params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, live: Any) -> AsyncIterator[Sdk]:
    yield Sdk(live, sync=request.param == "sync")


def a_key(live: Any, **limits: int) -> str:
    return str(live.gateway.keys.create(name="ann", role="user", limits=Limits(**limits)))


async def test_each_refusal_has_its_own_class(sdk: Sdk) -> None:
    live = sdk.live
    live.shelf.publish(1, stable=False)
    [left], [right] = await live.completion_ids("one"), await live.completion_ids("two")
    unlike = {"type": "comparison", "left": left, "right": right, "winner": "left"}

    async def refused(kind: type[openai.APIStatusError], code: str | None, asking: Awaitable[Any]) -> Any:
        with pytest.raises(kind) as refusal:
            await asking
        assert (type(refusal.value), refusal.value.code) == (kind, code)
        assert refusal.value.request_id.startswith("req_")
        return refusal.value

    assert (await refused(openai.BadRequestError, None, sdk.chat(n=9))).param == "n"
    await refused(openai.AuthenticationError, "invalid_api_key", sdk.chat(key="rk-wrong"))
    back = sdk.post("/rollback", key=live.user_key, body=LATE)
    await refused(openai.PermissionDeniedError, "insufficient_role", back)
    await refused(openai.NotFoundError, "model_not_found", sdk.chat(model="policy-v9"))
    await refused(openai.ConflictError, "conflict", sdk.post("/rollback", body=LATE, max_retries=0))
    await refused(openai.UnprocessableEntityError, "different_prompts", sdk.post("/feedback", body=unlike))
    limited = a_key(live, requests_per_minute=1)
    await sdk.chat(key=limited)
    await refused(openai.RateLimitError, "rate_limit_exceeded", sdk.chat(key=limited))
    live.gateway.places.limit = 0
    await refused(openai.InternalServerError, "queue_full", sdk.chat())


async def test_no_answer_at_all_has_its_own_class_too(sdk: Sdk) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(openai.APIConnectionError):
        await sdk.post("/chat/completions", body={}, base_url=nowhere, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        await sdk.post("/chat/completions", body=sdk.live.body("silence"), timeout=0.5, max_retries=0)
    assert sdk.sent == 0


async def test_what_cannot_succeed_is_asked_once(sdk: Sdk) -> None:
    """By itself the SDK repeats every 409 and 429."""
    sdk.live.shelf.publish(1, stable=False)
    with pytest.raises(openai.ConflictError):
        await sdk.post("/rollback", body=LATE, max_retries=2)
    assert sdk.sent == 1
    spent = a_key(sdk.live, tokens_per_day=1)
    await sdk.chat(key=spent)
    with pytest.raises(openai.RateLimitError, match="tokens_per_day"):
        await sdk.chat(key=spent, max_retries=2)
    assert sdk.sent == 3


@pytest.mark.parametrize("code", ["queue_full", "rate_limit_exceeded"])
async def test_what_may_succeed_later_does(sdk: Sdk, eventually: Any, code: str) -> None:
    """503 and 429: the only place is taken, and free before the SDK has waited as long as it was told to."""
    live, full = sdk.live, code == "queue_full"
    key = a_key(live, **({} if full else {"streams": 1}))
    live.gateway.places.limit = 1 if full else 100
    live.engine.set(hold_at=2)
    bearer = {"authorization": f"Bearer {key}"}
    before = asyncio.create_task(all_of(live.sse(json=live.body(stream=True, max_tokens=4), headers=bearer)))
    await eventually(lambda: live.engine.state()["active"] == 1)
    with pytest.raises(openai.APIStatusError) as refusal:
        await sdk.chat(key=key)
    assert (refusal.value.code, refusal.value.response.headers["retry-after"]) == (code, "1")

    async def free() -> None:
        live.engine.set(hold_at=None)
        assert (await before)[-1].data == "[DONE]"

    sdk.sent, sdk.on_refusal = 0, free
    answer = await sdk.chat(key=key, max_retries=2)
    assert answer["choices"][0]["message"]["content"] == "w0-0 "
    assert sdk.sent == 2


async def all_of(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]
