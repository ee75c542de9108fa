"""The fake engine, but its chats stream as fast as they are read: chunks of vLLM's shape, built once.

`python fast_engine.py PORT`. A prompt with "tick=0.5" in it is answered with a token every half second instead, and
with "together" only once no other stream has begun for QUIET_S.
"""

import asyncio
import json
import random
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.serving import fake_engine  # noqa: E402

TICK = re.compile(r"tick=([\d.]+)")
QUIET_S = 15.0
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Crowd:
    """Streams that have begun and wait for each other."""

    def __init__(self) -> None:
        self.complete, self.timer = asyncio.Event(), None

    async def join(self) -> None:
        if self.timer:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(QUIET_S, self.complete.set)
        await self.complete.wait()


crowd = Crowd()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] == "/v1/chat/completions":
        await chat(receive, send)
    else:
        await fake_engine.app(scope, receive, send)


async def chat(receive: Any, send: Any) -> None:
    body = json.loads(await read(receive))
    prompt = body["messages"][-1]["content"]
    tick = TICK.search(prompt)
    pause = float(tick[1]) if tick else 0.0
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    role, *rest = answer(body["model"], body["max_tokens"], usage)
    await send(role)
    if "together" in prompt:
        await crowd.join()
        await asyncio.sleep(pause * random.random())  # not all in the same moment
    for message in rest:
        await send(message)
        # 0 lets the other streams have their turn: as in a batch, each gets one token a step.
        await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def read(receive: Any) -> bytes:
    raw, more = b"", True
    while more:
        message = await receive()
        raw, more = raw + message.get("body", b""), message.get("more_body", False)
    return raw


@cache
def answer(model: str, tokens: int, usage: bool) -> tuple[dict[str, Any], ...]:
    """All of a stream but its [DONE]: a chunk with the role, one for each token, the usage if it was asked for."""
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    chunks = [chunk(model, [role], prompt_token_ids=list(range(100, 140)))]
    chunks += [chunk(model, [token(step, last=step == tokens - 1)]) for step in range(tokens)]
    if usage:
        counts = {"prompt_tokens": 40, "completion_tokens": tokens, "total_tokens": 40 + tokens}
        chunks.append(chunk(model, [], usage=counts))
    return tuple({"type": "http.response.body", "body": each, "more_body": True} for each in chunks)


def chunk(model: str, choices: list[dict[str, Any]], **more: Any) -> bytes:
    facts = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1780000000}
    body = {**facts, "model": model, "choices": choices, **more}
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def token(step: int, *, last: bool) -> dict[str, Any]:
    text = "" if last else f" word{step}"
    shown = "<|im_end|>" if last else text
    entry = {"token": shown, "logprob": -0.7312345 - step / 1000, "bytes": list(shown.encode()), "top_logprobs": []}
    return {
        "index": 0, "delta": {"content": text}, "logprobs": {"content": [entry]},
        "finish_reason": "stop" if last else None, "token_ids": [2 if last else 20_000 + step],
    }  # fmt: skip


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
