-- The arithmetic of one account with the money around it, in one atomic step: the same as account.rs, limit.rs, learn.rs,
-- window.rs, pace.rs and day.rs, operation by operation, and a test holds the two together. Times are microseconds; every number stays below
-- 2^53, where a double is exact (but for tokens in use, beyond 150 million a minute). Many steps are taken in one call, since what is around them costs more than they do.
--
-- KEYS: the account, calls in flight by account, open calls, their leases, money.
-- ARGV: one JSON object, since many arguments cost more than the work. c: the clock (none: the server's); a: the account;
-- k: how many calls of this script for the account the caller knows of; n: how far ahead an appointment may be, the longest absence, 19 numbers of the limits, four midnights, their guard, the
-- places there are; s: the steps.
local asked = cjson.decode(ARGV[1])
local account, N, steps = asked.a, asked.n, asked.s
local horizon, longest, guard, places = N[1], N[2], N[26], N[27]

-- What is read and written in each call is small: numbers, and of each log what was touched lately.
local state, changed = {}, {}
local near = {}
do
  local raw = redis.call('HMGET', KEYS[1], 'state', 'm', 's', 'v')
  state = raw[1] and cmsgpack.unpack(raw[1]) or state
  near.m, near.s, near.v = raw[2], raw[3], raw[4]
end
local function get(field) return state[field] or 0 end
local function set(field, number) state[field] = number end
local function whole(number) return string.format('%d', number) end

local now = asked.c
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
if get('seen') > now then now = get('seen') else set('seen', now) end

-- A caller that knows of more than is here was told of what the store has lost since.
local lost = (asked.k or 0) > get('sequence')
set('sequence', math.max(get('sequence'), asked.k or 0) + 1)

-- Window logs: 'h' newest bucket, 't' total, 'w' width, 'n' buckets, 'd' counts of the buckets that were touched lately and how
-- many those are ('k'). All counts are kept beside it, and read where they are needed: a ring of hundreds would be most of the work.
local LATELY = 12
local function counts(l)
  if not l.c then
    local all = redis.call('HGET', KEYS[1], l.field .. '.all')
    l.c = all and cmsgpack.unpack(all) or {}
    if not all then
      for slot = 1, l.n do l.c[slot] = 0 end
    end
    for slot, count in pairs(l.d) do l.c[slot] = count end
  end
  return l.c
end
local function count(l, slot) return l.d[slot] or counts(l)[slot] end
local function put(l, slot, number)
  if not l.d[slot] then l.k = l.k + 1 end
  l.d[slot] = number
  if l.c then l.c[slot] = number end
  l.touched = true
end
local function oldest(l) return math.max(0, l.h + 1 - l.n) end
local function advance(l, bucket)
  if bucket <= l.h then return end
  local fresh = math.min(bucket - l.h, l.n)
  for passed = bucket + 1 - fresh, bucket do
    local slot = passed % l.n + 1
    l.t = math.max(0, l.t - count(l, slot))
    put(l, slot, 0)
  end
  l.h = bucket
end
local function add(l, at, amount)
  local bucket = math.floor(at / l.w)
  advance(l, bucket)
  if bucket >= oldest(l) then
    local slot = bucket % l.n + 1
    put(l, slot, count(l, slot) + amount)
    l.t = l.t + amount
  end
end
local function remove(l, at, amount)
  local bucket = math.floor(at / l.w)
  if bucket >= oldest(l) and bucket <= l.h then
    local slot = bucket % l.n + 1
    local there = count(l, slot)
    local taken = math.min(amount, there)
    put(l, slot, there - taken)
    l.t = math.max(0, l.t - taken)
  end
end
-- What was counted after `from` and up to `to`.
local function within(l, from, to)
  local c, sum = counts(l), 0
  for bucket = math.max(oldest(l), math.floor(from / l.w) + 1), math.min(l.h, math.floor(to / l.w)) do
    sum = sum + c[bucket % l.n + 1]
  end
  return sum
end
local function earliest(l, from, amount)
  -- All of it is in the log, and more would fit.
  if l.t + amount <= l.limit then return from end
  local at, held, c = from, l.t, counts(l)
  for bucket = oldest(l), l.h do
    local leaves = (bucket + 1) * l.w + l.reach
    if leaves > at then
      if held + amount <= l.limit then break end
      at = leaves
    end
    held = math.max(0, held - c[bucket % l.n + 1])
  end
  return at
end
local function log(field, at)
  local l = { field = field, limit = N[at], reach = N[at + 1], w = N[at + 2], n = N[at + 3], h = 0, t = 0, d = {}, k = 0 }
  local raw = near[field]
  if raw == nil then raw = redis.call('HGET', KEYS[1], field) end
  local kept = raw and cmsgpack.unpack(raw)
  if kept and kept.w == l.w and kept.n == l.n then
    l.h, l.t, l.d, l.k = kept.h, kept.t, kept.d, kept.k
  elseif kept and kept.n then
    -- The limits were changed: what was sent is told to the new log, at the last moment of its bucket.
    kept.field, l.c = field, {}
    for slot = 1, l.n do l.c[slot] = 0 end
    for bucket = oldest(kept), kept.h do
      local number = counts(kept)[bucket % kept.n + 1]
      if number > 0 then add(l, (bucket + 1) * kept.w - 1, number) end
    end
    l.k = LATELY + 1
  end
  return l
end
local function keep(l)
  if not l.touched then return end
  if l.k > LATELY then
    changed[l.field .. '.all'] = cmsgpack.pack(counts(l))
    l.d, l.k = {}, 0
  end
  changed[l.field] = cmsgpack.pack({ h = l.h, t = l.t, w = l.w, n = l.n, d = l.d, k = l.k })
end

-- Requests that are not declared are measured all the same.
local minute = log('m', 3)
local short, volume = N[7] > 0 and log('s', 7) or nil, N[14] > 0 and log('v', 14) or nil

-- Then every window counts as just filled.
if lost then
  local limited = N[3] > 0 or volume or get('r.allowed') > 0
  local reach = limited and minute.reach or 0
  lost = reach > 0
  set('paused', math.max(get('paused'), now + reach))
end

-- Paces.
local function cost(p, amount) return math.ceil(amount * p.period / p.rate) end
local function pace(field, at)
  return { field = field, rate = math.max(1, N[at]), period = N[at + 1], slack = N[at + 2] }
end
local requests, volumes = pace('pr', 11), pace('pv', 18)

-- What refusals taught, as learn.rs has it; of requests ('r') and of tokens ('t'), in thousandths.
local ONE, MOST, MINUTE = 1000, 10000000000, 60000000
local DECLARED = { r = N[3], t = N[14] }
local function learned(of)
  local allowed = get(of .. '.allowed')
  if allowed == 0 then return nil end
  -- What is declared may have been lowered since.
  local declared = DECLARED[of] > 0 and math.min(DECLARED[of], MOST) or MOST
  return math.max(1, math.min(declared, math.floor(allowed / ONE)))
end
local function apply()
  local n = learned('r') or (N[3] > 0 and N[3]) or MOST
  minute.limit, requests.rate = n, math.max(1, n)
  if short then short.limit = math.min(N[7], math.max(12, math.floor(N[7] * n / N[3]))) end
  if volume then
    n = learned('t') or N[14]
    volume.limit, volumes.rate = n, math.max(1, n)
  end
end
local function current(of)
  local allowed, declared = get(of .. '.allowed'), math.min(DECLARED[of], MOST)
  if declared > 0 then return (allowed > 0 and math.min(allowed, declared * ONE)) or declared * ONE end
  return allowed > 0 and allowed or nil
end
local LOGS, REFUSED = { r = { minute, 'mr', 3 }, t = { volume, 'vr', 14 } }, {}
local function to_minute(of, amount, at)
  return math.floor(amount * MINUTE / math.min(math.max(at - get(of .. '.since'), 1000000), MINUTE))
end
local function in_use(of) return to_minute(of, within(LOGS[of][1], math.max(0, now - MINUTE), math.huge), now) end
local function settles(of, sent) return get(of .. '.cut') > 0 and sent < get(of .. '.cut') + MINUTE / 6 end
local function refused(of, sent, amount, told)
  local taken, field, at = unpack(LOGS[of])
  REFUSED[of] = REFUSED[of] or log(field, at)
  if DECLARED[of] > 0 then amount = math.min(amount, DECLARED[of]) end
  add(REFUSED[of], sent, amount)
  local from = math.max(0, sent - MINUTE)
  local passed = to_minute(of, math.max(0, within(taken, from, sent) - within(REFUSED[of], from, sent)), sent)
  -- What passes is less than what is allowed, by what the logs keep back.
  local tight = of == 'r' and short or taken
  passed = math.floor(passed * (tight.reach + tight.w) / (tight.w * 250))
  if settles(of, sent) then return false end
  set(of .. '.refusals', get(of .. '.refusals') + 1)
  local now_allowed = current(of)
  local least = math.max(math.floor(math.min(DECLARED[of], MOST) * ONE / 20), ONE)
  told = told > 0 and told <= MOST and math.max(told, math.ceil(least / ONE)) or nil
  if told then
    set(of .. '.told', told)
    set(of .. '.heard', now)
  end
  if told and (not now_allowed or told * ONE < now_allowed) then
    set(of .. '.wall', told * ONE)
    set(of .. '.allowed', told * ONE)
    set(of .. '.sure', 1)
  else
    local measuring = get(of .. '.cut') > 0 and now < get(of .. '.cut') + MINUTE
    local enough = measuring and 80 or math.max(10, 2 * get(of .. '.noise'))
    local refusals = get(of .. '.refusals')
    if refusals < 3 or refusals * ONE < math.max(get(of .. '.calls'), 300) * enough then return false end
    local wall = math.min(math.max(passed, 1), MOST) * ONE
    if now_allowed then wall = math.min(now_allowed, math.max(wall, math.floor(now_allowed / 2))) end
    set(of .. '.wall', wall)
    set(of .. '.allowed', math.max(wall - math.floor(wall * 3 / 100), least))
    set(of .. '.sure', sent >= get(of .. '.since') + MINUTE and 1 or 0)
  end
  set(of .. '.cut', now)
  set(of .. '.raised', now)
  set(of .. '.raises', 0)
  set(of .. '.counted', now)
  set(of .. '.calls', 0)
  set(of .. '.refusals', 0)
  set(of .. '.fresh', 1)
  return true
end
local function called(of, at)
  if settles(of, at) then return end
  local calls = get(of .. '.calls')
  if calls >= 300 and at >= get(of .. '.counted') + MINUTE then
    local share = math.floor(get(of .. '.refusals') * ONE / calls)
    local measured = get(of .. '.fresh') == 1 and get(of .. '.sure') == 1
    set(of .. '.noise', math.min(share, measured and 80 or get(of .. '.noise')))
    set(of .. '.counted', at)
    set(of .. '.refusals', 0)
    set(of .. '.fresh', 0)
    calls = 0
  end
  set(of .. '.calls', calls + 1)
end
local function raise(of)
  local allowed, wall = get(of .. '.allowed'), get(of .. '.wall')
  if allowed == 0 or now < get(of .. '.raised') + MINUTE / 6 then return end
  set(of .. '.raised', now)
  if math.min(in_use(of), MOST) * 10 < learned(of) * 8 then return end
  local step
  if allowed * 1000 < wall * 995 then
    step = math.floor(wall / 200)
  elseif allowed * 1000 <= wall * 1005 then
    step = math.floor(wall / 1200)
  else
    set(of .. '.raises', math.min(get(of .. '.raises') + 1, 60))
    step = math.floor(allowed / 600) * get(of .. '.raises')
  end
  local believed = get(of .. '.told') > 0 and now < get(of .. '.heard') + 60 * MINUTE
  allowed = math.max(allowed, math.min(allowed + math.max(step, 50), (believed and get(of .. '.told') or MOST) * ONE))
  if DECLARED[of] > 0 and allowed >= math.min(DECLARED[of], MOST) * ONE then
    allowed = 0
    set(of .. '.wall', 0)
  end
  set(of .. '.allowed', allowed)
  apply()
end
apply()

local function not_before(p, from) return math.max(from, get(p.field) - p.slack) end
local function take(p, at, amount) set(p.field, math.max(get(p.field), at) + cost(p, amount)) end
local function recover(p, l)
  local since, paid, c = 0, 0, counts(l)
  for bucket = l.h, oldest(l), -1 do
    local number = c[bucket % l.n + 1]
    if number > 0 then
      since = since + number
      paid = math.max(paid, math.min((bucket + 1) * l.w - 1, get('newest')) + cost(p, since))
    end
  end
  set(p.field, math.min(get(p.field), paid))
end

-- Days: N[22] to N[25] are four midnights around now.
local per_day = N[21]
local function day_of(at)
  if at >= get('ds') and at < get('de') then return get('ds'), get('de') end
  for i = 22, 24 do
    if at >= N[i] and at < N[i + 1] then return N[i], N[i + 1] end
  end
  return N[24], N[25]
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

local function appoint(tokens)
  raise('r')
  if volume then raise('t') end
  local at, why = away()
  if at then return nil, at, why end
  at = math.max(now, get('newest'), get('paused'))
  at = earliest(minute, not_before(requests, at), 1)
  if short then at = earliest(short, at, 1) end
  if volume then at = earliest(volume, not_before(volumes, at), tokens) end
  if per_day > 0 then
    local there, full = place(at)
    if not there then return nil, full, DAY end
    at = there
  end
  if get('newest') > now + horizon then
    local by_requests = math.floor(60000000 / minute.limit)
    local by_tokens = volume and math.floor(tokens * 60000000 / volume.limit) or 0
    local freed = math.max(get('turned') + math.max(by_requests, by_tokens), get('newest') - horizon)
    set('turned', math.max(math.min(freed, now + longest), now + 1))
    return nil, get('turned'), HORIZON
  end
  set('newest', at)
  if get('r.since') == 0 then set('r.since', at) end
  called('r', at)
  add(minute, at, 1)
  if short then add(short, at, 1) end
  take(requests, at, 1)
  if volume then
    if get('t.since') == 0 then set('t.since', at) end
    called('t', at)
    add(volume, at, math.min(tokens, N[14]))
    take(volumes, at, tokens)
  end
  if per_day > 0 then day_take(at) end
  return at
end

local function give_back(at, reserved)
  remove(minute, at, 1)
  if short then remove(short, at, 1) end
  recover(requests, short or minute)
  if volume then
    remove(volume, at, reserved)
    recover(volumes, volume)
  end
  if per_day > 0 and at >= get('ds') and at < get('de') then set('dc', math.max(0, get('dc') - 1)) end
end

local function settle(at, reserved, actual)
  if not volume then return end
  actual = math.min(actual, N[14])
  remove(volume, at, math.max(0, reserved - actual))
  add(volume, at, math.max(0, actual - reserved))
  set('pv', math.max(0, get('pv') + cost(volumes, actual) - cost(volumes, reserved)))
end

-- Open calls: read together at the beginning, written together at the end.
local calls, opened, closed = {}, {}, {}
do
  local ids = {}
  for _, step in ipairs(steps) do
    if step[2] ~= '' then ids[#ids + 1] = step[2] end
  end
  if #ids > 0 then
    for i, raw in ipairs(redis.call('HMGET', KEYS[3], unpack(ids))) do
      calls[ids[i]] = raw and cmsgpack.unpack(raw) or nil
    end
  end
end

-- Money of each run ('r:'), of each day ('d:') and of all ('t'), as "calls spent reserved unconfirmed"; and what an operator
-- has set for them, which wins over what the caller brings. Written once, at the end.
local DAY_LENGTH = 86400000000
local today = math.floor(now / DAY_LENGTH)
local money, touched = {}, {}
local function read(names)
  for i, raw in ipairs(redis.call('HMGET', KEYS[5], unpack(names))) do
    -- What is known already may have been changed by a step before.
    if not money[names[i]] then
      local calls, spent, reserved, unconfirmed = string.match(raw or '0 0 0 0', '(%d+) (%d+) (%d+) (%d+)')
      money[names[i]] = {
        calls = tonumber(calls), spent = tonumber(spent),
        reserved = tonumber(reserved), unconfirmed = tonumber(unconfirmed),
      }
    end
  end
end
local function purse(of)
  if not money[of] then read({ of }) end
  return money[of]
end
local ceilings = {}
local function ceiling(run, which, brought)
  if not ceilings[run] then
    local set = redis.call('HMGET', KEYS[5], 'ceiling:r:' .. run, 'ceiling:d', 'ceiling:t')
    ceilings[run] = { tonumber(set[1]) or -1, tonumber(set[2]) or -1, tonumber(set[3]) or -1 }
  end
  local set = ceilings[run][which]
  return (set >= 0 and set) or (brought >= 0 and brought) or nil
end
local function book(call, field, by)
  if by == 0 then return end
  for _, of in ipairs({ 't', 'r:' .. call.run, 'd:' .. (call.day or whole(today)) }) do
    local purse = purse(of)
    purse[field] = math.max(0, purse[field] + by)
    touched[of] = purse
  end
end
local held
local function in_flight(by)
  held = held or tonumber(redis.call('HGET', KEYS[2], account)) or 0
  if by then held = held + by end
  return held
end
local function close(call, spent, unconfirmed, sent)
  book(call, 'reserved', -call.bound)
  book(call, 'spent', spent)
  if unconfirmed then book(call, 'unconfirmed', spent) end
  book(call, 'calls', sent)
  if call.place and call.account == account then
    in_flight(-1)
  elseif call.place then
    redis.call('HINCRBY', KEYS[2], call.account, -1)
  end
  calls[call.id], opened[call.id], closed[#closed + 1] = nil, nil, call.id
end
-- The holder of an expired lease is dead: its slot is free, and its call counts at its worst case. One that is just being
-- told of is alive. Looked for once a second.
local function reap()
  if now < get('reaped') + 1000000 then return end
  set('reaped', now)
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', whole(now), 'LIMIT', 0, 50)) do
    if not calls[dead] then
      local raw = redis.call('HGET', KEYS[3], dead)
      local call = raw and cmsgpack.unpack(raw)
      if call then close(call, call.bound, true, 1) else redis.call('ZREM', KEYS[4], dead) end
    end
  end
end

-- Each step: its name, an id, and what it takes.
local take = {}
-- The run; tokens, bound, lease; the ceilings of the run, of a day and of all (-1: none).
function take.reserve(id, run, tokens, bound, lease, of_run, of_day, of_all)
  local known = calls[id]
  if known then return { 1, known.at, now } end
  local day = whole(today)
  local scopes = { 'r:' .. run, 'd:' .. day, 't' }
  if not money[scopes[1]] then read(scopes) end
  for which, brought in ipairs({ of_run, of_day, of_all }) do
    local ceiling = ceiling(run, which, brought)
    if ceiling then
      local purse = purse(scopes[which])
      if purse.spent + purse.reserved + bound > ceiling then
        if purse.spent + bound <= ceiling then return { 4 } end
        return { 5, which, whole(purse.spent), whole((today + 1) * DAY_LENGTH - now) }
      end
    end
  end
  if places > 0 and in_flight() >= places then return { 3 } end
  local at, later, why = appoint(tokens)
  if not at then return { 2, later, now, why } end
  local call = { id = id, account = account, run = run, day = day, tokens = tokens, bound = bound, at = at }
  book(call, 'reserved', bound)
  -- Places are counted where there is a limit to them.
  if places > 0 then
    call.place = true
    in_flight(1)
  end
  calls[id], opened[id] = call, math.max(at, now) + lease
  return { 1, at, now }
end
function take.settle(id, tokens, spent, unconfirmed)
  local call = calls[id]
  if not call then return { 0 } end
  settle(call.at, call.tokens, tokens)
  close(call, spent, unconfirmed, 1)
  return { 1 }
end
function take.back(id)
  local call = calls[id]
  if not call then return { 0 } end
  give_back(call.at, call.tokens)
  close(call, 0, false, 0)
  return { 1 }
end
-- A refusal for being too fast: the pause, how long ago the call was sent, its tokens, what there was too much of, the limit
-- named. Says which limit that cuts (1: requests, 2: tokens) and to what.
function take.refused(_, pause, ago, tokens, of, told)
  set('paused', math.max(get('paused'), now + pause))
  local sent = math.max(0, now - ago)
  local function fill(of, l) return math.floor(in_use(of) * 1000 / math.max(1, l.limit)) end
  local cut
  if volume and (of == 'tokens' or of ~= 'requests' and fill('t', volume) > fill('r', minute)) then
    cut = refused('t', sent, tokens, told) and { 2, learned('t') }
  else
    cut = refused('r', sent, 1, told) and { 1, learned('r') }
  end
  apply()
  return cut or { 0 }
end
function take.pause(_, long)
  set('paused', math.max(get('paused'), now + long))
  return { 1 }
end
function take.park()
  local _, last = day_of(now)
  set('parked', math.max(get('parked'), last + guard))
  return { 1 }
end
function take.away() return { 1, away() or now, now } end

reap()
local answers = {}
for i, step in ipairs(steps) do answers[i] = take[step[1]](unpack(step, 2)) end

for _, l in pairs({ minute, short, volume, REFUSED.r, REFUSED.t }) do keep(l) end
-- A list that is long goes in pieces that the interpreter's stack holds.
local function write(command, key, list)
  for i = 1, #list, 200 do redis.call(command, key, unpack(list, i, math.min(i + 199, #list))) end
end
changed.state = cmsgpack.pack(state)
local fields = {}
for field, value in pairs(changed) do
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
write('HSET', KEYS[1], fields)
local purses = {}
for of, purse in pairs(touched) do
  purses[#purses + 1] = of
  purses[#purses + 1] = string.format('%d %d %d %d', purse.calls, purse.spent, purse.reserved, purse.unconfirmed)
end
write('HSET', KEYS[5], purses)
if held then redis.call('HSET', KEYS[2], account, whole(held)) end
write('HDEL', KEYS[3], closed)
write('ZREM', KEYS[4], closed)
local leases, packed = {}, {}
for id, ends in pairs(opened) do
  leases[#leases + 1] = whole(ends)
  leases[#leases + 1] = id
  packed[#packed + 1] = id
  packed[#packed + 1] = cmsgpack.pack(calls[id])
end
write('ZADD', KEYS[4], leases)
write('HSET', KEYS[3], packed)
answers[#answers + 1] = { get('sequence'), lost and 1 or 0 }
return answers
