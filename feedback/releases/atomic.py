"""The atomic steps of releases, as Redis runs them.

KEYS: the open release, the stable pointer, the states of all versions, the registry's audit, the releases' history.
"""

# ARGV: id, its JSON, the open release that was seen ('' = none), its revision, its JSON as replaced, its candidate and
# that one's former state, stable, candidate, actor, reason, time.
START = """
local open = redis.call('GET', KEYS[1]) or ''
if open ~= ARGV[3] then return 'open' end
if open ~= '' and redis.call('HGET', 'release:' .. open, 'revision') ~= ARGV[4] then return 'open' end
if redis.call('GET', KEYS[2]) ~= ARGV[8] then return 'stable' end
local state = redis.call('HGET', KEYS[3], ARGV[9]) or ''
local again = open ~= '' and ARGV[6] == ARGV[9] and state == 'canary'
if not again and state ~= 'candidate' and state ~= 'retired' and state ~= 'rolled_back' then return 'state' end
if open ~= '' then
  redis.call('HSET', 'release:' .. open, 'data', ARGV[5], 'revision', ARGV[4] + 1)
  redis.call('XADD', KEYS[5], '*', 'data', ARGV[5], 'actor', ARGV[10], 'reason', ARGV[11], 'time', ARGV[12])
  if redis.call('HGET', KEYS[3], ARGV[6]) == 'canary' then
    redis.call('HSET', KEYS[3], ARGV[6], ARGV[7])
    redis.call('XADD', KEYS[4], '*', 'version', ARGV[6], 'from', '', 'action', 'replaced', 'actor', ARGV[10],
      'reason', ARGV[11], 'time', ARGV[12])
  end
end
redis.call('HSET', 'release:' .. ARGV[1], 'data', ARGV[2], 'revision', 0)
redis.call('SET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[9], 'canary')
redis.call('XADD', KEYS[4], '*', 'version', ARGV[9], 'from', '', 'action', 'canary', 'actor', ARGV[10],
  'reason', ARGV[11], 'time', ARGV[12])
redis.call('XADD', KEYS[5], '*', 'data', ARGV[2], 'actor', ARGV[10], 'reason', ARGV[11], 'time', ARGV[12])
return 'ok'
"""

# ARGV: id, the revision that was seen, the new JSON, its state if that is final, candidate, its policy state from then
# on, stable, actor, reason, time. A promotion moves the pointer in the same step; where the pointer was moved outside
# of the release, be it to the candidate, there is none, and none is rolled back from it.
MOVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'open' end
if redis.call('HGET', 'release:' .. ARGV[1], 'revision') ~= ARGV[2] then return 'open' end
local state = redis.call('HGET', KEYS[3], ARGV[5]) or ''
local decided = ARGV[4] == 'promoted' or ARGV[4] == 'rolled_back'
if decided and redis.call('GET', KEYS[2]) ~= ARGV[7] then return 'stable' end
if ARGV[4] == 'promoted' then
  if state ~= 'canary' then return 'state' end
  redis.call('HSET', KEYS[3], ARGV[7], 'retired', ARGV[5], 'stable')
  redis.call('SET', KEYS[2], ARGV[5])
  redis.call('XADD', KEYS[4], '*', 'version', ARGV[5], 'from', ARGV[7], 'action', 'promote', 'actor', ARGV[8],
    'reason', ARGV[9], 'time', ARGV[10])
elseif ARGV[4] ~= '' and state == 'canary' then
  redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
  redis.call('XADD', KEYS[4], '*', 'version', ARGV[5], 'from', '', 'action', ARGV[4], 'actor', ARGV[8],
    'reason', ARGV[9], 'time', ARGV[10])
end
redis.call('HSET', 'release:' .. ARGV[1], 'data', ARGV[3], 'revision', ARGV[2] + 1)
redis.call('XADD', KEYS[5], '*', 'data', ARGV[3], 'actor', ARGV[8], 'reason', ARGV[9], 'time', ARGV[10])
if ARGV[4] ~= '' then redis.call('DEL', KEYS[1]) end
return 'ok'
"""
