-- The arithmetic of one account with the money around it, in one atomic step: the same as account.rs, window.rs, pace.rs
-- and day.rs, operation by operation, and a test holds the two together. Times are microseconds; every number stays below
-- 2^53, where a double is exact.
--
-- KEYS: the account, calls in flight by account, open calls, their leases, money.
local op, id, run, account = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local N = {}
for i = 6, 42 do N[i] = tonumber(ARGV[i]) or 0 end
local tokens, lease, horizon, longest, guard = N[6], N[8], N[9], N[10], N[34]

local A, changed = {}, {}
do
  local raw = redis.call('HGETALL', KEYS[1])
  for i = 1, #raw, 2 do A[raw[i]] = raw[i + 1] end
end
local function get(field) return tonumber(A[field]) or 0 end
local function whole(number) return string.format('%.0f', number) end
local function set(field, number)
  A[field] = whole(number)
  changed[field] = A[field]
end

local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
if get('seen') > now then now = get('seen') else set('seen', now) end

-- Window logs: 'h' newest bucket, 't' total, 'w' width, 'c' counts.
local function oldest(l) return math.max(0, l.h + 1 - l.n) end
local function advance(l, bucket)
  if bucket <= l.h then return end
  local fresh = math.min(bucket - l.h, l.n)
  for passed = bucket + 1 - fresh, bucket do
    local slot = passed % l.n + 1
    l.t = math.max(0, l.t - l.c[slot])
    l.c[slot] = 0
  end
  l.h = bucket
end
local function add(l, at, amount)
  local bucket = math.floor(at / l.w)
  advance(l, bucket)
  if bucket >= oldest(l) then
    local slot = bucket % l.n + 1
    l.c[slot] = l.c[slot] + amount
    l.t = l.t + amount
  end
end
local function remove(l, at, amount)
  local bucket = math.floor(at / l.w)
  if bucket >= oldest(l) and bucket <= l.h then
    local slot = bucket % l.n + 1
    local taken = math.min(amount, l.c[slot])
    l.c[slot] = l.c[slot] - taken
    l.t = math.max(0, l.t - taken)
  end
end
local function earliest(l, from, amount)
  local at, held = from, l.t
  for bucket = oldest(l), l.h do
    local leaves = (bucket + 1) * l.w + l.reach
    if leaves > at then
      if held + amount <= l.limit then break end
      at = leaves
    end
    held = math.max(0, held - l.c[bucket % l.n + 1])
  end
  return at
