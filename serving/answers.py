"""One request answered: what the engine is asked, and its answer as a whole or as a stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from feedback.keys import ApiKey
from feedback.records import Offer
from serving.arrivals import Arrivals, Source
from serving.auth import unauthorized
from serving.chat_request import most_tokens
from serving.engine import Body, EngineDown, EngineRefused
from serving.event_stream import DONE, EventStream, event
from serving.failures import failure
from serving.gateway import Gateway
from serving.logs import note_response
from serving.metrics import Pace
from serving.recorder import Ticket
from serving.relay import Relay, UnprovenWeights
from serving.replay import Replay
from serving.swap_gate import Served
from serving.whole import whole

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What the engine is asked of one policy; its choice i is the answer's choice `places[i]`."""

    body: Body
    served: Served
    places: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How a request will be answered; `resumable` streams go on without their client for a while."""

    ticket: Ticket
    questions: tuple[Question, ...]
    resumable: bool = False
    offer: Offer | None = None


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def answer(
    request: Request, gateway: Gateway, caller: ApiKey, body: Body, plan: Callable[[Served], Plan]
) -> Response:
    """The plan for the policy that serves, carried out for a checked body. Raises ApiError."""
    most = most_tokens(body, len(await request.body()), gateway.settings.max_model_len)
    try:
        return await unless_gone(request, _answer(gateway, caller, most, plan))
    except ClientGone:
        return Response(status_code=499)
    except (EngineDown, EngineRefused, UnprovenWeights) as error:
        raise failure(gateway, error) from error


async def _answer(gateway: Gateway, caller: ApiKey, most: int, make_plan: Callable[[Served], Plan]) -> Response:
    """Until the first chunk is there errors are plain HTTP errors, in a stream too."""
    async with AsyncExitStack() as stack:
        stack.enter_context(gateway.places.taken())
        allowance = await stack.enter_async_context(gateway.quotas.request(caller, most))
        pace = stack.enter_context(gateway.metrics.answering())
        with gateway.waiting.taken():
            admitted = await stack.enter_async_context(gateway.gate.admission())
        plan = make_plan(admitted)
        if plan.offer is not None:  # kept before it is shown: who wrote which must be known at the vote
            await run_in_threadpool(gateway.archive.add_offer, plan.offer)
        note_response(plan.ticket.response_id)
        work = await stack.enter_async_context(AsyncExitStack())
        relay = await _relay(work, gateway, plan, pace)
        stack.enter_context(gateway.running.listed(relay))
        stack.callback(lambda: allowance.spend(relay.usage["total_tokens"]))
        if not plan.ticket.streamed:
            return JSONResponse(await whole(relay), headers=headers_of(relay) | allowance.headers)
        stack.enter_context(gateway.metrics.streams_open.track_inprogress())
        batches = relay.batches()
        first = await anext(batches)
        kept = stack.pop_all()

    async def closed() -> None:
        """First the engine's slot; the answer is listed until it is kept, so that a vote finds the one or the other."""
        async with kept:
            await work.aclose()
            if not relay.settled.is_set():
                await relay.keep_partial()
                relay.settled.set()

    events, headers = _events(gateway, caller, first, batches, closed), headers_of(relay) | allowance.headers
    if plan.resumable:
        replay = gateway.replays.add(plan.ticket, Replay(events, relay.stop, closed))
        return EventStream(replay.follow(0), replay.left, headers)
    return EventStream(events, closed, headers)


async def _relay(stack: AsyncExitStack, gateway: Gateway, plan: Plan, pace: Pace) -> Relay:
    """The engine at work on a plan, for as long as the stack is open."""
    taints = gateway.gate.taints
    sources = []
    for question in plan.questions:
        batches = await stack.enter_async_context(gateway.engine.stream(question.body))
        sources.append(Source(_placed(batches, question.places), question.served))
    arrivals = Arrivals(sources, gateway.gate)
    stack.push_async_callback(arrivals.close)
    return Relay(plan.ticket, arrivals, gateway.gate, gateway.recorder, pace, taints=taints)


async def _placed(batches: AsyncIterator[list[Body]], places: tuple[int, ...]) -> AsyncIterator[list[Body]]:
    """Choices under the numbers by which the client knows them."""
    straight = places == tuple(range(len(places)))
    async for batch in batches:
        for chunk in () if straight else batch:
            for choice in chunk.get("choices", ()):
                choice["index"] = places[choice["index"]]
        yield batch


async def _events(
    gateway: Gateway, caller: ApiKey, first: list[Body], rest: AsyncIterator[list[Body]],
    closed: Callable[[], Awaitable[None]],
) -> AsyncIterator[list[bytes]]:  # fmt: skip
    """Server-sent events; an error ends them without [DONE], and a key that was revoked is one."""
    try:
        yield [event(chunk) for chunk in first]
        async for batch in rest:
            if not await gateway.auth.still_valid(caller):
                raise unauthorized()
            yield [event(chunk) for chunk in batch]
        await closed()  # whoever has read the last word may ask again: places and limits are free by then
        yield [DONE]
    except Exception as error:  # the status is sent: the client learns of a fault here or nowhere
        gateway.metrics.streams_broken.inc()
        yield [event(failure(gateway, error).body)]


def headers_of(relay: Relay) -> dict[str, str]:
    """Who writes it, once that is known and unless it is to be judged blindly."""
    if relay.served is None or relay.ticket.blind:
        return {}
    return {"x-policy-version": str(relay.served.version)}


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; it is cancelled and ClientGone raised when the client hangs up first."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for pending in (task, gone):
            pending.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
