"""What a cancelled round leaves on the disk is dropped: by its worker as it stops, or for one that is gone."""

from redis import Redis

from feedback.policies.registry import PolicyRegistry
from feedback.rounds.book import RoundRecord
from feedback.rounds.cancelling import note_cleared, uncleared
from feedback.settings import Settings
from training.round.publish import discard
from training.workspace import Workspace


def clear(settings: Settings, redis: Redis, round: RoundRecord) -> None:
    """Drop what people said, checkpoints, and a policy that was written but not registered: it would be found there."""
    workspace = Workspace(settings.rounds_dir, round.id, round.restarts)
    workspace.forget()
    workspace.tidy()
    if round.abandoned is not None:
        discard(PolicyRegistry(redis, settings.policies_dir), round.abandoned)
    note_cleared(redis, round.id)


def clear_left(settings: Settings, redis: Redis) -> None:
    """The same for those whose worker died, or that had none."""
    for round in uncleared(redis, let_go=True):
        clear(settings, redis, round)