end
local function log(field, at)
  if N[at] == 0 then return nil end
  local l = { field = field, limit = N[at], reach = N[at + 1], w = N[at + 2], n = N[at + 3], h = 0, t = 0, c = {} }
  for i = 1, l.n do l.c[i] = 0 end
  local kept = A[field] and cmsgpack.unpack(A[field])
  if kept and kept.w == l.w and #kept.c == l.n then
    l.h, l.t, l.c = kept.h, kept.t, kept.c
  elseif kept then
    -- The limits were changed: what was sent is told to the new log, at the last moment of its bucket.
    for bucket = math.max(0, kept.h + 1 - #kept.c), kept.h do
      local count = kept.c[bucket % #kept.c + 1]
      if count > 0 then add(l, (bucket + 1) * kept.w - 1, count) end
    end
  end
  return l
end
local function keep(l)
  if l then changed[l.field] = cmsgpack.pack({ h = l.h, t = l.t, w = l.w, c = l.c }) end
end

local minute, short, volume = log('m', 11), log('s', 15), log('v', 22)

-- Paces.
local function cost(p, amount) return math.ceil(amount * p.period / p.rate) end
local function pace(field, at)
  return { field = field, rate = math.max(1, N[at]), period = N[at + 1], slack = N[at + 2] }
end
local requests, volumes = pace('pr', 19), pace('pv', 26)
local function not_before(p, from) return math.max(from, get(p.field) - p.slack) end
local function take(p, at, amount) set(p.field, math.max(get(p.field), at) + cost(p, amount)) end
local function recover(p, l)
  local since, paid = 0, 0
  for bucket = l.h, oldest(l), -1 do
    local count = l.c[bucket % l.n + 1]
    if count > 0 then
      since = since + count
      paid = math.max(paid, math.min((bucket + 1) * l.w - 1, get('newest')) + cost(p, since))
    end
  end
  set(p.field, math.min(get(p.field), paid))
end

-- Days: N[30] to N[33] are four midnights around now.
local per_day = N[29]
local function day_of(at)
  if at >= get('ds') and at < get('de') then return get('ds'), get('de') end
  for i = 30, 32 do
    if at >= N[i] and at < N[i + 1] then return N[i], N[i + 1] end
  end
  return N[32], N[33]
end
local function room(at, day)
  if day == get('ds') and get('dc') >= per_day then return nil, get('de') + guard end
  return at
end
local function place(at)
  local first, last = day_of(at)
  if last - at <= guard then return room(last + guard, last) end
  local there = room(math.max(at, first + guard), first)
  if there then return there end
  return nil, last + guard
end
local function day_take(at)
  if at >= get('de') then
    local first, last = day_of(at)
    set('ds', first)
    set('de', last)
    set('dc', 0)
  end
  if at >= get('ds') then set('dc', get('dc') + 1) end
end

local DAY, PAUSED, HORIZON = 1, 2, 3
local function away()
  if get('parked') > now then return get('parked'), DAY end
  if get('paused') > now + horizon then return get('paused'), PAUSED end
  if per_day > 0 then
    local _, full = place(math.max(now, get('newest')))
    if full then return full, DAY end
  end
  if volume then
    local debt = not_before(volumes, now)
    if debt > now + longest then return debt, HORIZON end
  end
end

local function appoint()
  local at, why = away()
  if at then return nil, at, why end
  at = math.max(now, get('newest'), get('paused'))
  if minute then
    at = earliest(minute, not_before(requests, at), 1)
    if short then at = earliest(short, at, 1) end
  end
  if volume then at = earliest(volume, not_before(volumes, at), tokens) end
  if per_day > 0 then
    local there, full = place(at)
    if not there then return nil, full, DAY end
    at = there
  end
  if get('newest') > now + horizon then
    local by_requests = minute and math.floor(60000000 / minute.limit) or 0
    local by_tokens = volume and math.floor(tokens * 60000000 / volume.limit) or 0
    local freed = math.max(get('turned') + math.max(by_requests, by_tokens), get('newest') - horizon)
    set('turned', math.max(math.min(freed, now + longest), now + 1))
    return nil, get('turned'), HORIZON
  end
  set('newest', at)
  if minute then
    add(minute, at, 1)
    if short then add(short, at, 1) end
    take(requests, at, 1)
  end
  if volume then
    add(volume, at, math.min(tokens, volume.limit))
    take(volumes, at, tokens)
  end
  if per_day > 0 then day_take(at) end
  return at
end

local function give_back(at, reserved)
  if minute then
    remove(minute, at, 1)
    if short then remove(short, at, 1) end
    recover(requests, short or minute)
  end
  if volume then
    remove(volume, at, reserved)
    recover(volumes, volume)
  end
  if per_day > 0 and at >= get('ds') and at < get('de') then set('dc', math.max(0, get('dc') - 1)) end
end

local function settle(at, reserved, actual)
  if not volume then return end
  actual = math.min(actual, volume.limit)
  remove(volume, at, math.max(0, reserved - actual))
  add(volume, at, math.max(0, actual - reserved))
  set('pv', math.max(0, get('pv') + cost(volumes, actual) - cost(volumes, reserved)))
end

-- Money: what is spent, reserved and unconfirmed, of each run ('r:') and of all ('t').
local function money(field, of, by)
  if by ~= 0 then redis.call('HINCRBY', KEYS[5], field .. ':' .. of, whole(by)) end
end
local function amount(field, of) return tonumber(redis.call('HGET', KEYS[5], field .. ':' .. of)) or 0 end
local function close(call, spent, unconfirmed, sent)
  for _, of in ipairs({ 't', 'r:' .. call.run }) do
    money('reserved', of, -call.bound)
    money('spent', of, spent)
    if unconfirmed then money('unconfirmed', of, spent) end
    money('calls', of, sent)
  end
  redis.call('HINCRBY', KEYS[2], call.account, -1)
  redis.call('HDEL', KEYS[3], call.id)
  redis.call('ZREM', KEYS[4], call.id)
end
local function open(which)
  local raw = redis.call('HGET', KEYS[3], which)
  return raw and cmsgpack.unpack(raw)
end
-- The holder of an expired lease is dead: its slot is free, and its call counts at its worst case.
local function reap()
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', whole(now), 'LIMIT', 0, 50)) do
    local call = open(dead)
    if call then close(call, call.bound, true, 1) else redis.call('ZREM', KEYS[4], dead) end
  end
end

local function reserve()
  local bound = N[7]
  reap()
  local known = open(id)
  if known then return { 1, known.at, now } end
  for i, of in ipairs({ 'r:' .. run, 't' }) do
    local ceiling = tonumber(ARGV[35 + i])
    local reserved = ceiling and amount('reserved', of)
    if ceiling and amount('spent', of) + reserved + bound > ceiling then
      local spent = amount('spent', of)
      return { spent + bound <= ceiling and 4 or 5, i, whole(spent) }
    end
  end
  if N[35] > 0 and (tonumber(redis.call('HGET', KEYS[2], account)) or 0) >= N[35] then return { 3 } end
  local at, later, why = appoint()
  if not at then return { 2, later, now, why } end
  for _, of in ipairs({ 't', 'r:' .. run }) do money('reserved', of, bound) end
  redis.call('HINCRBY', KEYS[2], account, 1)
  local call = { id = id, account = account, run = run, tokens = tokens, bound = bound, at = at }
  redis.call('HSET', KEYS[3], id, cmsgpack.pack(call))
  redis.call('ZADD', KEYS[4], whole(math.max(at, now) + lease), id)
  return { 1, at, now }
end

local answer
if op == 'reserve' then
  answer = reserve()
elseif op == 'settle' or op == 'back' then
  local call = open(id)
  answer = { call and 1 or 0 }
  if call and op == 'settle' then
    settle(call.at, call.tokens, N[38])
    close(call, N[39], N[40] == 1, 1)
  elseif call then
    give_back(call.at, call.tokens)
    close(call, 0, false, 0)
  end
elseif op == 'pause' then
  set('paused', math.max(get('paused'), now + N[38]))
  answer = { 1 }
elseif op == 'park' then
  local _, last = day_of(now)
  set('parked', math.max(get('parked'), last + guard))
  answer = { 1 }
elseif op == 'away' then
  local at = away()
  answer = { 1, at or now, now }
end

keep(minute)
keep(short)
keep(volume)
local fields = {}
for field, value in pairs(changed) do
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
if #fields > 0 then redis.call('HSET', KEYS[1], unpack(fields)) end
return answer
