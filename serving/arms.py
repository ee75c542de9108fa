"""The two sides of a release in one gateway process: who answers a conversation, and with what chance."""

import hashlib
from dataclasses import dataclass, field

from feedback import records
from feedback.releases import Release
from serving.engine import Engine
from serving.swap_gate import SwapGate


@dataclass(frozen=True)
class Arm:
    """One policy at work: an engine, and the gate that knows what it holds."""

    name: records.Arm
    engine: Engine
    gate: SwapGate = field(default_factory=SwapGate)


@dataclass
class Arms:
    """Both sides; the candidate's gate is closed to all while there is no release. `release` is the open one."""

    stable: Arm
    candidate: Arm
    release: Release | None = None


def place_of(release_id: int, conversation_id: str) -> float:
    """Where in [0, 1) a conversation falls, evenly and for all of a release: below its weight candidate answers."""
    digest = hashlib.sha256(f"{release_id}:{conversation_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
