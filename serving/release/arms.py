"""The two sides of a release in one gateway process: who answers a conversation, and with what chance."""

import hmac
from dataclasses import dataclass, field
from typing import NamedTuple

from feedback import records
from feedback.releases.book import Release
from serving.engine.server import SERVED_NAME, Engine
from serving.engine.swap_gate import SwapGate

STABLE, CANDIDATE = f"{SERVED_NAME}@stable", f"{SERVED_NAME}@candidate"


@dataclass(frozen=True)
class Arm:
    """One policy at work: an engine, and the gate that knows what it holds."""

    name: records.Arm
    engine: Engine
    gate: SwapGate = field(default_factory=SwapGate)

    def serves(self, version: int) -> bool:
        """Whether a request of now would be answered by this version without waiting."""
        served = self.gate.served
        return served is not None and served.version == version and not self.gate.swapping


class Side(NamedTuple):
    """Where a request goes. Under `release` chance put it there, with `propensity`; `moved` was put elsewhere."""

    arm: Arm
    release: int | None = None
    propensity: float | None = None
    moved: bool = False


@dataclass
class Arms:
    """Both sides; the candidate's gate is closed to all while there is no release. `release` is the open one.

    `salt` is a secret, or a client that names its conversations could name them so that they fall on a side.
    """

    stable: Arm
    candidate: Arm
    release: Release | None = None
    salt: bytes = b""

    @property
    def in_use(self) -> tuple[Arm, ...]:
        """The candidate's only while a release is open."""
        return (self.stable,) if self.release is None else (self.stable, self.candidate)

    @property
    def canary(self) -> Release | None:
        """The release under way, while its candidate serves."""
        release = self.release
        if release is None or release.state != "canary" or not self.candidate.serves(release.candidate):
            return None
        return release

    @property
    def contest(self) -> Release | None:
        """The release under way, while both its policies serve."""
        release = self.canary
        return release if release is not None and self.stable.serves(release.stable) else None

    def sides(self, model: str, rater: str, conversation_id: str) -> tuple[Side, ...]:
        """Where a person's chat goes, and where it moves to if the candidate is lost.

        While that one does not serve nobody is put anywhere by chance: what stable gets meanwhile proves nothing.
        """
        release = self.release
        if model != SERVED_NAME or release is None or release.state != "canary":
            return (Side(self.named(model)),)
        chosen = place_of(self.salt, release.id, rater, conversation_id) < release.weight
        instead = Side(self.stable, moved=chosen)
        if self.canary is None:
            return (instead,)
        if chosen:
            return (Side(self.candidate, release.id, release.weight), instead)
        return (Side(self.stable, release.id, 1 - release.weight),)

    def named(self, model: str) -> Arm:
        """Whose name it is: the stable one's, if it is nobody's."""
        stable, candidate = self.stable.gate.served, self.candidate.gate.served
        if candidate is None or (stable is not None and model == stable.name):
            return self.stable
        return self.candidate if model in (CANDIDATE, candidate.name) else self.stable


def place_of(salt: bytes, release_id: int, rater: str, conversation_id: str) -> float:
    """Where in [0, 1) a conversation falls, evenly and for all of a release: below its weight candidate answers.

    Everybody names their conversations as they like: an application may call all of them "default".
    """
    digest = hmac.digest(salt, f"{release_id}:{rater}|{conversation_id}".encode(), "sha256")
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # what a float holds: never rounded up to 1
