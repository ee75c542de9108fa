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
    assert all(line["kind"] == "policy" for line in (await audit(live))["data"])


async def test_the_list_goes_on_before_its_last_line(live: Any) -> None:
    for frozen in (True, False, True):
        await live.http.post("/v1/rounds/freeze", json={"frozen": frozen})
    whole = (await audit(live))["data"]
    assert len(whole) == 5, "published, promoted, and three freezes"
    first = await audit(live, limit=2)
    rest = await audit(live, before=first["data"][-1]["id"])
    assert (first["has_more"], rest["has_more"], first["data"] + rest["data"]) == (True, False, whole)
    refused = await live.http.get("/v1/audit?before=yesterday")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "before")


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
