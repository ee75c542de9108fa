"""What the open round learns from, noted so that to erase any of it starts the round again."""

from collections.abc import Sequence
from typing import Any

from redis import Redis

from feedback.policies.registry import STATES
from feedback.rounds.book import MOST_RESTARTS, OPEN, SOURCES, LeaseLost, key
from feedback.store import ERASED

# What the data holds is noted first and looked for among the erased then: an erasure comes before, and is seen here, or
# after, and sees what was noted.
_NOTE = """
local round = redis.call('HMGET', KEYS[1], 'state', 'token')
if round[1] ~= 'running' or round[2] ~= ARGV[1] then return -1 end
local whole, responses = 1, tonumber(ARGV[2])
redis.call('DEL', KEYS[2])
for i = 3, #ARGV do
  redis.call('SADD', KEYS[2], ARGV[i])
  local gone
  if i <= responses + 2 then gone = redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 1
  else gone = redis.call('EXISTS', 'feedback:item:' .. ARGV[i]) == 0 end
  if gone then whole = 0 end
end
return whole
"""

# For scripts that erase. `recall(id)`: if the open round's data holds this response or judgement, the round starts
# again under another token, with other files and another policy number. The round's id; 0 where it holds none of it, or
# has published by now, which is for the traces to name. Where somebody always erases something, a round would never
# end: after `MOST_RESTARTS` it goes on with what it has collected, and the reply is its id, negative.
RECALL = f"""
local function recall(source)
  local id = redis.call('GET', '{OPEN}')
  if redis.call('SISMEMBER', '{SOURCES}', source) == 0 or not id then return 0 end
  local round = 'round:' .. id
  local version = redis.call('HGET', round, 'policy_version')
  if version and redis.call('HEXISTS', '{STATES}', version) == 1 then return 0 end
  if tonumber(redis.call('HGET', round, 'restarts') or 0) >= {MOST_RESTARTS} then return -tonumber(id) end
  redis.call('DEL', '{SOURCES}')
  redis.call('HINCRBY', round, 'token', 1)
  redis.call('HINCRBY', round, 'restarts', 1)
  redis.call('HSET', round, 'state', 'queued', 'stage', 'collect', 'lease_until', 0, 'attempts', 0,
    'reason', 'data was erased; the round starts again')
  redis.call('HDEL', round, 'policy_version', 'progress', 'metrics')
  redis.call('DEL', round .. ':course')
  if version then redis.call('HSET', round, 'abandoned', version) end
  return tonumber(id)
end
"""


def note_sources(redis: Redis, round_id: int, token: int, *, responses: Sequence[str], feedback: Sequence[str]) -> bool:
    """Whether all that a round has collected is still there; from now on, erasing any of it starts the round again.

    Raises LeaseLost when the token is no longer the newest.
    """
    note: Any = redis.register_script(_NOTE)
    whole = note(keys=[key(round_id), SOURCES, ERASED], args=[token, len(responses), *responses, *feedback])
    if whole < 0:
        raise LeaseLost(f"round {round_id}: token {token} is no longer the newest")
    return bool(whole)
