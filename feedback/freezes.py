"""What must not happen by itself for now: rounds of learning, or releases. Who said so, when and why, is kept."""

import time
from typing import Any, Literal

from redis import Redis

from feedback.records import Record

Frozen = Literal["learning", "releases"]
AUDIT = "freezes:audit"

# The change and its line in the audit together; what changes nothing is not written down.
_SET = """
if (redis.call('GET', KEYS[1]) or '0') == ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[2], '*', 'data', ARGV[2])
return 1
"""


class FreezeLine(Record):
    """One of them began, or ended."""

    what: Frozen
    action: Literal["freeze", "unfreeze"]
    actor: str
    reason: str
    time: float


def set_frozen(redis: Redis, what: Frozen, frozen: bool, *, actor: str, reason: str) -> bool:
    """False when it is so already."""
    action: Literal["freeze", "unfreeze"] = "freeze" if frozen else "unfreeze"
    line = FreezeLine(what=what, action=action, actor=actor, reason=reason, time=time.time())
    return bool(redis.eval(_SET, 2, key(what), AUDIT, int(frozen), line.model_dump_json()))


def is_frozen(redis: Any, what: Frozen) -> bool:
    return bool(redis.get(key(what)) == "1")


def key(what: Frozen) -> str:
    return f"{what}:frozen"
