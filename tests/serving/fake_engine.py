"""A stand-in for vLLM's server: the same HTTP contract, weights that are small JSON files, no model.

`python fake_engine.py PORT`. A "model directory" holds weights.json: {"word", "checksums", "scores"}; the word is
what it says, the scores are its golden log-probs in the order of the prompts. /fake/state and /fake/set are for tests.
"""

import asyncio
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "engine-key"


class Engine:
    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.running.set()
        self.changed = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        self.weights: dict[str, Any] = {"word": "fresh", "checksums": {}, "scores": []}
        self.adapters: dict[str, dict[str, Any]] = {}
        self.roots: dict[str, str] = {}  # where each adapter is from
        self.label = "default"
        self.calls: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.options: dict[str, Any] = {
            "tick": 0.01, "reload_s": 0.05, "die_after": None, "hang": False, "mixed_bug": False,
            "hold_at": None,  # say no more from this step on
            "pads": {},  # question to so many characters more in each chunk of its answer
            "ends": {},  # choice to number of tokens, where it ends before the others
            "says": {},  # question to answer, in place of words, four characters a token; of a list the next each time
        }  # fmt: skip
        self.active = self.aborted = self.finished = self.scoring = 0
        self.running.set()

    async def words(self, body: dict[str, Any]) -> AsyncIterator[tuple[int, str, list[int], list[float]]]:
        """(step, text, token ids, log-probs) for each token; the last is the end token without text."""
        said = self.options["says"].get(body["messages"][-1]["content"])
        if isinstance(said, list):
            said = said.pop(0)
        pieces = None if said is None else [said[at : at + 4] for at in range(0, len(said), 4)]
        count = len(pieces) + 1 if pieces else body.get("max_completion_tokens") or body.get("max_tokens") or 5
        for step in range(count):
            await asyncio.sleep(self.options["tick"])
            await self.running.wait()
            while self.options["hold_at"] is not None and step >= self.options["hold_at"]:
                await self.changed.wait()
            if self.options["die_after"] is not None and step >= self.options["die_after"]:
                os._exit(1)
            word = self.adapters.get(body["model"], self.weights)["word"]
            last = step == count - 1
            text = "" if last else pieces[step] if pieces else f"{word}{step} "
            yield step, text, [2 if last else 100 + step], [-0.5 - step / 100]


engine = Engine()


def authorized(request: Request) -> bool:
    return request.headers.get("authorization") == f"Bearer {KEY}"


def refuse(status: int, message: str, param: str | None = None) -> JSONResponse:
    body = {"error": {"message": message, "type": "BadRequestError", "param": param, "code": status}}
    return JSONResponse(body, status_code=status)


def logprobs(tokens: list[int], values: list[float], text: str, top: int = 0) -> dict[str, Any]:
    others = [{"token": f"t{rank}", "bytes": None, "logprob": -1.0 - rank} for rank in range(top)]
    entry = {"token": text, "bytes": list(text.encode()), "top_logprobs": others}
    return {"content": [{**entry, "logprob": value} for _, value in zip(tokens, values, strict=True)]}


async def chat(request: Request) -> Response:
    body = await request.json()
    engine.bodies.append(body)
    if not authorized(request):
        return refuse(401, "Unauthorized")
    if body["model"] != "policy" and body["model"] not in engine.adapters:
        return refuse(404, f"The model `{body['model']}` does not exist.")
    if (body.get("temperature") or 0) > 2:
        return refuse(400, "temperature must be in [0, 2]", "temperature")
    if not body["stream"]:
        return refuse(400, "the gateway always streams")
    trouble, form = TROUBLES.get(body["messages"][-1]["content"]), asked_form(body)
    answer = trouble() if trouble else in_form(body, form) if form else stream(body)
    return StreamingResponse(answer, media_type="text/event-stream")


async def refusal_after_headers() -> AsyncIterator[str]:
    """As vLLM answers when it finds the fault only once it streams."""
    error = {"message": "the prompt is too long", "type": "BadRequestError", "param": "messages", "code": 400}
    yield f"data: {json.dumps({'error': error})}\n\ndata: [DONE]\n\n"


async def silence() -> AsyncIterator[str]:
    await asyncio.sleep(3600)
    yield ""


async def broken_connection() -> AsyncIterator[str]:
    yield ": nothing yet\n\n"
    raise ConnectionAbortedError


