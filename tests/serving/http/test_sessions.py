"""Signing in with a browser: what a cookie may do, what it may not, and when it ends."""

import asyncio
import logging
import time
from http.cookies import SimpleCookie
from itertools import product
from typing import Any

import httpx
import pytest

from feedback.people.sessions import LASTS_S
from serving.http.auth import GUESSES
from tests.serving.fleet import Fleet

PAGE = {"x-ratchet-page": "1"}
COOKIE = "ratchet_session_8000"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found in Redis is never fresh: changes show at once."""
    monkeypatch.setattr("serving.http.auth.FRESH_S", 0.0)


@pytest.fixture
async def browser(live: Any) -> Any:
    async with httpx.AsyncClient(base_url=live.url, headers=PAGE, timeout=60) as client:
        yield client


async def sign_in(browser: Any, **body: str) -> dict[str, Any]:
    answer = await browser.post("/v1/session", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def status(browser: Any) -> int:
    return int((await browser.get("/v1/models")).status_code)


async def test_a_key_begins_a_session_in_a_cookie_that_no_script_sees(live: Any, browser: Any) -> None:
    answer = await browser.post("/v1/session", json={"key": live.user_key})
    told = answer.json()
    expires = told.pop("expires")
    assert expires == pytest.approx(time.time() + LASTS_S, abs=60)
    [joe] = [key for key in live.gateway.keys.list() if key.name == "joe"]
    rater = live.gateway.keys.pseudonym(joe, None)
    assert told == {"object": "session", "role": "user", "name": "joe", "rater": rater, "single_user": False}
    [cookie] = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (cookie.key, cookie["path"], cookie["httponly"], cookie["samesite"]) == (COOKIE, "/", True, "strict")
    assert (cookie["domain"], cookie["secure"]) == ("", "")
    assert int(cookie["max-age"]) == pytest.approx(LASTS_S, abs=60)
    assert cookie.value not in answer.text
    assert cookie.value not in str([live.ledger.redis.get(name) for name in live.ledger.redis.keys("session:*")])
    assert (await browser.get("/v1/session")).json() == {**told, "expires": expires}
    assert (await browser.get("/v1/me")).json()["rater"] == rater


async def test_whoever_signs_in_again_leaves_no_session_behind(live: Any, browser: Any) -> None:
    await sign_in(browser, key=live.user_key)
    first = browser.cookies[COOKIE]
    await sign_in(browser, key=live.admin_key)
    assert len(live.ledger.redis.keys("session:*")) == 1
    assert code(await live.http.get("/v1/me", headers={"authorization": "", "cookie": f"{COOKIE}={first}"}))[0] == 401


async def test_the_cookie_is_for_https_alone_where_the_page_is(live: Any, browser: Any) -> None:
    headers = {"origin": "https://chat.example.org", "host": "chat.example.org"}
    answer = await browser.post("/v1/session", json={"key": live.user_key}, headers=headers)
    [cookie] = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (answer.status_code, cookie["secure"]) == (200, True)


async def test_a_person_chats_and_judges_by_cookie_as_by_key(live: Any, browser: Any) -> None:
    await sign_in(browser, key=live.user_key)
    chat = await browser.post("/v1/chat/completions", json=live.body(max_tokens=2))
    [target] = chat.json()["ratchet"]["completion_ids"]
    judgement = {"type": "rating", "completion_id": target, "value": 1}
    assert (await browser.post("/v1/feedback", json=judgement)).status_code == 201
    by_key = {"authorization": f"Bearer {live.user_key}"}
    again = await live.http.post("/v1/feedback", json=judgement, headers=by_key)
    assert (again.status_code, again.json()["revision"]) == (200, 1), "by cookie and by key it is the same person"
    assert code(await browser.get("/v1/policies")) == (403, "insufficient_role")


UNSAFE = [
    ("POST", "/v1/chat/completions"), ("POST", "/v1/feedback"), ("PUT", "/v1/conversations/c"), ("DELETE", "/v1/me"),
    ("DELETE", "/v1/session"), ("POST", "/v1/keys"),
]  # fmt: skip
FOREIGN = [
    {"x-ratchet-page": ""}, {"x-ratchet-page": "0"}, {"origin": "https://evil.example"}, {"origin": "null"},
    {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
    {"origin": "http://evil.example", "sec-fetch-site": "same-site"},
]  # fmt: skip


async def test_what_another_sites_page_may_have_sent_is_refused(live: Any, browser: Any) -> None:
    await sign_in(browser, key=live.admin_key)
    keys = live.gateway.keys.list()
    for (method, path), headers in product(UNSAFE, FOREIGN):
        answer = await browser.request(method, path, json={"name": "mallory"}, headers=headers)
        assert code(answer) == (403, "foreign_origin"), f"{method} {path} {headers}"
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert live.gateway.keys.list() == keys
    assert await status(browser) == 200, "reading needs no proof: no other page can read the answer"


OWN = [{}, {"origin": "own"}, {"origin": "http://localhost:5173", "sec-fetch-site": "same-origin"}]


async def test_our_own_page_is_let_through(live: Any, browser: Any) -> None:
    await sign_in(browser, key=live.admin_key)
    for headers in OWN:
        sent = headers | ({"origin": live.url} if headers.get("origin") == "own" else {})
        assert (await browser.post("/v1/keys", json={"name": "bea"}, headers=sent)).status_code == 201


async def test_no_other_site_signs_anybody_in(live: Any, browser: Any) -> None:
    foreign = {"origin": "https://evil.example"}
    answer = await browser.post("/v1/session", json={"key": live.user_key}, headers=foreign)
    assert code(answer) == (403, "foreign_origin")
    assert "set-cookie" not in answer.headers


async def test_a_key_in_the_header_counts_and_needs_no_proof(live: Any, browser: Any) -> None:
    await sign_in(browser, key=live.user_key)
    headers = {"authorization": f"Bearer {live.admin_key}", "x-ratchet-page": "", "origin": "https://evil.example"}
    assert (await browser.post("/v1/keys", json={"name": "bea"}, headers=headers)).status_code == 201
    assert (await browser.get("/v1/session", headers=headers)).json()["role"] == "admin"


async def test_a_session_is_no_key_and_a_key_no_session(live: Any, browser: Any) -> None:
    await sign_in(browser, key=live.user_key)
    token = browser.cookies[COOKIE]
    assert await status(browser) == 200
    as_key = await live.http.get("/v1/models", headers={"authorization": f"Bearer {token}"})
    as_cookie = await live.http.get("/v1/models", headers={"authorization": "", "cookie": f"{COOKIE}={live.user_key}"})
    assert code(as_key) == code(as_cookie) == (401, "invalid_api_key")


async def test_signing_out_ends_the_session_at_once(live: Any, browser: Any) -> None:
    await sign_in(browser, key=live.user_key)
    assert await status(browser) == 200
    cookie = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}", "authorization": ""}
    answer = await browser.delete("/v1/session")
    assert answer.json() == {"object": "session.deleted", "deleted": True}
    assert COOKIE not in browser.cookies
    assert (await live.http.get("/v1/models", headers=cookie)).status_code == 401
    assert code(await browser.get("/v1/session")) == (401, "invalid_api_key")


@pytest.mark.parametrize("end", ["revoke", "rotate"])
async def test_a_session_ends_with_its_key(live: Any, browser: Any, end: str) -> None:
    told = await sign_in(browser, key=live.user_key)
    assert await status(browser) == 200
    [joe] = [key for key in live.gateway.keys.list() if key.name == told["name"]]
    getattr(live.gateway.keys, end)(joe.id)
    assert await status(browser) == 401


async def test_a_fired_admins_cookie_makes_no_more_keys(live: Any, browser: Any) -> None:
    plain = live.gateway.keys.create(name="fired", role="admin")
    await sign_in(browser, key=plain)
    assert (await browser.get("/v1/keys")).status_code == 200
    [fired] = [key for key in live.gateway.keys.list() if key.name == "fired"]
    live.gateway.keys.revoke(fired.id)
    assert (await browser.post("/v1/keys", json={"name": "back"})).status_code == 401


async def test_an_expired_key_or_session_is_refused_even_while_it_is_remembered(live: Any, browser: Any) -> None:
    keys = live.gateway.keys
    plain = keys.create(name="guest", role="user", expires=time.time() + 60)
    told = await sign_in(browser, key=plain)
    assert told["expires"] == keys.find(plain).expires
    assert await status(browser) == 200
    keys.clock = lambda: time.time() + 61
    assert await status(browser) == 401
    await sign_in(browser, key=live.user_key)
    assert await status(browser) == 200
    keys.clock = lambda: time.time() + 61 + LASTS_S
    assert await status(browser) == 401


async def test_a_known_session_goes_on_without_redis(live: Any, browser: Any, valkey: Any, impatient: None) -> None:
    told = await sign_in(browser, key=live.user_key)
    assert await status(browser) == 200
    valkey.kill()
    assert (await browser.get("/v1/session")).json() == told
    assert code(await browser.post("/v1/session", json={"key": live.user_key})) == (503, "ledger_unavailable")
    browser.cookies.set(COOKIE, "rs_unknown")
    assert code(await browser.get("/v1/session")) == (503, "ledger_unavailable")


async def test_guesses_at_sessions_keys_and_invites_are_slowed_down(
    live: Any, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.http.auth.FRESH_S", 600.0)
    browser.cookies.set(COOKIE, "rs_dead")
    for _ in range(2 * GUESSES):
        assert await status(browser) == 401, "a page left open asks again and again, and guesses once"
    for index in range(GUESSES - 2):
        assert code(await browser.post("/v1/session", json={"key": f"rk-{index}"})) == (401, "invalid_api_key")
    assert code(await browser.post("/v1/session", json={"invite": "inv_x"})) == (401, "invalid_invite")
    for body in ({"key": "rk-more"}, {"invite": "inv_more"}):
        assert code(await browser.post("/v1/session", json=body)) == (429, "rate_limit_exceeded")
    browser.cookies.clear()
    await sign_in(browser, key=live.user_key)
    assert await status(browser) == 200


BAD = [
    ({"key": ""}, "key"), ({"key": 7}, "key"), ({"key": "a", "invite": "b"}, "invite"), ({"user": "ann"}, "user"),
    ({"key": "a" * 257}, "key"),
]  # fmt: skip


async def test_a_body_that_makes_no_sense_is_named(browser: Any) -> None:
    for body, param in BAD:
        answer = await browser.post("/v1/session", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_of_two_who_open_a_link_at_once_one_is_signed_in(live: Any, browser: Any) -> None:
    token, _ = live.gateway.auth.invites.create(name="ann", role="rater")
    before = len(live.gateway.keys.list())
    came = await asyncio.gather(*(browser.post("/v1/session", json={"invite": token}) for _ in range(2)))
    assert sorted(answer.status_code for answer in came) == [200, 401]
    assert len(live.gateway.keys.list()) == before + 1
    told = (await browser.get("/v1/session")).json()
    assert (told["name"], told["role"]) == ("ann", "rater")
    assert code(await browser.post("/v1/session", json={"invite": token})) == (401, "invalid_invite")


async def test_an_expired_link_signs_nobody_in(live: Any, browser: Any) -> None:
    token, _ = live.gateway.auth.invites.create(name="ann", expires=time.time() + 60)
    live.gateway.keys.clock = lambda: time.time() + 61
    assert code(await browser.post("/v1/session", json={"invite": token})) == (401, "invalid_invite")


async def test_no_token_ever_reaches_a_log(live: Any, browser: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    invite, _ = live.gateway.auth.invites.create(name="ann")
    await sign_in(browser, invite=invite)
    secrets = [invite, browser.cookies[COOKIE], "rk-wrong", "inv_wrong"]
    assert await status(browser) == 200
    for body in ({"invite": invite}, {"key": "rk-wrong"}, {"invite": "inv_wrong"}):
        assert (await browser.post("/v1/session", json=body)).status_code == 401
    ours = [record for record in caplog.records if not record.name.startswith(("httpcore", "httpx", "hpack"))]
    text = "\n".join(record.getMessage() + (record.exc_text or "") for record in ours)
    assert "/v1/session" in text
    assert [secret for secret in secrets if secret in text] == []


async def test_without_single_user_mode_nobody_is_signed_in_for_nothing(live: Any, browser: Any) -> None:
    for body in (b"", b"{}"):
        answer = await browser.post("/v1/session", content=body)
        assert code(answer) == (401, "invalid_api_key")
        assert "set-cookie" not in answer.headers


async def test_single_user_mode_signs_in_the_admin_and_keeps_her_session(start: Any) -> None:
    live = await start(single_user=True)
    async with httpx.AsyncClient(base_url=live.url, headers=PAGE) as browser:
        told = await sign_in(browser)
        assert (told["role"], told["name"], told["single_user"]) == ("admin", "root", True)
        token = browser.cookies[COOKIE]
        assert await sign_in(browser) == told
        assert browser.cookies[COOKIE] == token, "each opening of the page would leave one more session"
        assert (await browser.post("/v1/keys", json={"name": "bea"})).status_code == 201
        for port in ("", ":80"):
            for host in ("127.0.0.1", "localhost", "LOCALHOST", "127.1.2.3", "[::1]"):
                answer = await browser.post("/v1/session", json={}, headers={"host": host + port})
                assert answer.status_code == 200, host


async def test_in_single_user_mode_whoever_has_another_key_is_not_the_single_user(start: Any) -> None:
    live = await start(single_user=True)
    async with httpx.AsyncClient(base_url=live.url, headers=PAGE) as browser:
        await sign_in(browser)
        made = (await browser.post("/v1/keys", json={"name": "bea", "role": "admin"})).json()
        for key, name, single in ((made["key"], "bea", False), (live.user_key, "joe", False), (None, "root", True)):
            await browser.delete("/v1/session")
            told = await sign_in(browser, **({"key": key} if key else {}))
            assert (told["name"], told["single_user"]) == (name, single)
            assert (await browser.get("/v1/session")).json()["single_user"] is single


NOT_LOCAL = [
    {"host": "evil.example"}, {"host": "evil.example:8000", "origin": "http://evil.example:8000"},
    {"host": "localhost.evil.example"}, {"host": "127.0.0.1.evil.example"}, {"host": "192.168.1.7"},
    {"host": "[2001:db8::1]:80"}, {"host": ""}, {"x-forwarded-for": "10.0.0.7"}, {"forwarded": "for=10.0.0.7"},
]  # fmt: skip


async def test_single_user_mode_is_for_this_machine_by_name_alone(start: Any) -> None:
    live = await start(single_user=True)
    for headers in NOT_LOCAL:
        answer = await live.http.post("/v1/session", json={}, headers={"authorization": "", **PAGE, **headers})
        assert code(answer) == (403, "foreign_host"), headers
        assert "set-cookie" not in answer.headers


async def test_two_gateways_on_one_host_leave_each_others_session(start: Any) -> None:
    one, other = await start(), await start(port=8001)
    async with httpx.AsyncClient(headers=PAGE) as browser:
        for live, key in ((one, one.user_key), (other, other.admin_key)):
            await browser.post(f"{live.url}/v1/session", json={"key": key})
        assert set(browser.cookies) == {"ratchet_session_8000", "ratchet_session_8001"}
        names = [(await browser.get(f"{live.url}/v1/session")).json()["name"] for live in (one, other)]
        assert names == ["joe", "root"]
        await browser.delete(f"{other.url}/v1/session")
        assert [(await browser.get(f"{live.url}/v1/models")).status_code for live in (one, other)] == [200, 401]


async def test_signing_out_counts_in_other_processes_at_once(start: Any) -> None:
    one, other = await start(), await start()
    async with httpx.AsyncClient(headers=PAGE) as browser:
        await browser.post(f"{one.url}/v1/session", json={"key": one.user_key})
        cookie = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}", **PAGE}
        assert (await browser.get(f"{other.url}/v1/models")).status_code == 200
        await browser.delete(f"{one.url}/v1/session")
        for live in (one, other):
            asked = httpx.Request("POST", f"{live.url}/v1/chat/completions", json=live.body(), headers=cookie)
            assert (await browser.send(asked)).status_code == 401
            assert (await browser.get(f"{live.url}/v1/models", headers=cookie)).status_code == 401


async def test_all_gateway_processes_know_a_session(launch: Any) -> None:
    fleet: Fleet = await launch()
    writing, *others = fleet.clients.values()
    async with httpx.AsyncClient(base_url=fleet.url, headers=PAGE) as browser:
        await sign_in(browser, key=fleet.key)
        [(name, token)] = browser.cookies.items()
        cookie = {"cookie": f"{name}={token}", "authorization": "", **PAGE}
        for client in fleet.clients.values():
            assert (await client.get("/v1/session", headers=cookie)).json()["name"] == "root"
        events = fleet.events(writing, max_tokens=1000)
        first = await anext(events)
        path = f"/v1/chat/completions/{first['id']}/cancel"
        stopped = await others[0].post(path, headers={**cookie, "origin": fleet.url})
        assert stopped.status_code == 200, "who is asked passes the cookie on to who writes"
        assert [payload async for payload in events][-1] == "[DONE]"
        await browser.delete("/v1/session")
        answers = [await client.get("/v1/session", headers=cookie) for client in fleet.clients.values()]
        assert {answer.status_code for answer in answers} == {401}, "signed out of all of them at once"
