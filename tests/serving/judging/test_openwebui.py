"""Open WebUI's thumbs, from a click to our ledger: requests, records and events as its version 0.12.4 makes them.

The places named below are in open_webui/ of its wheel.
"""

import json
import re
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

FUNCTION = Path("serving/openwebui_function.py")
ANN = "7f8a6a1e-ann"


def connection_headers() -> dict[str, str]:
    """Those that the README gives for OPENAI_API_CONFIGS."""
    [configs] = re.findall(r"^OPENAI_API_CONFIGS='(.*)'$", Path("README.md").read_text(), re.MULTILINE)
    return dict(json.loads(configs)["0"]["headers"])


class OpenWebUI:
    """What Open WebUI does around the function, which it loads and calls as it does there."""

    def __init__(self, live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live, self.rows = live, {}
        feedbacks = types.ModuleType("open_webui.models.feedbacks")
        feedbacks.Feedbacks = self  # type: ignore[attr-defined]
        for name in ("open_webui", "open_webui.models"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, "open_webui.models.feedbacks", feedbacks)
        self.function = self.load()
        self.function.valves = self.function.Valves(url=f"{live.url}/v1", key=live.admin_key)

    @staticmethod
    def load() -> Any:
        """utils/plugin.py, load_function_module_by_id: the first of four classes says what it is."""
        module = types.ModuleType("function_ratchet")
        exec(FUNCTION.read_text(), module.__dict__)
        assert not any(hasattr(module, kind) for kind in ("Pipe", "Filter", "Action"))
        return module.Event()

    async def get_feedback_by_id(self, id: str) -> Any:
        """models/feedbacks.py, FeedbackTable."""
        return self.rows.get(id)

    async def ask(self, message: str, text: str = "hi", *, task: str = "", user: str = ANN) -> dict[str, Any]:
        """utils/headers.py, parse_custom_headers; a title has its answer's metadata (routers/tasks.py)."""
        words = {"{{MESSAGE_ID}}": message, "{{CHAT_ID}}": "chat-1", "{{USER_ID}}": user, "{{TASK}}": task}
        headers = {name: words[value] for name, value in connection_headers().items()}
        answer = await self.live.http.post("/v1/chat/completions", json=self.live.body(text), headers=headers)
        return dict(answer.json())

    async def rate(self, message: str, rating: int | None, id: str | None = None, **said: Any) -> str:
        """As ResponseMessage.svelte sends it, routers/evaluations.py keeps it and events.py tells of it."""
        kind, id = "updated" if id else "created", id or str(uuid.uuid4())
        data = {"rating": rating, "reason": None, "details": None, "model_id": "policy", **said}
        meta = {"arena": False, "model_id": "policy", "message_id": message, "message_index": 2, "chat_id": "chat-1"}
        row = {"id": id, "user_id": ANN, "version": 0, "type": "rating", "data": data, "meta": meta, "snapshot": None}
        self.rows[id] = types.SimpleNamespace(**row)
        await self.tell(f"feedback.{kind}", id, data={"rating": rating})
        return id

    async def tell(self, name: str, id: str, **more: Any) -> None:
        """events.py, build_event and dispatch_event_functions."""
        resource, operation = name.split(".")
        actor = {"id": ANN, "name": "Ann", "email": "ann@localhost", "role": "user", "type": "user"}
        event = {
            "schema": "0.12.4", "id": str(uuid.uuid4()), "event": name, "resource": resource, "operation": operation,
            "created_at": 1795000000, "instance_id": None, "version": "0.12.4", "source": "api", "actor": actor,
            "subject": {"type": resource, "id": id}, "data": {}, "message": None, **more,
        }  # fmt: skip
        await self.function.event(event=event)

    async def ratings(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """What stands in our ledger of an answer."""
        [id] = answer["ratchet"]["completion_ids"]
        found = await self.live.http.get("/v1/feedback", params={"completion_id": id, "user": ANN})
        return [each["judgement"] for each in found.json()["data"]]


@pytest.fixture
def webui(live: Any, monkeypatch: pytest.MonkeyPatch) -> OpenWebUI:
    return OpenWebUI(live, monkeypatch)


async def test_a_thumb_reaches_the_answer_and_a_change_of_mind_too(webui: OpenWebUI) -> None:
    first, second = await webui.ask("m-1"), await webui.ask("m-2", "and then?")
    id = await webui.rate("m-1", 1)
    assert [said["value"] for said in await webui.ratings(first)] == [1]
    await webui.rate("m-1", 1, id, details={"rating": 9}, reason="accurate_information", comment=" Good. ", tags=["x"])
    [said] = await webui.ratings(first)
    assert (said["value"], said["reasons"], said["comment"]) == (1, ["accurate_information"], "Good.")
    await webui.rate("m-1", -1, id)
    assert [said["value"] for said in await webui.ratings(first)] == [-1]
    assert await webui.ratings(second) == []


async def test_the_last_answer_of_a_message_is_meant_and_never_its_title(webui: OpenWebUI) -> None:
    called, told = await webui.ask("m-1"), await webui.ask("m-1", "the tool says 5")
    title = await webui.ask("m-1", "a title, please", task="title_generation")
    await webui.rate("m-1", -1)
    assert [len(await webui.ratings(answer)) for answer in (called, told, title)] == [0, 1, 0]


async def test_what_is_not_ours_is_let_be(webui: OpenWebUI) -> None:
    answer = await webui.ask("m-1")
    others = await webui.ask("m-2", user="somebody-else")
    await webui.rate("of another connection", 1)
    await webui.rate("m-2", 1)
    await webui.rate("m-1", None)
    await webui.tell("feedback.deleted", "gone")
    await webui.tell("feedback.created", "gone")
    await webui.tell("chat.created", "chat-1")
    assert await webui.ratings(answer) == await webui.ratings(others) == []


async def test_a_thumb_outlives_a_gateway_that_has_no_time_now(
    webui: OpenWebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await webui.ask("m-1")
    gateway, left = webui.live.gateway, [2]
    take = gateway.appender.append

    async def busy(*said: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise TimeoutError
        return await take(*said)

    monkeypatch.setattr(gateway.appender, "append", busy)
    await webui.rate("m-1", 1)
    assert [said["value"] for said in await webui.ratings(answer)] == [1]


async def test_a_thumb_that_cannot_be_kept_is_an_error_in_open_webuis_log(webui: OpenWebUI) -> None:
    await webui.ask("m-1")
    webui.function.valves.key = "rk-wrong"
    with pytest.raises(Exception, match="401"):
        await webui.rate("m-1", 1)


@pytest.mark.parametrize("id", ["", "x" * 129, "a\tb"])
async def test_a_header_that_names_no_message_is_none(live: Any, id: str) -> None:
    headers = {"x-openwebui-message-id": id}
    answer = await live.http.post("/v1/chat/completions", json=live.body(metadata={"a": "b"}), headers=headers)
    kept: httpx.Response = await live.http.get(f"/v1/chat/completions/{answer.json()['id']}")
    assert kept.json()["metadata"] == {"a": "b"}