async def garbage() -> AsyncIterator[str]:
    yield "data: {broken\n\n"
    await asyncio.sleep(3600)


async def no_finish() -> AsyncIterator[str]:
    yield "data: [DONE]\n\n"


# What a user says to get into trouble.
TROUBLES = {
    "late refusal": refusal_after_headers, "silence": silence, "broken connection": broken_connection,
    "garbage": garbage, "no finish": no_finish,
}  # fmt: skip


def asked_form(body: dict[str, Any]) -> dict[str, Any] | None:
    """The delta of an answer whose form the request dictates: a forced call, or JSON by a schema of texts."""
    if isinstance(body.get("tool_choice"), dict):
        function = {"name": body["tool_choice"]["function"]["name"], "arguments": '{"city": "Rome"}'}
        return {"tool_calls": [{"index": 0, "id": "call-1", "type": "function", "function": function}]}
    if (body.get("response_format") or {}).get("type") == "json_schema":
        schema = body["response_format"]["json_schema"]["schema"]
        return {"content": json.dumps(dict.fromkeys(schema["properties"], "Rome"))}
    return None


async def in_form(body: dict[str, Any], delta: dict[str, Any]) -> AsyncIterator[str]:
    """The whole answer in one token."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": "", **delta}, "token_ids": [2]}
    said = {"logprobs": logprobs([2], [-0.5], "x"), "finish_reason": "stop"}
    facts = {"id": "chatcmpl-vllm", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    yield f"data: {json.dumps({**facts, 'choices': [choice | said], 'prompt_token_ids': prompt_ids(body)})}\n\n"
    yield "data: [DONE]\n\n"


def prompt_ids(body: dict[str, Any]) -> list[int]:
    return list("".join(message["content"] or "" for message in body["messages"]).encode())


def prompt_text(body: dict[str, Any]) -> dict[str, Any]:
    return {"prompt_text": body["messages"][-1]["content"]} if body.get("return_prompt_text") else {}


async def stream(body: dict[str, Any]) -> AsyncIterator[str]:
    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        facts = {"id": "chatcmpl-vllm", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        return f"data: {json.dumps({**facts, 'choices': choices, **more}, ensure_ascii=False)}\n\n"

    engine.active += 1
    n, top, complete = body.get("n") or 1, body.get("top_logprobs") or 0, False
    try:
        async for step, text, ids, values in engine.words(body):
            for index in range(n):
                if step == 0:
                    role = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                    yield chunk([role], prompt_token_ids=prompt_ids(body), **prompt_text(body))
                end = engine.options["ends"].get(str(index), step + 2)
                if step >= end:
                    continue
                last = ids == [2] or step == end - 1
                more = " " * engine.options["pads"].get(body["messages"][-1]["content"], 0)
                told = logprobs(ids, values, text, top) if body.get("logprobs") else None
                yield chunk([{
                    "index": index, "delta": {"content": text + more} if text else {}, "token_ids": ids,
                    "logprobs": told, "finish_reason": "stop" if last else None,
                }])  # fmt: skip
        if (body.get("stream_options") or {}).get("include_usage"):
            yield chunk([], usage={"prompt_tokens": 3, "completion_tokens": step + 1, "total_tokens": step + 4})
        complete = True
        engine.finished += 1
        yield "data: [DONE]\n\n"
    finally:
        engine.active -= 1
        engine.aborted += not complete


async def completions(request: Request) -> Response:
    body = await request.json()
    engine.calls.append(f"score {body['model']}" if "prompt_logprobs" in body else "probe")
    engine.scoring += 1
    await asyncio.sleep(0.02)
    mixed = engine.scoring > 1 and engine.options["mixed_bug"]
    await engine.running.wait()
    while engine.options["hang"]:
        await asyncio.sleep(0.01)
    engine.scoring -= 1
    weights = engine.adapters.get(body["model"], engine.weights)
    if mixed and engine.adapters:
        weights = list(engine.adapters.values())[-1]
    if "prompt_logprobs" not in body:
        return JSONResponse({"choices": [{"index": 0, "text": "x"}]})
    choices = []
    for row, prompt in enumerate(body["prompt"]):
        scores = weights["scores"][row] if weights["scores"] else [-9.0] * (len(prompt) - 1)
        entries = [{str(token): {"logprob": score}} for token, score in zip(prompt[1:], scores, strict=True)]
        if not all(map(math.isfinite, scores)):
            return refuse(400, "Out of range float values are not JSON compliant")  # as vLLM says it
        choices.append({"index": row, "text": "x", "prompt_logprobs": [None, *entries]})
    return JSONResponse({"choices": choices})


async def pause(request: Request) -> Response:
    engine.calls.append(f"pause {request.query_params.get('mode')}")
    engine.running.clear()
    return JSONResponse({"status": "paused"})


async def resume(_: Request) -> Response:
    engine.calls.append("resume")
    engine.running.set()
    return JSONResponse({"status": "resumed"})


async def collective_rpc(request: Request) -> Response:
    path = (await request.json())["kwargs"]["weights_path"]
    calls = engine.calls
    calls.append("reload")
    began = time.monotonic()
    while time.monotonic() - began < engine.options["reload_s"]:  # which may be changed meanwhile
        await asyncio.sleep(0.005)
    if calls is not engine.calls:  # of a test that is over: its weights would come up in the middle of another's
        return refuse(500, "the engine was reset")
    engine.weights = json.loads((Path(path) / "weights.json").read_text())
    if engine.weights.get("kills_engine"):
        os._exit(1)
    return JSONResponse({"results": [None]})


async def weight_checker(_: Request) -> Response:
    engine.calls.append("checksum")
    return JSONResponse({"checksums": {f"dp0:pp0:pcp0:tp0:{k}": v for k, v in engine.weights["checksums"].items()}})


async def reset_prefix_cache(_: Request) -> Response:
    engine.calls.append("reset")
    return JSONResponse({"success": engine.active == 0})


async def load_adapter(request: Request) -> Response:
    body = await request.json()
    engine.calls.append(f"load {body['lora_name']}")
    if body["lora_name"] in engine.adapters:
        return refuse(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
    engine.roots[body["lora_name"]] = body["lora_path"]
    engine.adapters[body["lora_name"]] = json.loads((Path(body["lora_path"]) / "weights.json").read_text())
    return JSONResponse("loaded")


async def unload_adapter(request: Request) -> Response:
    name = (await request.json())["lora_name"]
    engine.calls.append(f"unload {name}")
    engine.roots.pop(name, None)
    if engine.adapters.pop(name, None) is None:
        return refuse(404, f"The lora adapter '{name}' cannot be found.")
    return JSONResponse("unloaded")


async def models(_: Request) -> Response:
    roots = {"policy": "/the/base", **engine.roots}
    return JSONResponse({"object": "list", "data": [{"id": name, "root": root} for name, root in roots.items()]})


async def update_weight_version(request: Request) -> Response:
    engine.label = (await request.json())["new_version"]
    return JSONResponse({"success": True})


async def weight_info(_: Request) -> Response:
    return JSONResponse({"weight_version": engine.label})


async def health(_: Request) -> Response:
    return Response()


async def state(_: Request) -> Response:
    names = ("active", "aborted", "finished", "calls", "bodies", "weights", "label")
    facts = {name: getattr(engine, name) for name in names}
    return JSONResponse({**facts, "adapters": list(engine.adapters), "paused": not engine.running.is_set()})


async def set_options(request: Request) -> Response:
    changes = await request.json()
    if changes.pop("reset", False):
        engine.reset()
    if path := changes.pop("started_with", None):
        engine.weights = json.loads((Path(path) / "weights.json").read_text())
    engine.options.update(changes)
    engine.changed.set()
    engine.changed = asyncio.Event()
    return Response()


def route(method: str, path: str, endpoint: Any) -> Route:
    return Route(path, endpoint, methods=[method])


app = Starlette(routes=[
    route("POST", "/v1/chat/completions", chat), route("POST", "/v1/completions", completions),
    route("POST", "/pause", pause), route("POST", "/resume", resume), route("POST", "/collective_rpc", collective_rpc),
    route("POST", "/weight_checker", weight_checker), route("POST", "/reset_prefix_cache", reset_prefix_cache),
    route("POST", "/v1/load_lora_adapter", load_adapter), route("POST", "/v1/unload_lora_adapter", unload_adapter),
    route("POST", "/update_weight_version", update_weight_version), route("GET", "/weight_info", weight_info),
    route("GET", "/v1/models", models), route("GET", "/health", health),
    route("GET", "/fake/state", state), route("POST", "/fake/set", set_options),
])  # fmt: skip

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
