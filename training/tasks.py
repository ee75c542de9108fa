"""What a worker does when it is hinted to. Losing or repeating any of these messages changes nothing."""

import logging
import os
import socket
import threading
from contextlib import closing
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from redis.exceptions import RedisError

from feedback.rounds.book import RoundBook
from feedback.settings import Settings
from feedback.store import connect
from training.release_scores import score_open_release
from training.round.cancelled import clear_left
from training.round.publish import let_in_kept_back
from training.round.round import Stopped, run_round
from training.schedule import release_of_dead, round_in_need

log = logging.getLogger(__name__)

ALIVE = "worker:alive"
ALIVE_TTL_S = 15
ALIVE_EVERY_S = 5.0

OWNER = f"{socket.gethostname()}:{os.getpid()}"
stopping = threading.Event()


@shared_task
def tick() -> None:
    """Open a round when one is due, hint at the open round while nobody works on it, clear what cancelled ones left,
    let in what a freeze kept back."""
    settings = Settings()
    with closing(connect(settings.resolved_redis_url())) as redis:
        waiting = round_in_need(settings, redis)
        if waiting is not None:
            advance.delay(waiting)
        clear_left(settings, redis)
        let_in_kept_back(settings, redis)


@shared_task
def advance(round_id: int) -> None:
    """Work on a round until it ends, unless somebody else does."""
    settings = Settings()
    redis = connect(settings.resolved_redis_url())
    try:
        run_round(settings, redis, round_id, owner=OWNER, stopping=stopping)
    except Stopped as stopped:
        log.info("%s", stopped)
    finally:
        redis.close()


@shared_task
def score() -> None:
    """Score what the release under way has answered since the last time."""
    settings = Settings()
    redis = connect(settings.resolved_redis_url())
    try:
        score_open_release(settings, redis, stopping)
    except Stopped as stopped:
        log.info("%s", stopped)
    finally:
        redis.close()


@worker_ready.connect
def _start(**_: Any) -> None:
    redis = connect(Settings().resolved_redis_url())
    release_of_dead(RoundBook(redis), OWNER)
    redis.close()
    tick.delay()  # an open round need not wait for beat
    threading.Thread(target=_keep_announcing, name="alive", daemon=True).start()


@worker_shutting_down.connect
@worker_shutdown.connect
def _stop(**_: Any) -> None:
    """Runs inside the signal handler: the round in this very process sees it and lets go."""
    stopping.set()


def _keep_announcing() -> None:
    """Refresh the key that says a worker lives, until this process stops or dies."""
    redis = connect(Settings().resolved_redis_url())
    while not stopping.is_set():
        try:
            redis.set(ALIVE, OWNER, ex=ALIVE_TTL_S)
        except RedisError as error:  # the supervisor restarts Redis; the key comes back with it
            log.warning("cannot refresh %s: %s", ALIVE, error)
        stopping.wait(ALIVE_EVERY_S)
