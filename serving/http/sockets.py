"""File descriptors, of which each connection is one: how many there may be, and whether they are running out."""

import os
import resource
from contextlib import suppress

# Not for answers: Redis, policies that are read, and those who are told that there is no place for them.
RESERVE = 256
# Above what any system gives; some say that there is no limit.
MANY = 2**30


def raise_limit() -> int:
    """As many as the system lets this process have; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems let nobody have what they call the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limit()


def limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MANY if soft == resource.RLIM_INFINITY else soft


def answers_at_once(wanted: int) -> int:
    """So many answers, or fewer: each needs a connection to its client and one to the engine."""
    return max(1, min(wanted, (limit() - _reserve()) // 2))


def scarce() -> bool:
    """Whether half of the reserve is in use: whoever comes now is told to come again."""
    return _left() < _reserve() // 2


def nearly_gone() -> bool:
    """Whether three quarters are: whoever comes now is hung up on."""
    return _left() < _reserve() // 4


def _left() -> int:
    """At least so many files can still be opened: the kernel gives the lowest number that is free."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    os.close(lowest)
    return limit() - lowest


def _reserve() -> int:
    return min(RESERVE, limit() // 2)
