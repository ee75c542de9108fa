"""Limits per key: exact under concurrency, shared by processes, free for keys without any; chat outlives Redis."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from feedback.people.keys import ApiKey, Limits
from feedback.store import connect
from serving.chat.request import most_tokens
from serving.http.errors import ApiError
from serving.http.quotas import DAY_S, LEASE_S, Quotas
from tests.conftest import ValkeyProcess

NOON = 20_000.5 * DAY_S  # 2024-10-04, 12:00 UTC


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are exact while Redis answers: a machine that is busy with other things must not look like one without."""
    monkeypatch.setattr("serving.http.quotas.HURRY_S", 30.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def redis(valkey_url: str) -> Redis:
    return connect(valkey_url)


@pytest.fixture
def quotas(redis: Redis, clock: Clock) -> Quotas:
    return Quotas(redis, clock)


def caller(id: str = "key_a", **limits: int) -> ApiKey:
    return ApiKey(id=id, name="ann", role="user", created=0.0, limits=Limits(**limits))


async def passes(quotas: Quotas, key: ApiKey, tokens: int = 0, most: int = 1) -> bool:
    try:
        async with quotas.request(key, most) as allowance:
            allowance.spend(tokens)
    except ApiError as error:
        assert error.status == 429
        return False
    return True


async def refused(quotas: Quotas, key: ApiKey) -> ApiError:
    with pytest.raises(ApiError) as caught:
        async with quotas.request(key):
            pass
    return caught.value


async def test_of_fifty_at_once_exactly_ten_pass(redis: Redis, clock: Clock) -> None:
    processes = [Quotas(redis, clock), Quotas(connect(redis_url(redis)), clock)]
    key = caller(requests_per_minute=10)
    results = await asyncio.gather(*(passes(processes[index % 2], key) for index in range(50)))
    assert sum(results) == 10
    assert processes[0].usage(key)["key_a"].requests == 10, "what is refused counts nowhere"
    assert await passes(processes[0], caller("key_b", requests_per_minute=1)), "each key has limits of its own"


def redis_url(redis: Redis) -> str:
    return f"redis://127.0.0.1:{redis.connection_pool.connection_kwargs['port']}/0"


async def test_a_refusal_says_which_limit_and_exactly_when_it_ends(quotas: Quotas, clock: Clock) -> None:
    key = caller(requests_per_minute=4)  # one every 15 s
    for left in (3, 2, 1, 0):
        async with quotas.request(key) as allowance:
            assert allowance.headers == {
                "x-ratelimit-limit-requests": "4",
                "x-ratelimit-remaining-requests": str(left),
                "x-ratelimit-reset-requests": f"{(4 - left) * 15}.000s",
            }
    clock.now += 0.5
    error = await refused(quotas, key)
    assert error.body["error"]["type"] == "rate_limit_error"
    assert (error.code, error.headers["retry-after"]) == ("rate_limit_exceeded", "15")
    assert "limit of 4 for requests_per_minute" in error.message
    assert error.headers["x-ratelimit-remaining-requests"] == "0"
    clock.now += 14
    assert (await refused(quotas, key)).headers["retry-after"] == "1"
    clock.now += 0.5
    assert await passes(quotas, key)
    assert not await passes(quotas, key), "one has come back, not all"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(limit=st.integers(1, 12), waits=st.lists(st.sampled_from([0.0, 0.001, 0.7, 5.0, 60.0]), min_size=1, max_size=40))
def test_no_more_than_the_bucket_holds_and_gets(valkey_url: str, limit: int, waits: list[float]) -> None:
    """Against the definition: in any span of t seconds at most limit + t * limit / 60 pass, and none of them waits."""
    redis, clock = connect(valkey_url), Clock()
    redis.flushdb()
    quotas, key = Quotas(redis, clock), caller(requests_per_minute=limit)

    async def run() -> None:
        tokens, at = float(limit), clock.now
        for wait in waits:
            clock.now += wait
            tokens, at = min(limit, tokens + (clock.now - at) * limit / 60), clock.now
            expected = tokens >= 1 - 1e-5
            if abs(tokens - 1) > 1e-5:  # microseconds decide there
                assert await passes(quotas, key) == expected
                tokens -= expected

    asyncio.run(run())


async def test_tokens_are_counted_after_the_answer_and_for_the_day(quotas: Quotas, clock: Clock) -> None:
    key = caller(tokens_per_day=100, requests_per_minute=50)
    assert await passes(quotas, key, tokens=60)
    assert await passes(quotas, key, tokens=60), "the last request of the day may exceed it"
    error = await refused(quotas, key)
    assert (error.code, error.headers["retry-after"]) == ("quota_exceeded", str(DAY_S // 2))
    assert error.headers["x-should-retry"] == "false"
    assert "limit of 100 for tokens_per_day" in error.message
    used = quotas.usage(key)["key_a"]
    assert (used.day, used.requests, used.tokens) == ("2024-10-04", 2, 120)
    clock.now += DAY_S / 2
    assert await passes(quotas, key)
    assert quotas.usage(key)["key_a"].tokens == 0


async def test_tokens_of_an_answer_that_broke_off_count(quotas: Quotas) -> None:
    key = caller(tokens_per_day=100)
    with pytest.raises(RuntimeError):
        async with quotas.request(key) as allowance:
            allowance.spend(7)
            raise RuntimeError
    assert quotas.usage(key)["key_a"].tokens == 7


async def test_streams_are_counted_while_they_run(quotas: Quotas) -> None:
    key = caller(streams=2)
    async with quotas.request(key), AsyncExitStack() as second:
        await second.enter_async_context(quotas.request(key))
        assert quotas.usage(key)["key_a"].streams == 2
        error = await refused(quotas, key)
        assert (error.code, error.headers["retry-after"]) == ("rate_limit_exceeded", "1")
        assert "limit of 2 for streams" in error.message
        await second.aclose()
        assert await passes(quotas, key)
    assert quotas.usage(key)["key_a"].streams == 0


async def test_streams_end_with_the_task_that_was_cancelled(quotas: Quotas) -> None:
    key, inside = caller(streams=1), asyncio.Event()

    async def answer() -> None:
        async with quotas.request(key) as allowance:
            allowance.spend(3)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(answer())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    used = quotas.usage(key)["key_a"]
    assert (used.streams, used.tokens) == (0, 3)


async def test_answers_at_once_cannot_spend_a_day_many_times(redis: Redis, clock: Clock, eventually: Any) -> None:
    processes = [Quotas(redis, clock), Quotas(connect(redis_url(redis)), clock)]
    key, written = caller(tokens_per_day=100), asyncio.Event()

    async def answer(index: int) -> ApiError | None:
        try:
            async with processes[index % 2].request(key, 40) as allowance:
                await written.wait()
                allowance.spend(30)
        except ApiError as error:
            return error
        return None

    answers = [asyncio.create_task(answer(index)) for index in range(50)]
    await eventually(lambda: sum(one.done() for one in answers) >= 47)
    assert sum(one.done() for one in answers) == 47, "two hold 40, and one what is left"
    for refusal in (one.result() for one in answers if one.done()):
        assert refusal is not None
        assert (refusal.status, refusal.code) == (429, "rate_limit_exceeded")
        assert refusal.headers == {"retry-after": "1"}, "clients repeat it: not all that is held will be spent"
    written.set()
    assert [error for error in await asyncio.gather(*answers) if error is None] == [None] * 3
    used = processes[0].usage(key)["key_a"]
    assert (used.tokens, used.streams, used.requests) == (90, 0, 3)
    assert await passes(processes[0], key, tokens=10, most=2048), "what was not spent is there again"
    assert (await refused(processes[0], key)).code == "quota_exceeded"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    limit=st.integers(1, 300),
    steps=st.lists(st.tuples(st.integers(1, 120), st.floats(0, 1), st.booleans()), min_size=1, max_size=30),
)
def test_a_day_is_exceeded_by_less_than_one_answer(
    valkey_url: str, limit: int, steps: list[tuple[int, float, bool]]
) -> None:
    """However answers begin and end, each spending no more than it said that it might."""
    redis = connect(valkey_url)
    redis.flushdb()
    quotas, key = Quotas(redis, Clock()), caller(tokens_per_day=limit)

    async def run() -> int:
        async with AsyncExitStack() as all_of_them:
            for most, share, ends in steps:
                context = quotas.request(key, most)
                try:
                    allowance = await context.__aenter__()
                except ApiError:
                    continue
                allowance.spend(int(most * share))
                if ends:
                    await context.__aexit__(None, None, None)
                else:
                    all_of_them.push_async_exit(context)
        return quotas.usage(key)["key_a"].tokens

    assert asyncio.run(run()) < limit + max(most for most, _, _ in steps)


KILLED = """
import asyncio, os, signal, sys
from feedback.people.keys import ApiKey
from feedback.store import connect
from serving.http.quotas import Quotas

async def main():
    key = ApiKey.model_validate_json(sys.argv[2])
    async with Quotas(connect(sys.argv[1]), lambda: float(sys.argv[3])).request(key):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("limits", [{"streams": 1}, {"tokens_per_day": 1}])
async def test_a_gateway_that_was_killed_gives_back_what_it_held(
    quotas: Quotas, clock: Clock, valkey_url: str, limits: dict[str, int]
) -> None:
    key = caller(**limits)
    done = subprocess.run([sys.executable, "-c", KILLED, valkey_url, key.model_dump_json(), str(clock.now)])
    assert done.returncode == -9
    assert not await passes(quotas, key)
    clock.now += LEASE_S
    assert await passes(quotas, key)


@pytest.mark.parametrize("stays", [False, True], ids=["gone before Redis answers", "there when it does"])
async def test_a_lease_that_nobody_heard_of_is_given_back(
    quotas: Quotas, freeze_redis: Any, valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch, eventually: Any,
    stays: bool,
) -> None:  # fmt: skip
    """Limits fail open while Redis stalls; what it makes of the question afterwards must hold nobody up."""
    key = caller(streams=1, tokens_per_day=100)
    assert await passes(quotas, key)  # the script is known, and there are connections
    monkeypatch.setattr("serving.http.quotas.HURRY_S", 0.2)
    admitted, admit = [], quotas._admit
    monkeypatch.setattr(quotas, "_admit", lambda *asked: admitted.append(admit(*asked)))
    freeze_redis()
    async with quotas.request(key) as allowance:
        assert allowance.headers == {}
        if stays:
            valkey.process.send_signal(signal.SIGCONT)
            await eventually(lambda: admitted)
            assert quotas.usage(key)["key_a"].streams == 1
        monkeypatch.setattr("serving.http.quotas.HURRY_S", 30.0 if stays else 0.2)
    valkey.process.send_signal(signal.SIGCONT)
    await eventually(lambda: admitted)
    await eventually(lambda: quotas.usage(key)["key_a"].streams == 0, seconds=5)


async def test_whoever_leaves_while_it_asks_leaves_no_lease(
    quotas: Quotas, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    key, entering, go_on = caller(streams=1), threading.Event(), threading.Event()
    admitted, admit = [], quotas._admit

    def slow(*asked: Any) -> Any:
        entering.set()
        assert go_on.wait(10)
        admitted.append(admit(*asked))

    monkeypatch.setattr(quotas, "_admit", slow)
    asking = asyncio.create_task(passes(quotas, key))
    await asyncio.to_thread(entering.wait)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    go_on.set()
    await eventually(lambda: admitted)
    assert quotas.usage(key)["key_a"].streams == 0


async def test_a_long_stream_keeps_its_lease(
    quotas: Quotas, clock: Clock, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr("serving.http.quotas.LEASE_S", 0.3)  # renewed three times as often
    key, name = caller(streams=1), "quota:key_a:streams"
    async with quotas.request(key):
        [lease] = quotas.redis.zrange(name, 0, -1)
        clock.now += 0.2
        await eventually(lambda: quotas.redis.zscore(name, lease) >= (clock.now + 0.299) * 1e6)
        clock.now += 0.2
        assert not await passes(quotas, key)
    quotas._extend(key, lease)
    assert quotas.usage(key)["key_a"].streams == 0, "a late renewal revives nothing"


async def test_feedback_counts_when_it_was_taken(quotas: Quotas) -> None:
    key = caller(feedback_per_day=10)

    async def judge(fails: bool) -> bool:
        try:
            async with quotas.feedback(key):
                if fails:
                    raise ValueError
        except ApiError as error:
            assert (error.status, error.code, error.headers["retry-after"]) == (429, "quota_exceeded", str(DAY_S // 2))
            return False
        return True

    for _ in range(20):
        with pytest.raises(ValueError):
            await judge(fails=True)
    assert sum(await asyncio.gather(*(judge(fails=False) for _ in range(50)))) == 10
    assert quotas.usage(key)["key_a"].feedback == 10


async def test_a_key_without_limits_costs_no_look_at_redis(quotas: Quotas, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Redis, "execute_command", lambda *a, **k: asked.append(a))
    monkeypatch.setattr("redis.client.Pipeline.execute", lambda *a, **k: asked.append(a) or [])
    async with quotas.request(caller()) as allowance:
        allowance.spend(10)
    async with quotas.feedback(caller()):
        pass
    assert (asked, allowance.headers) == ([], {})


async def test_all_checks_of_a_request_are_one_round_trip(quotas: Quotas, redis: Redis) -> None:
    key = caller(requests_per_minute=9, tokens_per_day=9, streams=9)
    assert await passes(quotas, key)
    before = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    async with quotas.request(key):
        pass
    stats = redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == before + 1


async def test_whatever_a_key_did_is_forgotten_in_time(quotas: Quotas, redis: Redis) -> None:
    key = caller(requests_per_minute=9, tokens_per_day=9, streams=9, feedback_per_day=9)
    async with quotas.feedback(key), quotas.request(key) as allowance:
        allowance.spend(3)
        names = redis.keys("quota:*")
        assert len(names) == 3
        assert all(0 < redis.ttl(name) <= 2 * DAY_S for name in names)


async def test_chat_goes_on_without_redis_and_feedback_does_not(live: Any, valkey: Any) -> None:
    plain = limited(live, requests_per_minute=1, streams=1, feedback_per_day=1)
    [target] = (await live.chat("hi", key=plain, max_tokens=2)).json()["ratchet"]["completion_ids"]
    valkey.kill()
    for _ in range(3):
        assert (await live.chat("hi", key=plain, max_tokens=2)).status_code == 200
    body = {"type": "rating", "completion_id": target, "value": 1}
    headers = {"authorization": f"Bearer {plain}"}
    assert (await live.http.post("/v1/feedback", json=body, headers=headers)).status_code == 503


def limited(live: Any, **limits: int) -> str:
    return str(live.gateway.keys.create(name="ann", role="user", limits=Limits(**limits)))


async def test_the_sdk_sees_a_limit_as_it_sees_openais(live: Any) -> None:
    client = live.sdk.with_options(api_key=limited(live, requests_per_minute=2))
    for left in ("1", "0"):
        raw = await client.chat.completions.with_raw_response.create(**live.body(max_tokens=2))
        assert raw.headers["x-ratelimit-limit-requests"] == "2"
        assert raw.headers["x-ratelimit-remaining-requests"] == left
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**live.body(max_tokens=2))
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_costs_its_prompt_and_its_tokens(live: Any, stream: bool, eventually: Any) -> None:
    plain = limited(live, tokens_per_day=1000)
    client = live.sdk.with_options(api_key=plain)
    if stream:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = [
            chunk async for chunk in await client.chat.completions.create(**live.body("hey", max_tokens=5, **options))
        ]
        usage = chunks[-1].usage
    else:
        usage = (await client.chat.completions.create(**live.body("hey", max_tokens=5))).usage
    key = live.gateway.keys.find(plain)
    await eventually(lambda: live.gateway.quotas.usage(key)[key.id].tokens > 0)
    me = (await live.http.get("/v1/me", headers={"authorization": f"Bearer {plain}"})).json()
    assert me["usage"]["tokens"] == usage.prompt_tokens + usage.completion_tokens
    assert me["usage"]["requests"] == 1


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({}, 2048),
        ({"max_tokens": 100}, 400),
        ({"max_tokens": 100, "n": 3}, 600),
        ({"max_completion_tokens": 10, "max_tokens": None}, 310),
        ({"n": 8}, 8 * 2048),
        ({"max_tokens": 2000}, 2048),
    ],
)
def test_what_an_answer_may_cost_at_most(asked: dict[str, Any], most: int) -> None:
    assert most_tokens(asked, 300, 2048) == most


async def test_streams_at_once_share_what_is_left_of_the_day(live: Any, eventually: Any) -> None:
    plain = limited(live, tokens_per_day=400)
    live.engine.set(hold_at=1)
    asked = [asyncio.create_task(live.chat("hi", key=plain, max_tokens=40)) for _ in range(20)]
    await eventually(lambda: sum(one.done() for one in asked) >= 10)
    refusals = [one.result() for one in asked if one.done()]
    assert {(each.status_code, each.json()["error"]["code"]) for each in refusals} == {(429, "rate_limit_exceeded")}
    live.engine.set(hold_at=None)
    answers = [answer for answer in await asyncio.gather(*asked) if answer.status_code == 200]
    assert 1 <= len(answers) < 10
    assert (await live.chat("hi", key=plain, max_tokens=2)).status_code == 200


async def test_a_stream_holds_its_place_until_its_client_is_gone(live: Any, eventually: Any) -> None:
    plain = limited(live, streams=1)
    live.engine.set(tick=0.05)
    body, headers = live.body(stream=True, max_tokens=500), {"authorization": f"Bearer {plain}"}
    async with live.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status_code == 200
        refusal = await live.chat("hi", key=plain)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert (await live.chat("hi", key=live.user_key, max_tokens=1)).status_code == 200

    async def free() -> bool:
        return (await live.chat("hi", key=plain, max_tokens=1)).status_code == 200

    await eventually(free, seconds=5)


async def test_feedback_over_the_limit_is_refused_and_a_bad_one_costs_nothing(live: Any) -> None:
    plain = limited(live, feedback_per_day=1)
    ids = (await live.chat("hi", key=plain, n=2, max_tokens=2)).json()["ratchet"]["completion_ids"]
    rate: Callable[[str], Awaitable[Any]] = lambda id: live.http.post(  # noqa: E731
        "/v1/feedback",
        json={"type": "rating", "completion_id": id, "value": 1},
        headers={"authorization": f"Bearer {plain}"},
    )
    assert [(await rate(id)).status_code for id in ("chatcmpl-none:0", ids[0], ids[1])] == [404, 201, 429]
    assert len(live.ledger.standing(live.ledger.watermark())) == 1
