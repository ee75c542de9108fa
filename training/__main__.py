"""`python -m training worker|beat|round|stage|score|register-base`. Importing this costs neither torch nor celery."""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

from redis.exceptions import RedisError

from feedback.policies.manifest import BrokenPolicy
from feedback.rounds.book import RoundBook, RoundRecord, last_on_disk
from feedback.settings import Settings
from feedback.store import connect

WORKER = ["worker", "--pool=solo", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]


def worker() -> int:
    """Celery worker: waits for hints and works on rounds."""
    from training.celery import make_app

    make_app(Settings()).worker_main(WORKER)
    return 0


def beat() -> int:
    """Celery beat: ticks."""
    from training.celery import make_app

    make_app(Settings()).Beat(loglevel="INFO").run()
    return 0


def foreground_round() -> int:
    """Open a round, or take up the open one, and work on it here, without Celery."""
    from training.round.round import Stopped, run_round
    from training.schedule import release_of_dead

    settings = Settings()
    redis = connect(settings.resolved_redis_url())
    book, owner = RoundBook(redis), f"{socket.gethostname()}:{os.getpid()}"
    release_of_dead(book, owner)
    round_id, opened = book.request(trigger="operator", actor="cli", beyond=last_on_disk(settings.rounds_dir))
    print(f"round {round_id} {'opened' if opened else 'is open already'}", file=sys.stderr)
    try:
        record = run_round(settings, redis, round_id, owner=owner)
    except (KeyboardInterrupt, Stopped):
        print(f"round {round_id} stopped; it goes on with the next worker", file=sys.stderr)
        return 130
    return report(round_id, record)


def report(round_id: int, record: RoundRecord | None) -> int:
    """Say how it ended; 0 if something was published."""
    if record is None or record.is_open:
        print(f"round {round_id} is in the hands of another worker", file=sys.stderr)
        return 1
    print(f"round {round_id} {record.state}: {record.reason}")
    return 0 if record.state == "published" else 1


def stage(arguments: argparse.Namespace) -> int:
    """One stage of a round; started by the worker, one process each."""
    from training.round.stages import die_with_parent, run_stage

    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    return run_stage(Settings(), arguments.stage, arguments.round, arguments.token)


def score(arguments: argparse.Namespace) -> int:
    """What a release answered; started by the worker."""
    from training.release_scores import score_release
    from training.round.stages import die_with_parent

    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    score_release(Settings(), arguments.release)
    return 0


def register() -> int:
    """Make the base model version 0."""
    from training.register import register_base

    print(register_base(Settings()))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    commands.add_parser("worker", help=worker.__doc__)
    commands.add_parser("beat", help=beat.__doc__)
    commands.add_parser("round", help=foreground_round.__doc__)
    commands.add_parser("register-base", help=register.__doc__)
    one = commands.add_parser("stage", help=stage.__doc__)
    one.add_argument("stage")
    one.add_argument("--round", type=int, required=True)
    one.add_argument("--token", type=int, required=True)
    scored = commands.add_parser("score", help=score.__doc__)
    scored.add_argument("--release", type=int, required=True)
    for each in (one, scored):
        each.add_argument("--parent", type=int, help="die with this process")
    return root


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    arguments = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if arguments.command == "stage":
        return stage(arguments)
    if arguments.command == "round":
        signal.signal(signal.SIGTERM, _interrupt)
    command: dict[str, Callable[[], int]] = {
        "worker": worker, "beat": beat, "round": foreground_round, "register-base": register,
        "score": partial(score, arguments),
    }  # fmt: skip
    try:
        return command[arguments.command]()
    except (RedisError, BrokenPolicy, OSError, ValueError) as error:
        print(f"training {arguments.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
