"""One request answered: what the engine is asked, and its answer as a whole or as a stream."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from feedback import records
from feedback.archive import Archive
from feedback.people.keys import ApiKey
from feedback.records import Offer
from serving.chat.request import most_tokens
from serving.engine.server import Body, EngineDown, EngineRefused, is_clients
from serving.engine.swap_gate import Served
from serving.gateway import Gateway
from serving.http.auth import unauthorized
from serving.http.errors import ApiError
from serving.http.quotas import Allowance
from serving.ledger.recorder import Ticket
from serving.logs import note_response
from serving.metrics import Pace
from serving.release.arms import Arm
from serving.streams.arrivals import Arrivals, Source
from serving.streams.event_stream import DONE, EventStream, event
from serving.streams.failures import failure
from serving.streams.observing import Watching
from serving.streams.relay import Relay, UnprovenWeights
from serving.streams.replay import Replay
from serving.streams.whole import whole

T = TypeVar("T")

# An answer that may still move says nothing for so many times 15 s before its client hears that it is under way.
MOVABLE_SILENCES = 3

log = logging.getLogger("serving.chat")


@dataclass(frozen=True)
class Question:
    """What an arm's engine is asked of one policy; its choice i is the answer's choice `places[i]`."""

    body: Body
    arm: Arm
    served: Served
    places: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How a request will be answered; `resumable` streams go on without their client for a while."""

    ticket: Ticket
    questions: tuple[Question, ...]
    resumable: bool = False
    offer: Offer | None = None


Admitted = Mapping[records.Arm, Served]


@dataclass(frozen=True)
class Way:
    """One way to answer: the arms that it takes, and the plan, made once they have let it in; may raise ApiError.

    It is `moved` when it stands in for another one whose policy is lost.
    """

    arms: tuple[Arm, ...]
    plan: Callable[[Admitted], Plan]
    moved: bool = False


@dataclass(frozen=True)
class Begun:
    """An answer of which something has come: all of it (`whole`), or the `first` of its batches."""

    plan: Plan
    relay: Relay
    work: AsyncExitStack
    batches: AsyncIterator[list[Body]]
    first: list[Body]
    whole: Body | None


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def answer(
    request: Request, gateway: Gateway, caller: ApiKey, body: Body, ways: Callable[[], Sequence[Way]]
) -> Response:
    """A checked body answered in the first of the ways that leads to something. Raises ApiError."""
    most = most_tokens(body, len(await request.body()), gateway.settings.max_model_len)
    try:
        return await unless_gone(request, _answer(gateway, caller, most, ways))
    except ClientGone:
        return Response(status_code=499)
    except (EngineDown, EngineRefused, UnprovenWeights) as error:
        raise failure(error) from error


async def _answer(gateway: Gateway, caller: ApiKey, most: int, ways: Callable[[], Sequence[Way]]) -> Response:
    """Until the first chunk is there errors are plain HTTP errors, in a stream too."""
    async with AsyncExitStack() as stack:
        stack.enter_context(gateway.places.taken())
        allowance = await stack.enter_async_context(gateway.quotas.request(caller, most))
        pace = stack.enter_context(gateway.metrics.answering())
        begun = await _begun(stack, gateway, ways(), allowance, pace)
        relay = begun.relay
        if begun.whole is not None:
            return JSONResponse(begun.whole, headers=headers_of(relay) | allowance.headers)
        kept = stack.pop_all()

    async def closed() -> None:
        """First the engine's slot; the answer is listed until it is kept, so that a vote finds the one or the other."""
        async with kept:
            await begun.work.aclose()
            if not relay.settled.is_set():
                await relay.keep_partial()
                relay.settled.set()

    events = _events(gateway, caller, begun.first, begun.batches, closed)
    headers = headers_of(relay) | allowance.headers
    if begun.plan.resumable:
        replay = gateway.replays.add(begun.plan.ticket, Replay(events, relay.stop, closed))
        return EventStream(replay.follow(0), replay.left, headers)
    return EventStream(events, closed, headers)


