"""Keys over HTTP: who may manage them, what is answered, what is never shown; and what guessing brings."""

import asyncio
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from feedback.people.keys import KeyChange, KeyRing, Limits
from feedback.store import connect
from serving.http.auth import GUESSES, Authenticator, Guesses
from serving.http.errors import ApiError

ROUTES = [
    ("POST", "/v1/keys"), ("GET", "/v1/keys"), ("GET", "/v1/keys/{id}"), ("POST", "/v1/keys/{id}"),
    ("POST", "/v1/keys/{id}/rotate"), ("DELETE", "/v1/keys/{id}"),
]  # fmt: skip


def bearer(plain: str) -> dict[str, str]:
    return {"authorization": f"Bearer {plain}"}


async def made(live: Any, **body: Any) -> dict[str, Any]:
    response = await live.http.post("/v1/keys", json={"name": "ann", **body})
    assert response.status_code == 201, response.text
    return dict(response.json())


async def status(live: Any, plain: str, path: str = "/v1/models") -> int:
    return int((await live.http.get(path, headers=bearer(plain))).status_code)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found in Redis is never fresh: changes show at once."""
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)


async def test_a_key_is_made_shown_once_seen_and_deleted(live: Any, impatient: None) -> None:
    until = time.time() + 3600
    key = await made(live, role="rater", expires=until, limits={"streams": 2})
    plain = key.pop("key")
    assert await status(live, plain) == 200
    limits = {"requests_per_minute": None, "tokens_per_day": None, "streams": 2, "feedback_per_day": None}
    facts = {"object": "key", "name": "ann", "role": "rater", "expires": until, "limits": limits, "last_rotated": None}
    assert facts.items() <= key.items()
    seen = await live.http.get(f"/v1/keys/{key['id']}")
    used = seen.json().pop("usage")
    assert seen.json() | {"usage": None} == key | {"usage": None}
    assert (used["requests"], used["tokens"], used["feedback"], used["streams"]) == (0, 0, 0, 0)
    assert plain not in seen.text + (await live.http.get("/v1/keys")).text
    deleted = await live.http.delete(f"/v1/keys/{key['id']}")
    assert (deleted.status_code, deleted.json()) == (200, {"object": "key.deleted", "id": key["id"], "deleted": True})
    assert await status(live, plain) == 401
    for method, path in ROUTES[2:]:
        gone = await live.http.request(method, path.format(id=key["id"]), json={})
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "key_not_found"), path


async def test_keys_are_listed_in_pages_that_survive_deletion(live: Any) -> None:
    for index in range(5):
        await made(live, name=f"k{index}")
    all_ids = [key["id"] for key in (await live.http.get("/v1/keys")).json()["data"]]
    assert len(all_ids) == 7
    first = (await live.http.get("/v1/keys", params={"limit": 3})).json()
    assert (first["object"], first["has_more"], first["first_id"], first["last_id"]) == (
        "list", True, all_ids[0], all_ids[2],
    )  # fmt: skip
    live.gateway.keys.revoke(first["last_id"])
    second = (await live.http.get("/v1/keys", params={"limit": 4, "after": first["last_id"]})).json()
    assert [key["id"] for key in second["data"]] == all_ids[3:]
    assert second["has_more"] is False
    empty = (await live.http.get("/v1/keys", params={"after": all_ids[-1]})).json()
    assert (empty["data"], empty["has_more"], empty["first_id"], empty["last_id"]) == ([], False, None, None)
    assert (await live.http.get("/v1/keys", params={"limit": 0})).json()["error"]["param"] == "limit"


async def test_a_key_is_changed_by_what_the_body_gives(live: Any) -> None:
    key = await made(live, limits={"streams": 2, "feedback_per_day": 9})
    url = f"/v1/keys/{key['id']}"
    changed = (await live.http.post(url, json={"name": "anna", "limits": {"streams": None}})).json()
    assert (changed["name"], changed["role"]) == ("anna", "user")
    assert (changed["limits"]["streams"], changed["limits"]["feedback_per_day"]) == (None, 9)
    assert "key" not in changed
    assert (await live.http.post(url, json={"role": "rater"})).json()["role"] == "rater"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"), ({"name": ""}, "name"), ({"name": 7}, "name"), ({"name": "a\x00b"}, "name"),
        ({"name": "a", "role": "king"}, "role"), ({"name": "a", "expires": 1.0}, "expires"),
        ({"name": "a", "expires": "tomorrow"}, "expires"), ({"name": "a", "limits": {"streams": 0}}, "limits.streams"),
        ({"name": "a", "limits": 3}, "limits"), ({"name": "a", "limits": {"x": 3}}, "limits.x"),
        ({"name": "a", "id": "key_mine"}, "id"), ({"name": "a", "key": "rk-mine"}, "key"),
    ],
)  # fmt: skip
async def test_a_key_that_cannot_be_is_refused_with_the_field(live: Any, body: dict[str, Any], param: str) -> None:
    before = len(live.gateway.keys.list())
    response = await live.http.post("/v1/keys", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert response.json()["error"]["message"].startswith(param)
    assert len(live.gateway.keys.list()) == before


@pytest.mark.parametrize("role", ["user", "rater", "operator"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_admins_manage_keys(live: Any, role: Any, method: str, path: str) -> None:
    plain = live.gateway.keys.create(name="mallory", role=role)
    [own] = [key for key in live.gateway.keys.list() if key.name == "mallory"]
    before = live.gateway.keys.list()
    body = {"name": "mallory", "role": "admin", "limits": {"streams": None}}
    for victim in before:  # her own key is no exception
        response = await live.http.request(method, path.format(id=victim.id), json=body, headers=bearer(plain))
        assert (response.status_code, response.json()["error"]["code"]) == (403, "insufficient_role")
    nobody = await live.http.request(method, path.format(id=own.id), json=body, headers={"authorization": ""})
    assert nobody.status_code == 401
    assert live.gateway.keys.list() == before


async def test_a_revoked_admin_cannot_make_itself_another_key(live: Any) -> None:
    plain = live.gateway.keys.create(name="fired", role="admin")
    assert await status(live, plain, "/v1/keys") == 200
    [fired] = [key for key in live.gateway.keys.list() if key.name == "fired"]
    live.gateway.keys.revoke(fired.id)
    assert await status(live, plain) == 200, "still remembered for some seconds"
    assert (await live.http.post("/v1/keys", json={"name": "back"}, headers=bearer(plain))).status_code == 401


async def test_the_last_admin_key_can_neither_go_nor_be_demoted(live: Any) -> None:
    [root] = [key for key in live.gateway.keys.list() if key.role == "admin"]
    url = f"/v1/keys/{root.id}"
    for response in (await live.http.delete(url), await live.http.post(url, json={"role": "operator"})):
        assert (response.status_code, response.json()["error"]["code"]) == (409, "last_admin")
        assert response.headers["x-should-retry"] == "false"
    await made(live, role="admin")
    assert (await live.http.delete(url)).status_code == 200


async def test_me_tells_a_caller_what_it_is(live: Any) -> None:
    me = (await live.http.get("/v1/me", headers=bearer(live.user_key))).json()
    [joe] = [key for key in live.gateway.keys.list() if key.name == "joe"]
    rater = live.gateway.keys.pseudonym(joe, None)
    assert (me["object"], me["id"], me["name"], me["role"]) == ("me", joe.id, "joe", "user")
    assert (me["rater"], me["usage"], me["expires"]) == (rater, None, None)
    assert me["limits"] == Limits().model_dump()
    assert (await live.http.get("/v1/me", headers={"authorization": ""})).status_code == 401


async def test_rotation_keeps_the_person_and_what_she_said(live: Any, impatient: None) -> None:
    key = await made(live)
    old = bearer(key["key"])
    [target] = (await live.chat("hi", key=key["key"])).json()["ratchet"]["completion_ids"]
    body = {"type": "rating", "completion_id": target, "value": 1}
    said = (await live.http.post("/v1/feedback", json=body, headers=old)).json()
    me = (await live.http.get("/v1/me", headers=old)).json()
    rotated = (await live.http.post(f"/v1/keys/{key['id']}/rotate")).json()
    new = bearer(rotated["key"])
    assert (rotated["id"], rotated["last_rotated"] is not None) == (key["id"], True)
    assert (await live.http.get("/v1/me", headers=old)).status_code == 401
    assert (await live.http.get("/v1/me", headers=new)).json()["rater"] == me["rater"]
    assert (await live.http.get(f"/v1/feedback/{said['id']}", headers=new)).json()["judgement"]["value"] == 1
    revised = await live.http.post("/v1/feedback", json={**body, "value": -1}, headers=new)
    assert (revised.status_code, revised.json()["revision"]) == (200, 2)


async def test_an_expired_key_is_refused_even_while_it_is_remembered(live: Any) -> None:
    keys = live.gateway.keys
    plain = keys.create(name="guest", role="user", expires=time.time() + 60)
    assert await status(live, plain) == 200
    keys.clock = lambda: time.time() + 61
    response = await live.http.get("/v1/models", headers=bearer(plain))
    unknown = await live.http.get("/v1/models", headers=bearer("rk-nobody"))
    assert response.status_code == unknown.status_code == 401
    assert response.json() == unknown.json(), "the answer tells nothing about the key"


async def test_guesses_are_slowed_down_and_right_keys_from_the_same_address_are_not(
    live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(GUESSES):
        assert await status(live, f"rk-guess-{index}") == 401
    nobody = await live.http.get("/v1/models", headers={"authorization": ""})
    assert nobody.status_code == 401, "no key at all is no guess"
    refused = await live.http.get("/v1/models", headers=bearer("rk-one-more"))
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 50 < int(refused.headers["retry-after"]) <= 60
    assert await status(live, live.user_key) == 200, "never seen before, from where the guesses come"
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)
    assert await status(live, live.user_key) == 200, "also when it must be looked up again"


async def test_the_same_wrong_key_costs_one_look(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    find, looks = live.gateway.keys.find, []
    monkeypatch.setattr(live.gateway.keys, "find", lambda plain: looks.append(plain) or find(plain))
    seen = Counter([await status(live, "rk-again") for _ in range(GUESSES + 30)])
    assert (seen, looks) == ({401: GUESSES, 429: 30}, ["rk-again"])
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)
    assert await status(live, "rk-again") == 429
    assert looks == ["rk-again"] * 2, "it may have become right: not remembered for long"


def watched(find: Callable[[str], Any]) -> tuple[Callable[[str], Any], list[int]]:
    """The same, and how many threads were at most inside of it at once."""
    inside: list[str] = []
    most = [0]

    def watching(plain: str) -> Any:
        inside.append(plain)
        most[0] = max(most[0], len(inside))
        try:
            return find(plain)
        finally:
            inside.remove(plain)

    return watching, most


async def test_thousands_of_guesses_at_once_hold_two_threads(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyRing(connect(valkey_url), "pepper")
    auth, (find, most) = Authenticator(keys), watched(keys.find)
    good, other = keys.create(name="ann", role="user"), keys.create(name="bob", role="user")
    monkeypatch.setattr("serving.http.auth.HURRY_S", 30.0)
    monkeypatch.setattr("serving.http.auth.MAX_KNOWN", 100)

    async def ask(plain: str, address: str = "10.0.0.1") -> Any:
        try:
            return (await auth.authenticate(f"Bearer {plain}", address)).name
        except ApiError as error:
            return error.status

    assert [await ask(f"rk-first-{index}") for index in range(GUESSES)] == [401] * GUESSES
    monkeypatch.setattr(keys, "find", find)
    asked = [*(f"rk-{index}" for index in range(2000)), good]
    answers = await asyncio.gather(*(ask(plain) for plain in asked))
    assert Counter(answers) == {429: 2000, "ann": 1}
    assert (most[0], len(auth._wrong)) == (2, 100)
    assert await ask(other, "10.0.0.2") == "bob"
    assert await ask("rk-else", "10.0.0.2") == 401, "others are not slowed down"


async def test_a_frozen_redis_is_not_waited_for_behind_guesses(live: Any, freeze_redis: Any) -> None:
    for index in range(GUESSES):
        await status(live, f"rk-guess-{index}")
    freeze_redis()
    started = time.monotonic()
    assert set(await asyncio.gather(*(status(live, f"rk-frozen-{index}") for index in range(50)))) == {503}
    assert time.monotonic() - started < 5


async def test_a_stall_holds_one_thread_for_a_known_key_and_loses_no_answer(
    live: Any, valkey: Any, freeze_redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask by it; a key that was revoked before is not spared once Redis is back."""
    assert (await live.chat("hi", max_tokens=2)).json()["ratchet"]["stored"]
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)
    find, most = watched(live.gateway.keys.find)
    monkeypatch.setattr(live.gateway.keys, "find", find)
    asked: list[asyncio.Task[Any]] = []
    freeze_redis()
    for _ in range(5):
        asked += [asyncio.create_task(status(live, live.admin_key)) for _ in range(20)]
        asked.append(asyncio.create_task(live.chat("hi", max_tokens=2)))
        await asyncio.sleep(0.1)
    valkey.process.send_signal(signal.SIGCONT)
    answers = await asyncio.gather(*asked)
    assert {answer for answer in answers if isinstance(answer, int)} == {200}
    stored = [answer.json()["ratchet"]["stored"] for answer in answers if not isinstance(answer, int)]
    assert (stored, most) == ([True] * 5, [1])


