"""The document tells the truth: every route is described, its examples work, and made-up requests get what it says."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
)

from serving.document import judgements as judged
from serving.http import auth

# "Not now" and "too slow" are answers; every other 5xx is a bug.
BUSY = (503, 504)
BOUNDED = settings(
    max_examples=60, derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
# What answers whoever asks; who signs in has no key yet, or only in the body.
OPEN = [("get", "/health"), ("get", "/ready"), ("get", "/metrics"), ("post", "/v1/session")]
# max_tokens up to this: the fake engine would write thousands of words as well.
SHORT = 256


@pytest.fixture
async def document(live: Any) -> dict[str, Any]:
    response = await live.http.get("/openapi.json", headers={"authorization": ""})
    assert response.status_code == 200
    return dict(response.json())


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, each) for path, item in document["paths"].items() for method, each in item.items()]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


async def test_every_route_is_described_with_examples_and_errors(document: dict[str, Any]) -> None:
    for method, path, each in operations(document):
        where = f"{method} {path}"
        assert each.get("summary") and each.get("tags"), f"{where}: use openapi.documented()"
        either = None if (method, path) in OPEN else [{"bearer": []}, {"session": []}]
        assert each.get("security") == either, where
        [sent] = [each["requestBody"]["content"]["application/json"]] if "requestBody" in each else [None]
        assert sent is None or (sent["schema"] and sent["examples"]), where
        assert sent or method != "post" or path.endswith(("/rounds", "/cancel", "/rotate")), f"{where} reads no body?"
        for parameter in each.get("parameters", ()):
            assert parameter["in"] == "path" or parameter.get("description"), f"{where}: {parameter['name']}?"
        for status, response in each["responses"].items():
            for media in response["content"].values():
                schema = resolved(document, media["schema"])
                assert "example" in media or "example" in schema, f"{where} {status}: an example is missing"
            if status[0] in "45" and path != "/ready":
                reference = response["content"]["application/json"]["schema"]
                assert reference == {"$ref": "#/components/schemas/Error"}, f"{where} {status}"
        needed = ["401", "429", "503"] if each.get("security") else []
        needed += ["403"] if each.get("security") and method != "get" else []
        needed += ["400", "413", "415"] if sent else []
        assert set(needed) <= set(each["responses"]), where
    cookie = document["components"]["securitySchemes"].pop("session")
    assert (cookie["type"], cookie["in"], cookie["name"]) == ("apiKey", "cookie", "ratchet_session_8000")
    assert document["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    assert "$defs" not in text
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]


async def test_the_examples_can_be_sent_as_they_are(live: Any, document: dict[str, Any]) -> None:
    for _, path, each in operations(document):
        body = each.get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in body.get("examples", {}).items():
            answer = await live.http.post(path.replace("{id}", "0"), json=example["value"])
            # The completions, policies and keys that they name do not exist here; nothing else may be wrong with them.
            unknown = 401 if path == "/v1/session" else 404
            assert answer.status_code in (200, 201, unknown), f"{path} {name}: {answer.text}"


async def test_the_examples_of_feedback_are_taken_as_they_are(live: Any, document: dict[str, Any]) -> None:
    blind = [await live.http.post("/v1/comparisons", json=live.body(model="auto", k=k)) for k in (2, 4)]
    real = {judged.RESPONSE: (await live.chat(n=3)).json()["id"]}
    real |= zip((judged.TWO_BLIND, judged.FOUR_BLIND), (each.json()["id"] for each in blind), strict=True)
    examples = document["paths"]["/v1/feedback"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    kinds = {"rating", "comparison", "ranking", "demonstration", "comment", "flag"}
    assert {example["value"]["type"] for example in examples.values()} == kinds
    for name, example in examples.items():
        text = json.dumps(example["value"])
        for placeholder, id in real.items():
            text = text.replace(placeholder, id)
        answer = await live.http.post("/v1/feedback", content=text)
        assert answer.status_code in (200, 201), f"{name}: {answer.text}"


async def keep_one_of_each(live: Any) -> dict[str, str]:
    """What made-up ids never name: an id that exists, by the path before {id}."""
    chat = (await live.chat(n=2, store=True, metadata={"topic": "sky"})).json()
    first, second = chat["ratchet"]["completion_ids"]
    offer = (await live.http.post("/v1/comparisons", json=live.body(model="auto"))).json()["id"]
    vote = {"type": "comparison", "left": first, "right": second, "winner": "left"}
    await live.http.post("/v1/feedback", json=vote)
    said = (await live.http.post("/v1/feedback", json=vote | {"winner": "tie"})).json()["id"]
    await live.http.post("/v1/feedback", json={"type": "comparison", "comparison_id": offer, "winner": "left"})
    key = (await live.http.post("/v1/keys", json={"name": "ann", "limits": {"streams": 1}})).json()["id"]
    round = (await live.http.post("/v1/rounds")).json()["id"]
    live.shelf.publish(1, move=0.4, stable=False)
    release = (await live.http.post("/v1/releases", json={"candidate": 1})).json()["id"]
    kept = {
        "chat/completions": chat["id"], "conversations": chat["ratchet"]["conversation_id"], "comparisons": offer,
        "feedback": said, "keys": key, "rounds": str(round), "models": "policy", "policies": "policy-v0",
        "releases": str(release), "invites": live.gateway.auth.invites.create(name="ann")[1].id,
        "raters": live.ledger.kept([said])[0].feedback.rater,
    }  # fmt: skip
    return {f"/v1/{place}/": id for place, id in kept.items()}


async def test_what_exists_is_shown_as_documented(
    live: Any, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.release.controller.Controller.tick", lambda self: None)
    ids = await keep_one_of_each(live)
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{live.url}/openapi.json")

    async def check(method: str, path: str, status: int = 200, **sent: Any) -> None:
        id = ids.get(path.partition("{id}")[0], "")
        answer = await live.http.request(method, path.replace("{id}", id), **sent)
        assert answer.status_code == status, f"{method} {path}: {answer.text}"
        schema[path][method].validate_response(answer)

    for method, path, _ in operations(document):
        if method == "get" and path not in ("/v1/feedback/export", "/v1/chat/completions/{id}/stream"):
            await check(method, path, params={"with": "policy-v1"} if path.endswith("/diff") else None)
    await check("GET", "/v1/feedback/export", params={"format": "ratchet"})
    await check("POST", "/v1/chat/completions/{id}", json={"metadata": {"feedback": "up"}})
    await check("PUT", "/v1/conversations/{id}", json={"title": "The sky", "allow_training": False})
    await check("POST", "/v1/keys", 201, json={"name": "bea"})
    await check("POST", "/v1/keys/{id}", json={"limits": {"streams": None}})
    await check("POST", "/v1/keys/{id}/rotate")
    await check("POST", "/v1/releases/{id}/pause", json={"reason": "lunch"})
    await check("POST", "/v1/releases", 201, json={"candidate": 1, "strategy": {"steps": [{"set_weight": 5}]}})
    await check("POST", "/v1/session", json={"key": live.user_key})
    await check("POST", "/v1/raters/{id}/quarantine", json={"reason": "a try"})
    await check("POST", "/v1/raters/{id}/release")
    await check("POST", "/v1/rounds/freeze", json={"frozen": True, "reason": "a try"})
    await check("POST", "/v1/invites", 201, json={"name": "bea", "role": "rater"})
    for kind in ("invites", "feedback", "keys", "chat/completions"):
        await check("DELETE", f"/v1/{kind}/{{id}}")
    for path in ("/v1/session", "/v1/me"):
        await check("DELETE", path)


async def test_there_are_no_pages_that_load_scripts_from_elsewhere(live: Any) -> None:
    for path in ("/docs", "/redoc"):
        assert (await live.http.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/completions"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_1"),
        ("POST", "/v1/embeddings"),
    ],
)
async def test_what_openai_has_besides_chat_is_refused_with_the_reason(live: Any, method: str, path: str) -> None:
    answer = await live.http.request(method, path, json={"model": "policy"} if method == "POST" else None)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("unsupported_endpoint", "not_found_error")
    assert "POST /v1/chat/completions" in error["message"]
    other = (await live.http.get("/v1/completionsx")).json()["error"]
    assert other["code"] == "unknown_url"


async def test_made_up_requests_get_what_the_document_says(
    start: Callable[..., Awaitable[Any]], fake_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each operation is tried with wrong keys as well: with the limit on guesses, 429 would hide a missing 401.
    monkeypatch.setattr(auth, "GUESSES", math.inf)
    live = await start(max_model_len=SHORT)
    fake_engine.set(tick=0)
    # The gateway runs in this test's event loop, so its clients must not block it.
    await asyncio.to_thread(make_up_requests, live.url, live.admin_key, await keep_one_of_each(live))


def make_up_requests(url: str, key: str, ids: dict[str, str]) -> None:
    """To ids made up as well, and to those that exist except where that ends them."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    checks = [content_type_conformance, response_schema_conformance, status_code_conformance, ignored_auth, no_bug]
    bearer = {"Authorization": f"Bearer {key}"}
    found = [each.ok() for each in schema.get_all_operations()]
    assert len(found) >= 66
    for operation in found:
        requests = operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        id = ids.get(operation.path.partition("{id}")[0]) if "{id}" in operation.path else None
        if id and operation.method != "delete":
            requests |= requests.map(partial(aimed_at, id))

        @given(case=requests)
        @BOUNDED
        def answers_as_documented(case: Any) -> None:
            case.call_and_validate(headers=bearer, checks=checks, timeout=20)

        answers_as_documented()


def aimed_at(id: str, case: Any) -> Any:
    case.path_parameters = {"id": id}
    return case


def no_bug(context: Any, response: Any, case: Any) -> None:
    if response.status_code not in BUSY:
        not_a_server_error(context, response, case)
