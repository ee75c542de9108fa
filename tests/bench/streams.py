"""How fast answers pass through the gateway: beside bare proxies, and beside a running vLLM's own answers."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import rig
from figures import (
    Figures,
    at_least,
    below,
    by_turns,
    client_cpu_us,
    cpu_us,
    difference,
    failed,
    ratio,
    summary,
    tokens_per_s,
    ttft_ms,
    ttft_p99_ms,
)
from rig import Round, Server

LEVELS, OPENING = (64, 512), 32
# Paced: so many tokens a second from all open streams together that the process is mostly idle, and some more streams,
# one after another, whose time to first token is no queue's.
PACED_TOKENS_PER_S, PACED_S, PACED_GAP_S = 250, 12, 0.04
ENGINE_LEVELS, ENGINE_TOKENS = (1, 8, 32), 128
ASKED = "engine, asked as we ask"


def measure_stream(repeats: int) -> Figures:
    """Streams of 200 tokens, as fast as they go; then paced ones."""
    figures: Figures = {}
    with (
        rig.stage() as stage,
        rig.peer("httpx", stage.engine.url) as peer,
        rig.peer("aiohttp", stage.engine.url) as fast_peer,
    ):
        for level in LEVELS:
            sides, waves = (stage.gateway, peer, fast_peer, stage.engine), max(1, 128 // level)
            full = by_turns(sides, repeats, lambda side, n=level, w=waves: rig.chats(side, n, waves=w))
            paced = by_turns((stage.gateway, peer), repeats, lambda side, n=level: paced_chats(side, n))
            figures[f"{level} streams"] = compare(full, paced)
    return figures


def paced_chats(side: Server, level: int) -> Round:
    """The streams that were begun while `level` others were open."""
    tick = level / PACED_TOKENS_PER_S
    with ThreadPoolExecutor() as pool:
        others = pool.submit(
            rig.chats, side, level, tokens=int(PACED_S / tick), content=f"tick={tick}", opening=OPENING
        )  # fmt: skip
        probes = rig.chats(side, 1, waves=int(PACED_S / PACED_GAP_S), tokens=2, gap_s=PACED_GAP_S).seen
        seen = others.result().seen
    began = zip(probes["sent_at"], probes["ttft_s"], strict=True)
    ttft_s = [each for sent_at, each in began if seen["all_open_at"] < sent_at < seen["first_end_at"]]
    return Round({"ttft_s": ttft_s, "failed": seen["failed"] + probes["failed"]}, cpu_s=0)


def compare(full: dict[str, list[Round]], paced: dict[str, list[Round]]) -> Figures:
    figures: Figures = {
        name: {
            "tokens/s": summary(rounds, tokens_per_s),
            "CPU us/token": summary(rounds, cpu_us),
            "client's CPU us/token": summary(rounds, client_cpu_us),
            "p50 TTFT, ms": summary(rounds, ttft_ms),
            "failed streams": below(summary(rounds, failed), 1),
        }
        for name, rounds in full.items()
    }
    for name, rounds in paced.items():
        figures[name]["paced: p50 TTFT, ms"] = summary(rounds, ttft_ms)
        figures[name]["paced: p99 TTFT, ms"] = summary(rounds, ttft_p99_ms)
        figures[name]["paced: failed streams"] = below(summary(rounds, failed), 1)
    ours, peer = full["gateway"], full["httpx"]
    return figures | {
        "gateway / httpx": {
            "tokens/s": at_least(ratio(ours, peer, tokens_per_s), 0.5),
            "CPU us/token": ratio(ours, peer, cpu_us),
            "added p50 TTFT at full load, ms": below(difference(ours, peer, ttft_ms), 5),
            "paced: added p50 TTFT, ms": below(difference(paced["gateway"], paced["httpx"], ttft_ms), 5),
        }
    }


def measure_engine(repeats: int, gateway_url: str, api_key: str, engine_url: str, engine_key: str) -> Figures:
    """All sides get the same requests; `asked as we ask` has the engine count log-probs and ids too, as learning needs.

    So the gateway's own cost is told apart from what the engine takes for what the gateway asks it.
    """
    figures: Figures = {}
    ours, engine = running("gateway", gateway_url, api_key), running("engine", engine_url, engine_key)
    asked = running(ASKED, engine_url, engine_key)
    for level in ENGINE_LEVELS:
        rounds = by_turns((ours, engine, asked), repeats, lambda side, n=level: long_chats(side, n))
        figures[f"{level} streams"] = {
            name: {"tokens/s": summary(each, tokens_per_s), "p50 TTFT, ms": summary(each, ttft_ms)}
            for name, each in rounds.items()
        } | {
            "gateway / engine": {
                "tokens/s": at_least(ratio(rounds["gateway"], rounds["engine"], tokens_per_s), 0.97),
                "added p50 TTFT, ms": difference(rounds["gateway"], rounds["engine"], ttft_ms),
            },
            f"gateway / {ASKED}": {"tokens/s": ratio(rounds["gateway"], rounds[ASKED], tokens_per_s)},
        }
    return figures


def running(name: str, url: str, key: str) -> Server:
    """A service that somebody else started."""
    parts = urlsplit(url)
    return Server(name, parts.port or 80, pid=0, key=key, host=parts.hostname or rig.HOST)


def long_chats(side: Server, level: int) -> Round:
    """Every answer of the same length, to a prompt that no cache knows."""
    more = {"logprobs": True, "return_token_ids": True} if side.name == ASKED else {}
    return rig.chats(
        side, level, tokens=ENGINE_TOKENS, content="Tell a story. Number", watched=False, temperature=1.0,
        ignore_eos=True, **more,
    )  # fmt: skip
