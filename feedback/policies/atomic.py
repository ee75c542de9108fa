"""The atomic steps of the registry, as Redis runs them."""

# Moves the pointer only from the version the caller saw, and never to one that was rejected. Replies what it found:
# the version that serves, the state of the one asked for, and whether it moved.
POINT = """
local current = redis.call('GET', KEYS[1]) or ''
local state = redis.call('HGET', KEYS[2], ARGV[2]) or ''
if current ~= ARGV[1] then return {current, state, 0} end
local servable = {candidate = 1, canary = 1, stable = 1, retired = 1, rolled_back = 1}
if not servable[state] then return {current, state, 0} end
if current ~= '' then redis.call('HSET', KEYS[2], current, ARGV[5]) end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], 'stable')
redis.call('XADD', KEYS[3], '*', 'version', ARGV[2], 'from', current, 'action', ARGV[6], 'actor', ARGV[3],
  'reason', ARGV[4], 'time', ARGV[7])
return {current, state, 1}
"""

# `revision(audit)` is the id of the last line of the audit: whatever changed since, changed it.
REVISION = """
local function revision(audit)
  local last = redis.call('XREVRANGE', audit, '+', '-', 'COUNT', 1)
  return last[1] and last[1][1] or ''
end
"""

# Gives a version that does not serve another state, if nothing has changed since the caller looked.
SETTLE = """
if revision(KEYS[3]) ~= ARGV[1] or redis.call('GET', KEYS[1]) == ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
if ARGV[8] == '1' then redis.call('SADD', KEYS[4], ARGV[2]) end
redis.call('XADD', KEYS[3], '*', 'version', ARGV[2], 'from', '', 'action', ARGV[4], 'actor', ARGV[5],
  'reason', ARGV[6], 'time', ARGV[7])
return 1
"""

PIN = """
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state or state == 'deleted' then return -1 end
local changed = redis.call(ARGV[2] == 'pin' and 'SADD' or 'SREM', KEYS[3], ARGV[1])
if changed == 1 then
  redis.call('XADD', KEYS[2], '*', 'version', ARGV[1], 'from', '', 'action', ARGV[2], 'actor', ARGV[3],
    'reason', ARGV[4], 'time', ARGV[5])
end
return changed
"""

# Registers a version at most once, and only for the holder of the round's newest token.
PUBLISH = """
if KEYS[3] ~= '' then
  if redis.call('HGET', KEYS[3], 'token') ~= ARGV[2] then return 0 end
  if redis.call('HGET', KEYS[3], 'state') ~= 'running' then return 0 end
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 1 end
redis.call('HSET', KEYS[1], ARGV[1], 'candidate')
redis.call('XADD', KEYS[2], '*', 'version', ARGV[1], 'from', '', 'action', 'publish', 'actor', ARGV[3],
  'reason', ARGV[4], 'time', ARGV[5])
return 1
"""

RESERVE = """
local last = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) > last then last = tonumber(ARGV[1]) end
redis.call('SET', KEYS[1], last + 1)
return last + 1
"""
