"""The Celery app: hints to look at the round book, carried by the same Redis. JSON only, no results.

The pool is solo: a task runs in the worker process itself and only watches a stage's child process. So there is no
pool process that could outlive a killed worker, and a warm shutdown reaches the running round as a signal.
"""

from typing import Any

from celery import Celery

from feedback.settings import Settings

TICK_S = 5.0
SCORE_EVERY_S = 300.0


def make_app(settings: Settings) -> Celery:
    """The app on the installation's Redis. Messages are hints, so they are acknowledged before they are acted on."""
    app = Celery("training", broker=settings.resolved_redis_url(), include=["training.tasks"])
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_default_queue="training",
        worker_pool="solo",
        worker_concurrency=1,
        # No limit: with one, a message that could not be acknowledged as Redis went away counts as being worked on for
        # ever, and the worker never asks for another. A solo worker takes none while it works anyway.
        worker_prefetch_multiplier=0,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be away for longer than any count allows for
        broker_transport_options={"visibility_timeout": 24 * 3600, "global_keyprefix": "celery:"},
        beat_scheduler="celery.beat:Scheduler",  # in memory: the tick is idempotent, so nothing needs remembering
        beat_max_loop_interval=TICK_S,
        beat_schedule={"tick": _every(TICK_S, "tick"), "score": _every(SCORE_EVERY_S, "score")},
    )
    return app


def _every(seconds: float, task: str) -> dict[str, Any]:
    """What waited behind a round is worthless: the next hint sees the same."""
    return {"task": f"training.tasks.{task}", "schedule": seconds, "options": {"expires": seconds}}
