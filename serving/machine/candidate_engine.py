"""The second engine under `ratchet up`: there while a release wants it, and no trouble to the other parts."""

import time
from collections.abc import Callable

from redis.exceptions import RedisError

from feedback.releases.pool import EnginePool, State, Wish
from serving.machine.children import CannotStart, Child
from serving.machine.terminal import Terminal

POLL_S = 1.0


class CandidateEngine:
    """One child at most. All methods belong to the supervisor's thread, and none of them waits.

    `create` makes a child that has not been started.
    """

    def __init__(self, pool: EnginePool, terminal: Terminal, create: Callable[[], Child]) -> None:
        self.child: Child | None = None
        self._pool, self._terminal, self._create = pool, terminal, create
        self._wish: Wish | None = None
        self._given_up: Wish | None = None
        self._news: tuple[Wish, State, str] | None = None
        self._told: tuple[Wish, State, str] | None = None
        self._ending_since: float | None = None
        self._asked = 0.0

    def tend(self) -> None:
        """Look once, and do what is due. Without Redis the last wish stands."""
        if time.monotonic() - self._asked >= POLL_S:
            self._exchange()
            self._asked = time.monotonic()
        if self._ending_since is not None:
            self._await_end(self._ending_since)
        elif self._wish is None or self._wish == self._given_up:
            self._end()
        else:
            self._run(self._wish)

    def _exchange(self) -> None:
        """Tell what is new, and ask what is wanted."""
        try:
            if self._news is not None and self._news != self._told:
                self._pool.tell(*self._news)
                self._told = self._news
            self._wish = self._pool.wish()
        except RedisError:
            return  # who runs Redis sees it, and says so

    def _run(self, wish: Wish) -> None:
        if self.child is None:
            self.child = self._create()
        try:
            self.child.tend()
        except CannotStart as error:
            self._terminal.trouble(self.child.spec.name, str(error))
            self._given_up, self.child = wish, None
            self._news = wish, "failed", str(error)
        else:
            self._news = wish, "ready" if self.child.is_ready else "starting", ""

    def _end(self) -> None:
        if self.child is not None:
            self.child.terminate()
            self._ending_since = time.monotonic()

    def _await_end(self, since: float) -> None:
        assert self.child is not None
        if self.child.is_gone():
            self._terminal.say(f"{self.child.spec.name} is not needed any more, and has ended")
            self.child = self._ending_since = self._news = self._told = None
        elif time.monotonic() - since > self.child.spec.grace_s:
            self.child.kill()
