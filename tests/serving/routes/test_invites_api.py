"""/v1/invites: links made, listed and withdrawn over the API, by admins alone."""

import time
from typing import Any

import httpx
import pytest

from feedback.people.invites import LASTS_S


async def make(live: Any, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    answer = await live.http.post("/v1/invites", json=body, headers=headers or {})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def listed(live: Any) -> list[dict[str, Any]]:
    return list((await live.http.get("/v1/invites")).json()["data"])


async def test_whoever_opens_a_link_first_has_a_key_of_its_role(live: Any) -> None:
    made = await make(live, name="ann", role="rater")
    assert made["expires"] == pytest.approx(time.time() + LASTS_S, abs=60)
    assert made["link"] == f"{live.url}/join#{made['token']}"
    shown = {name: made[name] for name in ("object", "id", "name", "role", "created", "expires")}
    assert await listed(live) == [shown], "its token is told once"
    async with httpx.AsyncClient(base_url=live.url, headers={"x-ratchet-page": "1"}, timeout=60) as browser:
        signed_in = await browser.post("/v1/session", json={"invite": made["token"]})
    assert (signed_in.json()["name"], signed_in.json()["role"]) == ("ann", "rater")
    assert await listed(live) == []


async def test_a_link_can_be_withdrawn_until_it_is_used(live: Any) -> None:
    made, other = await make(live, name="ann"), await make(live, name="bea", expires=time.time() + 60)
    assert made["role"] == "user"
    gone = await live.http.delete(f"/v1/invites/{made['id']}")
    assert gone.json() == {"object": "invite.deleted", "id": made["id"], "deleted": True}
    again = await live.http.delete(f"/v1/invites/{made['id']}")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "invite_not_found")
    assert [each["id"] for each in await listed(live)] == [other["id"]]
    assert live.gateway.auth.invites.accept(made["token"]) is None


async def test_a_link_leads_where_people_reach_the_page(live: Any) -> None:
    given = await make(live, name="ann", url="https://chat.example.org/ratchet/")
    assert given["link"] == f"https://chat.example.org/ratchet/join#{given['token']}"
    behind = {"origin": "https://chat.example.org", "host": "chat.example.org"}
    assert (await make(live, behind, name="ann"))["link"].startswith("https://chat.example.org/join#inv_")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"), ({"name": ""}, "name"), ({"name": "a", "role": "king"}, "role"), ({"name": "a", "x": 1}, "x"),
        ({"name": "a", "expires": 1}, "expires"), ({"name": "a", "expires": "7d"}, "expires"),
        ({"name": "a", "url": "javascript:alert(1)"}, "url"), ({"name": "a", "url": "https://x/#y"}, "url"),
    ],
)  # fmt: skip
async def test_what_makes_no_link_names_its_field(live: Any, body: dict[str, Any], param: str) -> None:
    refused = await live.http.post("/v1/invites", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert await listed(live) == []


async def test_links_are_for_admins(live: Any) -> None:
    operator = live.gateway.keys.create(name="bea", role="operator")
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/invite_x")):
        for key in (operator, live.user_key):
            headers = {"authorization": f"Bearer {key}"}
            answer = await live.http.request(method, f"/v1/invites{path}", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_role")