async def test_who_must_be_known_as_of_now_takes_no_answer_to_an_earlier_question(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeyRing(connect(valkey_url), "pepper")
    auth, find, plain = Authenticator(keys), keys.find, keys.create(name="ann", role="admin")
    await auth.authenticate(f"Bearer {plain}", "10.0.0.1")
    found, go_on, looks = threading.Event(), threading.Event(), []

    def slow(plain: str) -> Any:
        looks.append(plain)
        key = find(plain)
        found.set()
        assert go_on.wait(10)
        return key

    monkeypatch.setattr(keys, "find", slow)
    monkeypatch.setattr("serving.http.auth.HURRY_S", 10.0)
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)
    earlier = [asyncio.create_task(auth.authenticate(f"Bearer {plain}", "10.0.0.1")) for _ in range(3)]
    await asyncio.to_thread(found.wait)
    [ann] = keys.list()
    keys.revoke(ann.id)
    later = asyncio.create_task(auth.authenticate(f"Bearer {plain}", "10.0.0.1", freshly=True))
    await asyncio.sleep(0)
    go_on.set()
    assert {(await one).name for one in earlier} == {"ann"}
    with pytest.raises(ApiError) as refused:
        await later
    assert (refused.value.status, len(looks)) == (401, 2)


async def test_a_known_key_does_not_wait_again_for_a_look_that_just_failed(
    live: Any, freeze_redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.http.auth.PAUSE_S", 60.0)
    find, looks = live.gateway.keys.find, []
    monkeypatch.setattr(live.gateway.keys, "find", lambda plain: looks.append(plain) or find(plain))
    assert await status(live, live.user_key) == 200
    auth = live.gateway.auth
    auth._known = {place: (key, checked - 6) for place, (key, checked) in auth._known.items()}
    freeze_redis()
    assert await status(live, live.user_key) == 200
    assert looks == [live.user_key] * 2
    assert [await status(live, live.user_key) for _ in range(3)] == [200] * 3
    assert looks == [live.user_key] * 2


async def test_the_period_of_a_guesser_ends(live: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    monkeypatch.setattr("serving.http.auth.PERIOD_S", 0.5)
    monkeypatch.setattr("serving.http.auth.GUESSES", 2)
    seen = [await status(live, f"rk-{index}") for index in range(3)]
    assert seen[:2] == [401, 401]

    async def forgiven() -> bool:
        return await status(live, "rk-again") == 401

    await eventually(forgiven)


def test_guesses_are_counted_by_address_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.http.auth.MAX_KNOWN", 100)
    guesses = Guesses()
    for _ in range(GUESSES):
        guesses.count("10.0.0.1")
    assert guesses.refusal("10.0.0.2") is None
    refusal = guesses.refusal("10.0.0.1")
    assert refusal is not None
    assert "try again in 60 s" in refusal.message
    for index in range(1000):
        guesses.count(f"10.1.0.{index}")
    assert len(guesses._counted) == 100


async def test_a_stream_learns_within_seconds_that_its_key_is_dead(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    auth, keys = live.gateway.auth, live.gateway.keys
    plain = keys.create(name="ann", role="user")
    caller = keys.find(plain)
    readings: list[int] = []
    listed = keys.list
    monkeypatch.setattr(keys, "list", lambda: readings.append(1) or listed())
    assert all([await auth.still_valid(caller) for _ in range(100)])
    assert len(readings) == 1, "it costs nothing while it is fresh"
    newer = keys.find(keys.create(name="bob", role="user"))
    assert await auth.still_valid(newer), "newer than what was read"
    keys.update(caller.id, KeyChange(limits=Limits(streams=1)))
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)
    assert await auth.still_valid(caller)
    keys.rotate(caller.id)
    assert not await auth.still_valid(caller)
    rotated = keys.get(caller.id)
    assert await auth.still_valid(rotated)
    keys.revoke(caller.id)
    assert not await auth.still_valid(rotated)
    keys.update(newer.id, KeyChange(expires=keys.clock() + 60))
    keys.clock = lambda: time.time() + 61
    assert not await auth.still_valid(newer)


async def test_a_stream_whose_key_is_revoked_ends_with_401_in_it(
    live: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is sent by then: the client reads it as an event, and nothing after it."""
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)
    key = await made(live)
    seen: list[Any] = []
    async for event in live.sse(json=live.body(stream=True, max_tokens=2000), headers=bearer(key["key"])):
        seen.append(event.data)
        if len(seen) == 3:
            assert (await live.http.delete(f"/v1/keys/{key['id']}")).status_code == 200
    error = seen.pop()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert 3 <= len(seen) < 2000
    assert all("error" not in payload for payload in seen), "[DONE] is none of them either"
    await eventually(live.engine_is_free)
    assert live.engine.state()["aborted"] == 1


async def test_streams_go_on_when_nobody_can_tell(live: Any, valkey: Any) -> None:
    caller = live.gateway.keys.find(live.user_key)
    valkey.kill()
    assert all([await live.gateway.auth.still_valid(caller) for _ in range(3)])


async def test_no_key_ever_reaches_a_log(live: Any, caplog: pytest.LogCaptureFixture, valkey: Any) -> None:
    caplog.set_level(logging.DEBUG)
    key = await made(live, limits={"streams": 1})
    rotated = (await live.http.post(f"/v1/keys/{key['id']}/rotate")).json()
    secrets = [live.admin_key, key["key"], rotated["key"], "rk-wrong"]
    for plain in secrets:
        await status(live, plain)
        await live.chat("hi", key=plain, max_tokens=2)
    valkey.kill()
    for plain in secrets:
        await live.chat("hi", key=plain, max_tokens=2)
    ours = [record for record in caplog.records if not record.name.startswith(("httpcore", "openai", "hpack"))]
    text = "\n".join(record.getMessage() + (record.exc_text or "") for record in ours)
    assert text
    assert [plain for plain in secrets if plain in text] == []