async def _begun(
    stack: AsyncExitStack, gateway: Gateway, ways: Sequence[Way], allowance: Allowance, pace: Pace
) -> Begun:
    """What the first of the ways leads to; while nothing was shown the next one may still stand in for it."""
    *others, last = ways
    for way in others:
        try:
            return await _begun_by(stack, gateway, way, allowance, pace, silences=MOVABLE_SILENCES)
        except Exception as error:
            if not _may_move(error):
                raise
            log.warning("an answer moves to the stable policy: %r", error)
    return await _begun_by(stack, gateway, last, allowance, pace)


async def _begun_by(
    stack: AsyncExitStack, gateway: Gateway, way: Way, allowance: Allowance, pace: Pace, *, silences: int = 0
) -> Begun:
    """An answer at work for as long as the stack is open, if it begins; else nothing is left of it."""
    async with AsyncExitStack() as attempt:
        with gateway.waiting.taken():
            admitted = {arm.name: await attempt.enter_async_context(arm.gate.admission()) for arm in way.arms}
        plan = way.plan(admitted)
        gateway.metrics.asked(admitted, moved=way.moved)
        note_response(plan.ticket.response_id)
        seen = attempt.enter_context(gateway.observing.request(plan.ticket, pace))
        if plan.offer is not None:
            await attempt.enter_async_context(_offered(gateway.archive, plan.offer, seen))
        work = await attempt.enter_async_context(AsyncExitStack())
        seen.relay = relay = await _relay(work, gateway, plan, pace)
        attempt.enter_context(gateway.running.listed(relay))
        attempt.callback(lambda: allowance.spend(relay.usage["total_tokens"]))
        batches, first, all_of_it = relay.batches(), [], None
        if plan.ticket.streamed:
            attempt.enter_context(gateway.metrics.streams_open.track_inprogress())
            first = await anext(batches)
            while not first and (silences := silences - 1) >= 0:
                first = await anext(batches)
        else:
            all_of_it = await whole(relay)
        await stack.enter_async_context(attempt.pop_all())
    return Begun(plan, relay, work, batches, first, all_of_it)


@asynccontextmanager
async def _offered(archive: Archive, offer: Offer, seen: Watching) -> AsyncIterator[None]:
    """Kept before it is shown: who wrote which must be known at the vote. Nobody votes on what nobody saw."""
    adding = asyncio.ensure_future(run_in_threadpool(archive.add_offer, offer))
    try:
        await asyncio.shield(adding)
        yield
    finally:
        await asyncio.wait({adding})  # a hang-up ends the wait for it, not its work
        if adding.exception() is None and not (seen.relay and seen.relay.known):
            with suppress(RedisError):
                await run_in_threadpool(archive.drop_offer, offer)


def _may_move(error: Exception) -> bool:
    """Whether another arm may do better: what is wrong with the request is wrong on every one."""
    if isinstance(error, ApiError):
        return error.status == 503
    return not (isinstance(error, RedisError) or isinstance(error, EngineRefused) and is_clients(error))


async def _relay(stack: AsyncExitStack, gateway: Gateway, plan: Plan, pace: Pace) -> Relay:
    """The engines at work on a plan, for as long as the stack is open."""
    taints = {question.arm.gate: question.arm.gate.taints for question in plan.questions}
    sources = [await _source(stack, question) for question in plan.questions]
    arrivals = Arrivals(sources)
    stack.push_async_callback(arrivals.close)
    return Relay(plan.ticket, arrivals, gateway.recorder, pace, taints=taints)


async def _source(stack: AsyncExitStack, question: Question) -> Source:
    gate = question.arm.gate
    try:
        batches = await stack.enter_async_context(question.arm.engine.stream(question.body))
    except (EngineDown, EngineRefused) as error:
        gate.blame(error)
        raise
    straight = question.places == tuple(range(len(question.places)))
    return Source(batches if straight else _placed(batches, question.places), question.served, gate)


async def _placed(batches: AsyncIterator[list[Body]], places: tuple[int, ...]) -> AsyncIterator[list[Body]]:
    """Choices under the numbers by which the client knows them."""
    async for batch in batches:
        for chunk in batch:
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
        yield [event(failure(error).body)]


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
