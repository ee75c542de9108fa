"""Whether an answer is a plain draw from the policy: nothing tempers, cuts off, weighs or forces any of its tokens.

vLLM's log-probs are the model's own (its `logprobs_mode` is raw_logprobs, and OpenAI's do not know the temperature
either): those before temperature, penalties, truncation and constraints. So they are the log-probs of the draw exactly
when the draw was plain. Whether it was must be said when it is drawn: the ledger does not keep the whole request.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from serving.engine.server import Body

#: What leaves the policy's distribution as it is, and its completions to end by themselves.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "temperature": (1,), "top_p": (1,), "top_k": (0, -1), "min_p": (0,), "frequency_penalty": (0,),
    "presence_penalty": (0,), "repetition_penalty": (1,), "min_tokens": (0,), "ignore_eos": (False,),
    "logit_bias": ({},), "bad_words": ([],), "stop": ([],), "stop_token_ids": ([],), "tools": ([],),
    "response_format": ({"type": "text"},),
}  # fmt: skip
#: What the engine gets and draws no other token for. Everything unknown is thought to matter.
HARMLESS = frozenset({
    "n", "k", "seed", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "stream_options",
    "return_token_ids", "chat_template_kwargs", "documents", "parallel_tool_calls",
})  # fmt: skip

#: What changes how likely each token is, and leaves the policy to say what it likes for as long as it likes.
TEMPERING = frozenset({
    "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty",
})  # fmt: skip


def is_plain(forwarded: Body, shaped_by: Collection[str] = ()) -> bool:
    """Whether what the engine is asked leaves the draw plain; `shaped_by` are `engine_defaults`."""
    return _asked(forwarded) <= HARMLESS and all(forwarded.get(name) is not None for name in shaped_by)


def is_steered(forwarded: Body) -> bool:
    """Whether the request says what its answer may hold or where it ends. An answer that has nothing in it, or that the
    engine cannot write, is then its client's doing as likely as the policy's."""
    return not _asked(forwarded) <= HARMLESS | TEMPERING


def _asked(forwarded: Body) -> set[str]:
    """What the request sets otherwise than it is by itself."""
    return {name for name, value in forwarded.items() if value is not None and value not in NEUTRAL.get(name, ())}


def engine_defaults(model_dir: Path) -> tuple[str, ...]:
    """The fields that vLLM does not leave neutral where a request names none: it reads generation_config.json."""
    path = model_dir / "generation_config.json"
    try:
        config = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        return tuple(NEUTRAL)  # nobody can say
    known = {name: config[name] for name in NEUTRAL if config.get(name) is not None}
    return tuple(name for name, value in known.items() if value not in NEUTRAL[name])
