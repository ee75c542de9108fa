"""The ledger's atomic steps, as Redis runs them."""

# A repeat counts itself: WAITAOF waits for its own connection's writes, so what somebody else has just written is
# known to be on the disk only if a write follows it. What was erased while it was still being written stays erased, and
# what was asked for before its person or conversation was. A decoy is no head: if it comes first, the next one is. The
# frame of a response that is imported in pieces grows with them: it names the choices for whoever reads or erases them.
SERVE = """
local written, headless = 0, false
for _, of in ipairs({ARGV[8], ''}) do
  local at = redis.call('HGET', KEYS[9], of)
  if at and tonumber(at) >= tonumber(ARGV[7]) then redis.call('SADD', KEYS[8], ARGV[2]) end
end
if redis.call('SISMEMBER', KEYS[8], ARGV[2]) == 1 then redis.call('INCR', KEYS[2]) return 0 end
if redis.call('HSETNX', KEYS[3], 'data', ARGV[1]) == 1 then
  headless = true
  local parent = redis.call('HGET', KEYS[6], ARGV[4])
  if parent then redis.call('HSET', KEYS[3], 'parent', parent) end
  redis.call('ZADD', KEYS[4], 0, ARGV[2])
  if redis.call('HSETNX', KEYS[5], 'title', ARGV[5]) == 1 then redis.call('HSET', KEYS[5], 'created', ARGV[6]) end
  redis.call('HSET', KEYS[5], 'updated', ARGV[6])
  redis.call('ZADD', KEYS[7], ARGV[6], ARGV[3])
  redis.call('RPUSH', 'responses:' .. KEYS[5], ARGV[2])
else
  local frame, pattern = redis.call('HGET', KEYS[3], 'data'), '"choices":(%d+)'
  local more = string.match(ARGV[1], pattern)
  if tonumber(more) > tonumber(string.match(frame, pattern)) then
    redis.call('HSET', KEYS[3], 'data', (string.gsub(frame, pattern, '"choices":' .. more, 1)))
  end
end
if headless or redis.call('HDEL', KEYS[3], 'headless') == 1 then
  if ARGV[9] == '' then redis.call('HSET', KEYS[3], 'headless', 1)
  else
    redis.call('HSET', KEYS[5], 'head', ARGV[9])
    if ARGV[9] ~= ARGV[2] .. ':0' then redis.call('HSET', KEYS[3], 'head', ARGV[9]) end
  end
end
for i = 10, #ARGV, 4 do
  if redis.call('SET', 'completion:' .. ARGV[i], ARGV[i + 2], 'NX') then
    local entry = redis.call('XADD', KEYS[1], '*', 'id', ARGV[i], 'version', ARGV[i + 1])
    redis.call('HSET', KEYS[3], 'entry:' .. ARGV[i], entry)
    redis.call('HSET', KEYS[6], ARGV[i + 3], ARGV[i])
    written = written + 1
  end
end
if written == 0 then redis.call('INCR', KEYS[2]) end
return written
"""

# One atomic step: dedupe by client id, then by slot, then append. Validation happened before; writes come last. What is
# repeated under its client id does not come back to life: the reply says what became of it since.
APPEND = """
for i = 6, #ARGV do
  if redis.call('SISMEMBER', KEYS[7], string.match(ARGV[i], '^[^:]*')) == 1 then return {'erased', ARGV[i], 0} end
end
local known = redis.call('HGET', KEYS[3], ARGV[3])
if ARGV[3] ~= '' and known then
  local id, body = string.match(known, '^(%S+) (%S+)$')
  if body ~= ARGV[4] then return {'conflict', id, 0} end
  redis.call('INCR', KEYS[4])
  local item = redis.call('HMGET', 'feedback:item:' .. id, 'revision', 'slot', 'retracted')
  local stands = redis.call('HGET', KEYS[2], item[2]) == id
  return {stands and 'same' or item[3] and 'retracted' or 'replaced', id, tonumber(item[1])}
end
local replaces = redis.call('HGET', KEYS[2], ARGV[2]) or ''
local revision = 1
local status = 'created'
if replaces ~= '' then
  local item = redis.call('HMGET', 'feedback:item:' .. replaces, 'revision', 'body')
  if item[2] == ARGV[4] then
    if ARGV[3] ~= '' then
      redis.call('HSET', KEYS[3], ARGV[3], replaces .. ' ' .. ARGV[4])
      redis.call('HSET', 'feedback:item:' .. replaces, 'client:' .. ARGV[3], '')
    end
    redis.call('INCR', KEYS[4])
    return {'same', replaces, tonumber(item[1])}
  end
  revision = tonumber(item[1]) + 1
  status = 'revised'
end
local entry = redis.call('XADD', KEYS[1], '*', 'data', ARGV[5], 'revision', revision, 'replaces', replaces)
redis.call('HSET', 'feedback:item:' .. ARGV[1], 'data', ARGV[5], 'revision', revision, 'replaces', replaces,
  'body', ARGV[4], 'slot', ARGV[2], 'entry', entry)
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[5], 0, ARGV[1])
redis.call('ZADD', KEYS[6], 0, ARGV[1])
for i = 6, #ARGV do redis.call('SADD', 'feedback:on:' .. ARGV[i], ARGV[1]) end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[1] .. ' ' .. ARGV[4])
  redis.call('HSET', 'feedback:item:' .. ARGV[1], 'client:' .. ARGV[3], '')
end
return {status, ARGV[1], revision}
"""

RETRACT = """
local item = redis.call('HMGET', KEYS[3], 'slot', 'retracted')
if not item[1] then return 'unknown' end
if item[2] then redis.call('INCR', KEYS[4]) return 'retracted' end
local current = redis.call('HGET', KEYS[2], item[1])
if current ~= ARGV[1] then return current end
local entry = redis.call('XADD', KEYS[1], '*', 'retracts', ARGV[1], 'slot', item[1])
redis.call('HDEL', KEYS[2], item[1])
redis.call('HSET', KEYS[3], 'retracted', ARGV[2], 'retraction', entry)
return 'retracted'
"""
