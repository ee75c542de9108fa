"""GET /v1/audit, and the lines that freezes leave by API and by command."""

from typing import Any

import pytest
from typer.testing import CliRunner

from feedback.settings import load_secrets
from serving.cli import app


async def audit(live: Any, **asked: Any) -> dict[str, Any]:
    answer = await live.http.get("/v1/audit", params=asked)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_freezes_are_written_down_with_who_and_why(live: Any) -> None:
    await live.http.post("/v1/rounds/freeze", json={"frozen": True, "reason": "holiday"})
    await live.http.post("/v1/rounds/freeze", json={"frozen": True, "reason": "again"})
    await live.http.post("/v1/releases/freeze", json={"frozen": True})
    await live.http.post("/v1/releases/freeze", json={"frozen": False, "reason": "found it"})
    lines = [line for line in (await audit(live))["data"] if line["kind"] == "freeze"]
    assert [(line["what"], line["action"], line["actor"], line["reason"]) for line in lines] == [
        ("releases", "unfreeze", "root", "found it"), ("releases", "freeze", "root", "asked for over the API"),
        ("learning", "freeze", "root", "holiday"),
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/rounds/freeze", "/v1/releases/freeze"])
async def test_a_reason_is_text(live: Any, path: str) -> None:
    for reason in (1, ["x"], "x" * 1025):
        refused = await live.http.post(path, json={"frozen": True, "reason": reason})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reason")
    assert not (await audit(live, kind="freeze"))["data"]


async def test_the_list_goes_on_before_its_last_line(live: Any) -> None:
    for frozen in (True, False, True):
        await live.http.post("/v1/rounds/freeze", json={"frozen": frozen})
    whole = (await audit(live))["data"]
    assert len(whole) == 7, "two keys, published, promoted, and three freezes"
    first = await audit(live, limit=2)
    rest = await audit(live, before=first["data"][-1]["id"])
    assert (first["has_more"], rest["has_more"], first["data"] + rest["data"]) == (True, False, whole)
    of_freezes = await audit(live, kind="freeze", limit=2)
    assert (of_freezes["data"], of_freezes["has_more"]) == (whole[:2], True)
    assert await audit(live, kind="rater") == {"object": "list", "data": [], "has_more": False}
    refused = await live.http.get("/v1/audit?before=yesterday")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "before")


async def test_whoever_manages_keys_and_invites_is_written_down(live: Any) -> None:
    key = (await live.http.post("/v1/keys", json={"name": "ann"})).json()
    url = f"/v1/keys/{key['id']}"
    rotated = (await live.http.post(f"{url}/rotate", json={})).json()
    await live.http.post(url, json={"role": "rater"})
    await live.http.delete(url)
    invite = (await live.http.post("/v1/invites", json={"name": "bea"})).json()
    await live.http.delete(f"/v1/invites/{invite['id']}")
    lines = (await audit(live, kind="key", limit=6))["data"]
    assert [(line["what"], line["action"], line["became"]) for line in lines] == [
        (invite["id"], "withdraw", "bea, user"), (invite["id"], "invite", "bea, user"),
        (key["id"], "revoke", "ann, rater"), (key["id"], "change", "ann, rater; given: role"),
        (key["id"], "rotate", "ann, user"), (key["id"], "create", "ann, user"),
    ]  # fmt: skip
    assert {line["actor"] for line in lines} == {"root"}
    assert not [secret for secret in (key["key"], rotated["key"], invite["token"]) if secret in str(lines)]


async def test_the_audit_is_for_operators(live: Any) -> None:
    answer = await live.http.get("/v1/audit", headers={"authorization": f"Bearer {live.user_key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_role")


@pytest.mark.parametrize(("command", "what"), [(["freeze"], "learning"), (["release", "freeze"], "releases")])
async def test_commands_leave_a_line_as_well(
    live: Any, monkeypatch: pytest.MonkeyPatch, command: list[str], what: str
) -> None:
    settings = live.gateway.settings
    load_secrets(settings.home)
    monkeypatch.setenv("RATCHET_HOME", str(settings.home))
    monkeypatch.setenv("RATCHET_REDIS_URL", settings.resolved_redis_url())
    done = CliRunner().invoke(app, [*command, "--reason", "it rambles"])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, [*command[:-1], "unfreeze"]).exit_code == 0
    newest, before = (await audit(live, limit=2))["data"]
    assert (newest["what"], newest["action"], newest["reason"]) == (what, "unfreeze", "unfrozen by hand")
    assert (before["what"], before["action"], before["reason"]) == (what, "freeze", "it rambles")
    assert before["actor"].startswith("cli:")
