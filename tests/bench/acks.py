"""Feedback that is acknowledged only when it is on the disk, over HTTP: beside a bare route that does one XADD."""

import statistics
from collections.abc import Sequence
from itertools import count

import httpx
import rig
from figures import Figures, at_least, by_turns, percentile, ratio, summary
from rig import Round, Server

ACKS, CONNECTIONS, ANSWERS = 5000, (8, 32, 64), 50
_people = count()


def measure_acks(repeats: int) -> Figures:
    """Also of each side at the number of connections that suits it best, which are rounds of other minutes."""
    with rig.stage() as stage, rig.peer("xadd", stage.redis_url) as peer:
        ours = stage.gateway
        answers = [stored_answer(ours) for _ in range(ANSWERS)]
        taken = {
            connections: by_turns((ours, peer), repeats, lambda side, n=connections: rate(side, answers, n))
            for connections in CONNECTIONS
        }
    figures = {f"{connections} connections": beside(rounds) for connections, rounds in taken.items()}
    best = {name: max((rounds[name] for rounds in taken.values()), key=usual) for name in (ours.name, peer.name)}
    return figures | {"each at its best number of connections": beside(best)}


def beside(rounds: dict[str, list[Round]]) -> Figures:
    """Both sides in figures, and one over the other."""
    return {
        name: {
            "acks/s": summary(each, acks_per_s),
            "CPU us/ack": summary(each, cpu_us),
            "p50 latency, ms": summary(each, lambda done: 1000 * percentile(done.seen["latency_s"], 0.5)),
            "p99 latency, ms": summary(each, lambda done: 1000 * percentile(done.seen["latency_s"], 0.99)),
        }
        for name, each in rounds.items()
    } | {
        "gateway / xadd": {
            "acks/s": at_least(ratio(rounds["gateway"], rounds["xadd"], acks_per_s), 0.6),
            "CPU us/ack": ratio(rounds["gateway"], rounds["xadd"], cpu_us),
        }
    }


def stored_answer(gateway: Server) -> str:
    """The id of an answer of 200 tokens in the ledger."""
    body = {"model": "policy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 200}
    headers = {"authorization": f"Bearer {gateway.key}"}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=30)
    return str(answer.raise_for_status().json()["ratchet"]["completion_ids"][0])


def rate(side: Server, answers: Sequence[str], connections: int) -> Round:
    """Each rating is a new person's: the second of one person on one answer would be a revision."""
    bodies = [
        {"type": "rating", "completion_id": answers[n % len(answers)], "value": n % 2, "user": f"p{next(_people)}"}
        for n in range(ACKS)
    ]
    return rig.load(side, "acks", path="/v1/feedback", bodies=bodies, connections=connections)


def acks_per_s(done: Round) -> float:
    return float(done.seen["acks"] / done.seen["seconds"])


def usual(rounds: Sequence[Round]) -> float:
    return statistics.median(map(acks_per_s, rounds))


def cpu_us(done: Round) -> float:
    return 1e6 * done.cpu_s / float(done.seen["acks"])
