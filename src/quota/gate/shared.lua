-- The arithmetic of one account with the money around it, in one atomic step: the same as account.rs, limit.rs, learn.rs,
-- window.rs, pace.rs and day.rs, operation by operation, and a test holds the two together. Times are microseconds; every number
-- stays below 2^53, where a double is exact (but for tokens in use, beyond 150 million a minute).
--
-- It is a function of the server's, since every call of a fleet waits for it twice and making the functions below for each
-- call would be a quarter of its work. So what is declared here outlives a call: `begin` sets all of it anew.
--
-- What it keeps has no version: code that reads it otherwise takes other names for it, or all workers are stopped in between.
--
-- Keys: the books, and the counts of the account. The books have the account ('account:'), its refusals ('requests:' and
-- 'tokens:') and its calls in flight ('places:'); open calls ('call:'); the money of each run ('r:'), of each day ('d:') and of all
-- ('t'); and what an operator has set for that ('ceiling:'), which wins over what the caller brings. All in one hash, since each
-- further command would be a thirtieth of the work: what the steps need is read together, and what changed is written together.
-- Arguments: a list in JSON of the account, how many calls of this function for the account the caller knows of, the steps,
-- and the clock (none: the server's); and numbers of eight bytes: how far ahead an appointment may be, the longest absence,
-- 19 of the limits, four midnights, their guard, the places there are. Many steps are taken in one call, since what is
-- around them costs more than they do.
local max, min, floor, ceil, ZEROS, NUMBERS, ACCOUNT, SIMPLE, LOG, TAUGHT, MONEY
-- Bytes for the counts of one log.
local ROOM = 2400
-- The server's own functions are not there yet when these are loaded.
local function set_up()
  max, min, floor, ceil = math.max, math.min, math.floor, math.ceil
  local function eight(letter, times) return '<' .. string.rep(letter, times) end
  NUMBERS, MONEY, ZEROS = eight('I8', 27), eight('I8', 4), string.rep('\0', ROOM)
  ACCOUNT, SIMPLE, LOG, TAUGHT = eight('d', 56), eight('d', 11), eight('d', 5), eight('d', 15)
end
local function whole(number) return string.format('%d', number) end

-- What is asked.
local K, account, numbers, N, steps, now, horizon, longest, guard, places, per_day
-- What is known of the account: numbers, three logs, and two limits.
local seen, takings, paused, parked, newest, turned, reaped, cursor, day_from, day_to, day_taken
local logs, minute, short, volume, requests, tokens, lost
-- Open calls, and money.
local calls, opened, closed, today, this_day, found, purses, written, account_of, places_of, in_flight, in_flight_changed

-- Window logs: 'h' newest bucket, 'c' its count, 't' total, 'w' width, 'n' buckets. The counts of the buckets before are eight
-- bytes each of one string of the account: read where they are needed, and one written where one changes.
local function count(l, slot)
  if slot == l.h % l.n then return l.c end
  if not l.raw then l.raw = redis.call('GETRANGE', K[2], l.first, l.last) end
  return #l.raw >= slot * 8 + 8 and struct.unpack('<d', l.raw, slot * 8 + 1) or 0
end
local function put(l, slot, number)
  if slot == l.h % l.n then
    l.c = number
  else
    redis.call('SETRANGE', K[2], whole(l.from + slot * 8), struct.pack('<d', number))
    l.raw = nil
  end
end
local function oldest(l) return max(0, l.h + 1 - l.n) end
local function advance(l, bucket)
  if bucket <= l.h then return end
  local first, fresh, total = l.h % l.n, min(bucket - l.h, l.n), l.t
  for passed = bucket + 1 - fresh, bucket do total = max(0, total - count(l, passed % l.n)) end
  -- Whatever was lost of the counts.
  if fresh == l.n then total = 0 end
  -- What was the newest is written down, and those between are empty.
  local written = string.sub(ZEROS, 1, fresh * 8 - 8)
  written = (fresh < l.n and struct.pack('<d', l.c) or string.sub(ZEROS, 1, 8)) .. written
  local fits = min(fresh, l.n - first) * 8
  redis.call('SETRANGE', K[2], whole(l.from + first * 8), string.sub(written, 1, fits))
  if fits < #written then redis.call('SETRANGE', K[2], l.first, string.sub(written, fits + 1)) end
  l.h, l.c, l.t, l.raw = bucket, 0, total, nil
end
local function add(l, at, amount)
  local bucket = floor(at / l.w)
  advance(l, bucket)
  if amount > 0 and bucket >= oldest(l) then
    local slot = bucket % l.n
    put(l, slot, count(l, slot) + amount)
    l.t = l.t + amount
  end
end
local function remove(l, at, amount)
  local bucket = floor(at / l.w)
  if amount > 0 and bucket >= oldest(l) and bucket <= l.h then
    local slot = bucket % l.n
    local there = count(l, slot)
    local taken = min(amount, there)
    put(l, slot, there - taken)
    l.t = max(0, l.t - taken)
  end
end
-- What was counted after `from` and up to `to`.
local function within(l, from, to)
  local sum = 0
  for bucket = max(oldest(l), floor(from / l.w) + 1), min(l.h, floor(to / l.w)) do sum = sum + count(l, bucket % l.n) end
  return sum
end
local function earliest(l, from, amount)
  -- All of it is in the log, and more would fit.
  if l.t + amount <= l.limit then return from end
  local at, held = from, l.t
  for bucket = oldest(l), l.h do
    local leaves = (bucket + 1) * l.w + l.reach
    if leaves > at then
      if held + amount <= l.limit then return at end
      at = leaves
    end
    held = max(0, held - count(l, bucket % l.n))
  end
  -- Nothing, where no counts were lost.
  l.t = l.t - held
  return at
end
-- A log whose place among the counts is `area`, and what the caller knows of it from N[`at`] on.
local function log(area, at)
  local from = area * ROOM
  return {
    from = from, first = whole(from), last = whole(from + ROOM - 1),
    limit = N[at], reach = N[at + 1], width = N[at + 2], buckets = N[at + 3],
  }
end
-- Takes it as it is kept.
local function open_log(l, h, c, t, w, n)
  l.h, l.c, l.t, l.w, l.n, l.raw = h, c, t, w, n, nil
  -- Not declared this time.
  if l.buckets == 0 or w == l.width and n == l.buckets then return end
  -- The limits were changed: what was sent is told to the new log, at the last moment of its bucket.
  local sent = {}
  for bucket = oldest(l), n > 0 and h or -1 do
    local at, number = floor(((bucket + 1) * w - 1) / l.width), count(l, bucket % n)
    if number > 0 then sent[at] = (sent[at] or 0) + number end
  end
  l.h, l.c, l.t, l.w, l.n, l.raw = 0, 0, 0, l.width, l.buckets, nil
  for bucket in pairs(sent) do l.h = max(l.h, bucket) end
  local slots = {}
  for slot = 1, l.n do slots[slot] = string.sub(ZEROS, 1, 8) end
  for bucket, number in pairs(sent) do
    if bucket >= oldest(l) then
      l.c, l.t = bucket == l.h and number or l.c, l.t + number
      slots[bucket % l.n + 1] = struct.pack('<d', number)
    end
  end
  redis.call('SETRANGE', K[2], l.first, table.concat(slots))
end

-- Requests, or tokens: what is declared; what refusals taught, as learn.rs has it, in thousandths; and the pace.
local ONE, MOST, MINUTE = 1000, 10000000000, 60000000
local function limit(name, l, refused, at, pace)
  return {
    name = name, log = l, refused_log = refused,
    declared = N[at], rate = max(1, N[pace]), period = N[pace + 1], slack = N[pace + 2],
  }
end
local function open_limit(of, raw, at)
  of.refused = nil
  of.paid, of.allowed, of.wall, of.cut, of.sure, of.counted, of.calls, of.refusals, of.fresh, of.noise, of.raised, of.raises,
    of.told, of.heard, of.since = struct.unpack(TAUGHT, raw, at)
end
local function cost(of, amount) return ceil(amount * of.period / of.rate) end
local function per_minute(of)
  if of.allowed == 0 then return nil end
  -- What is declared may have been lowered since.
  local declared = of.declared > 0 and min(of.declared, MOST) or MOST
  return max(1, min(declared, floor(of.allowed / ONE)))
end
local function apply()
  local n = per_minute(requests) or (requests.declared > 0 and requests.declared) or MOST
  minute.limit, requests.rate = n, max(1, n)
  if short then short.limit = min(N[7], max(12, floor(N[7] * n / requests.declared))) end
  if volume then
    n = per_minute(tokens) or tokens.declared
    volume.limit, tokens.rate = n, max(1, n)
  end
end
local function current(of)
  local allowed, declared = of.allowed, min(of.declared, MOST)
  if declared > 0 then return (allowed > 0 and min(allowed, declared * ONE)) or declared * ONE end
  return allowed > 0 and allowed or nil
end
local function to_minute(of, amount, at)
  return floor(amount * MINUTE / min(max(at - of.since, 1000000), MINUTE))
end
local function in_use(of) return to_minute(of, within(of.log, max(0, now - MINUTE), math.huge), now) end
local function settles(of, sent) return of.cut > 0 and sent < of.cut + MINUTE / 6 end
-- What was refused is seldom needed, and read when it is.
local function refusals(of)
  if not of.refused then
    of.refused = of.refused_log
    open_log(of.refused, struct.unpack(LOG, redis.call('HGET', K[1], of.name .. account) or ZEROS))
  end
  return of.refused
end
local function refused(of, sent, amount, told)
  local taken, back = of.log, refusals(of)
  if of.declared > 0 then amount = min(amount, of.declared) end
  add(back, sent, amount)
  local from = max(0, sent - MINUTE)
  local passed = to_minute(of, max(0, within(taken, from, sent) - within(back, from, sent)), sent)
  -- What passes is less than what is allowed, by what the logs keep back.
  local tight = of == requests and short or taken
  passed = floor(passed * (tight.reach + tight.w) / (tight.w * 250))
  if settles(of, sent) then return false end
  of.refusals = of.refusals + 1
  local before = current(of)
  local least = max(floor(min(of.declared, MOST) * ONE / 20), ONE)
  told = told > 0 and told <= MOST and max(told, ceil(least / ONE)) or nil
  if told then of.told, of.heard = told, now end
  if told and (not before or told * ONE < before) then
    of.wall, of.allowed, of.sure = told * ONE, told * ONE, 1
  else
    local measuring = of.cut > 0 and now < of.cut + MINUTE
    local enough = measuring and 80 or max(10, 2 * of.noise)
    if of.refusals < 3 or of.refusals * ONE < max(of.calls, 300) * enough then return false end
    local wall = min(max(passed, 1), MOST) * ONE
    if before then wall = min(before, max(wall, floor(before / 2))) end
    of.wall = wall
    of.allowed = max(wall - floor(wall * 3 / 100), least)
    of.sure = sent >= of.since + MINUTE and 1 or 0
  end
  of.cut, of.raised, of.raises = now, now, 0
  of.counted, of.calls, of.refusals, of.fresh = now, 0, 0, 1
  return true
end
local function called(of, at)
  if of.since == 0 then of.since = at end
  if settles(of, at) then return end
  if of.calls >= 300 and at >= of.counted + MINUTE then
    local share = floor(of.refusals * ONE / of.calls)
    local measured = of.fresh == 1 and of.sure == 1
    of.noise = min(share, measured and 80 or of.noise)
    of.counted, of.calls, of.refusals, of.fresh = at, 0, 0, 0
  end
  of.calls = of.calls + 1
end
local function raise(of)
  local allowed, wall = of.allowed, of.wall
  if allowed == 0 or now < of.raised + MINUTE / 6 then return end
  of.raised = now
  if min(in_use(of), MOST) * 10 < per_minute(of) * 8 then return end
  local step
  if allowed * 1000 < wall * 995 then
    step = floor(wall / 200)
  elseif allowed * 1000 <= wall * 1005 then
    step = floor(wall / 1200)
  else
    of.raises = min(of.raises + 1, 60)
    step = floor(allowed / 600) * of.raises
  end
  local believed = of.told > 0 and now < of.heard + 60 * MINUTE
  allowed = max(allowed, min(allowed + max(step, 50), (believed and of.told or MOST) * ONE))
  if of.declared > 0 and allowed >= min(of.declared, MOST) * ONE then
    allowed, of.wall = 0, 0
  end
  of.allowed = allowed
  apply()
end
-- What was paid for, worked out again from what a log still holds.
local function recover(of, l)
  local since, paid = 0, 0
  for bucket = l.h, oldest(l), -1 do
    local number = count(l, bucket % l.n)
    if number > 0 then
      since = since + number
      paid = max(paid, min((bucket + 1) * l.w - 1, newest) + cost(of, since))
    end
  end
  of.paid = min(of.paid, paid)
end

-- Days: N[22] to N[25] are four midnights around now.
local function day_of(at)
  if at >= day_from and at < day_to then return day_from, day_to end
  for i = 22, 24 do
    if at >= N[i] and at < N[i + 1] then return N[i], N[i + 1] end
  end
  return N[24], N[25]
end
local function room(at, day)
  if day == day_from and day_taken >= per_day then return nil, day_to + guard end
  return at
end
local function place(at)
  local first, last = day_of(at)
  if last - at <= guard then return room(last + guard, last) end
  local there = room(max(at, first + guard), first)
  if there then return there end
  return nil, last + guard
end
local function day_take(at)
  if at >= day_to then
    day_from, day_to = day_of(at)
    day_taken = 0
  end
  if at >= day_from then day_taken = day_taken + 1 end
end

local DAY, PAUSED, HORIZON = 1, 2, 3
local function away()
  if parked > now then return parked, DAY end
  if paused > now + horizon then return paused, PAUSED end
  if per_day > 0 then
    local _, full = place(max(now, newest))
    if full then return full, DAY end
  end
  if volume then
    local debt = max(now, tokens.paid - tokens.slack)
    if debt > now + longest then return debt, HORIZON end
  end
end
local function take(of, at, amount)
  called(of, at)
  add(of.log, at, of.declared > 0 and min(amount, of.declared) or amount)
  of.paid = max(of.paid, at) + cost(of, amount)
end
local function appoint(amount)
  raise(requests)
  if volume then raise(tokens) end
  local at, why = away()
  if at then return nil, at, why end
  at = earliest(minute, max(now, newest, paused, requests.paid - requests.slack), 1)
  if short then at = earliest(short, at, 1) end
  if volume then at = earliest(volume, max(at, tokens.paid - tokens.slack), amount) end
  if per_day > 0 then
    local there, full = place(at)
    if not there then return nil, full, DAY end
    at = there
  end
  if newest > now + horizon then
    local by_requests = floor(MINUTE / minute.limit)
    local by_tokens = volume and floor(amount * MINUTE / volume.limit) or 0
    local freed = max(turned + max(by_requests, by_tokens), newest - horizon)
    turned = max(min(freed, now + longest), now + 1)
    return nil, turned, HORIZON
  end
  newest = at
  take(requests, at, 1)
  if short then add(short, at, 1) end
  if volume then take(tokens, at, amount) end
  if per_day > 0 then day_take(at) end
  return at
end
local function give_back(at, reserved)
  remove(minute, at, 1)
  if short then remove(short, at, 1) end
  recover(requests, short or minute)
  if volume then
    remove(volume, at, reserved)
    recover(tokens, volume)
  end
  if per_day > 0 and at >= day_from and at < day_to then day_taken = max(0, day_taken - 1) end
end
local function settle(at, reserved, actual)
  if not volume then return end
  actual = min(actual, tokens.declared)
  remove(volume, at, max(0, reserved - actual))
  add(volume, at, max(0, actual - reserved))
  tokens.paid = max(0, tokens.paid + cost(tokens, actual) - cost(tokens, reserved))
end

-- Calls that were sent, what is spent, reserved, and of what is spent unconfirmed.
local DAY_LENGTH = 86400000000
local function purse(of)
  local there = purses[of]
  if not there then
    local raw = found[of]
    if raw == nil then raw = redis.call('HGET', K[1], of) end
    there = {}
    there.calls, there.spent, there.reserved, there.unconfirmed = struct.unpack(MONEY, raw or ZEROS)
    purses[of] = there
  end
  return there
end
local function purses_of(run, day)
  return purse('r:' .. run), purse(day == today and this_day or 'd:' .. whole(day)), purse('t')
end
local function book(of, calls, spent, reserved, unconfirmed)
  of.calls, of.spent, of.changed = of.calls + calls, of.spent + spent, true
  of.reserved, of.unconfirmed = max(0, of.reserved + reserved), of.unconfirmed + unconfirmed
end
-- What a call is told that would pass a ceiling: whether calls under way hold the rest, or it is spent.
local function exceeded(which, of, set, brought, bound)
  local ceiling = tonumber(set or brought)
  if ceiling < 0 or of.spent + of.reserved + bound <= ceiling then return nil end
  if of.spent + bound <= ceiling then return { 4 } end
  return { 5, which, whole(of.spent), whole((today + 1) * DAY_LENGTH - now) }
end

local CALL = '<ddddddHc0Hc0'
local function open_call(raw)
  local ends, tokens, bound, at, place, day, of, run = struct.unpack(CALL, raw)
  return { ends = ends, account = of, run = run, day = day, tokens = tokens, bound = bound, at = at, place = place }
end
local function close(id, call, spent, unconfirmed, sent)
  local run, day, all = purses_of(call.run, call.day)
  unconfirmed = unconfirmed and spent or 0
  book(run, sent, spent, -call.bound, unconfirmed)
  book(day, sent, spent, -call.bound, unconfirmed)
  book(all, sent, spent, -call.bound, unconfirmed)
  if call.place > 0 and call.account == account then
    in_flight, in_flight_changed = in_flight - 1, true
  elseif call.place > 0 then
    redis.call('HINCRBY', K[1], 'places:' .. call.account, -1)
  end
  calls[id], opened[id], closed[#closed + 1] = nil, nil, 'call:' .. id
end
-- The holder of an expired lease is dead: its slot is free, and its call counts at its worst case. One that is just being
-- told of is alive. Some are looked at once a second, all of them in a minute or two of an account that is in use.
local function reap()
  if now < reaped + 1000000 then return end
  reaped = now
  local some = max(100, ceil(redis.call('HLEN', K[1]) / 60))
  local page = redis.call('HSCAN', K[1], whole(cursor), 'COUNT', whole(some))
  cursor = tonumber(page[1])
  for i = 1, #page[2], 2 do
    local id = string.match(page[2][i], '^call:(.*)')
    if id and not calls[id] then
      local call = open_call(page[2][i + 1])
      if call.ends <= now then close(id, call, call.bound, true, 1) end
    end
  end
end

-- Each step: its name, an id, a run, and what it takes.
local take_step = {}
-- Tokens, bound, lease; the ceilings of the run, of a day and of all (-1: none).
function take_step.reserve(id, run, tokens, bound, lease, of_run, of_day, of_all)
  local known = calls[id]
  if known then return { 1, known.at, now } end
  local its, days, all = purses_of(run, today)
  local too_much = exceeded(1, its, found['ceiling:r:' .. run], of_run, bound)
    or exceeded(2, days, found['ceiling:d'], of_day, bound)
    or exceeded(3, all, found['ceiling:t'], of_all, bound)
  if too_much then return too_much end
  if places > 0 and in_flight >= places then return { 3 } end
  local at, later, why = appoint(tokens)
  if not at then return { 2, later, now, why } end
  book(its, 0, 0, bound, 0)
  book(days, 0, 0, bound, 0)
  book(all, 0, 0, bound, 0)
  -- Places are counted where there is a limit to them.
  local place = places > 0 and 1 or 0
  if place > 0 then in_flight, in_flight_changed = in_flight + 1, true end
  local call = { account = account, run = run, day = today, tokens = tokens, bound = bound, at = at, place = place }
  call.ends = max(at, now) + lease
  calls[id], opened[id] = call, call
  return { 1, at, now }
end
function take_step.settle(id, _, tokens, spent, unconfirmed)
  local call = calls[id]
  if not call then return { 0 } end
  settle(call.at, call.tokens, tokens)
  close(id, call, spent, unconfirmed, 1)
  return { 1 }
end
function take_step.back(id)
  local call = calls[id]
  if not call then return { 0 } end
  give_back(call.at, call.tokens)
  close(id, call, 0, false, 0)
  return { 1 }
end
-- A refusal for being too fast: the pause, how long ago the call was sent, its tokens, what there was too much of, the limit
-- named. Says which limit that cuts (1: requests, 2: tokens) and to what.
local function fill(of) return floor(in_use(of) * 1000 / max(1, of.log.limit)) end
function take_step.refused(_, _, pause, ago, amount, scarce, told)
  paused = max(paused, now + pause)
  local sent = max(0, now - ago)
  local cut
  if volume and (scarce == 'tokens' or scarce ~= 'requests' and fill(tokens) > fill(requests)) then
    cut = refused(tokens, sent, amount, told) and { 2, per_minute(tokens) }
  else
    cut = refused(requests, sent, 1, told) and { 1, per_minute(requests) }
  end
  apply()
  return cut or { 0 }
end
function take_step.pause(_, _, long)
  paused = max(paused, now + long)
  return { 1 }
end
function take_step.park()
  local _, last = day_of(now)
  parked = max(parked, last + guard)
  return { 1 }
end
function take_step.away() return { 1, away() or now, now } end

-- What each call reads: the account, its open calls, and the money around them.
local function begin(keys, args)
  if not max then set_up() end
  K = keys
  -- Often the same as the last time.
  if args[2] ~= numbers then
    N = { struct.unpack(NUMBERS, args[2]) }
    horizon, longest, per_day, guard, places = N[1], N[2], N[21], N[26], N[27]
    logs = { log(0, 3), log(1, 7), log(2, 14) }
    -- Requests that are not declared are measured all the same.
    minute, short, volume = logs[1], N[7] > 0 and logs[2] or nil, N[14] > 0 and logs[3] or nil
    requests = limit('requests:', minute, log(3, 3), 3, 11)
    tokens = limit('tokens:', logs[3], log(4, 14), 14, 18)
    numbers = args[2]
  end
  local asked = cjson.decode(args[1])
  account, steps, now = asked[1], asked[3], asked[4]
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
  end
  found = {}
  account_of, places_of = 'account:' .. account, 'places:' .. account
  local names, runs = { account_of, places_of, 't', 'd:' .. whole(floor(now / DAY_LENGTH)), 'ceiling:d', 'ceiling:t' }, {}
  for i = 1, #steps do
    local id, run = steps[i][2], steps[i][3]
    if id ~= '' then
      names[#names + 1] = 'call:' .. id
      if not runs[run] then
        names[#names + 1], names[#names + 2], runs[run] = 'r:' .. run, 'ceiling:r:' .. run, true
      end
    end
  end
  local there = redis.call('HMGET', K[1], unpack(names))
  for i = 1, #names do found[names[i]] = there[i] end

  local raw = found[account_of] or ZEROS
  seen, takings, paused, parked, newest, turned, reaped, cursor, day_from, day_to, day_taken = struct.unpack(SIMPLE, raw)
  for i = 1, 3 do open_log(logs[i], struct.unpack(LOG, raw, 49 + 40 * i)) end
  open_limit(requests, raw, 209)
  open_limit(tokens, raw, 329)
  apply()
  now = max(now, seen)
  seen = now
  today = floor(now / DAY_LENGTH)
  this_day = 'd:' .. whole(today)

  -- A caller that knows of more than is here was told of what the store has lost since: every window counts as just filled.
  lost = asked[2] > takings and (N[3] > 0 or volume or requests.allowed > 0)
  if lost then paused = max(paused, now + minute.reach) end
  takings = max(takings, asked[2]) + 1

  calls, opened, closed, purses = {}, {}, {}, {}
  for i = 1, #steps do
    local id = steps[i][2]
    local raw = id ~= '' and found['call:' .. id]
    if raw then calls[id] = open_call(raw) end
  end
  in_flight, in_flight_changed = tonumber(found[places_of] or 0), false
end

-- A list that is long goes in pieces that the interpreter's stack holds.
local function write(command, list)
  for i = 1, #list, 200 do redis.call(command, K[1], unpack(list, i, min(i + 199, #list))) end
end
local function also(name, value)
  local n = #written
  written[n + 1], written[n + 2] = name, value
end
local function finish()
  local m, s, v, r, t = logs[1], logs[2], logs[3], requests, tokens
  written = { account_of, struct.pack(ACCOUNT,
    seen, takings, paused, parked, newest, turned, reaped, cursor, day_from, day_to, day_taken,
    m.h, m.c, m.t, m.w, m.n, s.h, s.c, s.t, s.w, s.n, v.h, v.c, v.t, v.w, v.n,
    r.paid, r.allowed, r.wall, r.cut, r.sure, r.counted, r.calls, r.refusals, r.fresh, r.noise, r.raised, r.raises,
    r.told, r.heard, r.since,
    t.paid, t.allowed, t.wall, t.cut, t.sure, t.counted, t.calls, t.refusals, t.fresh, t.noise, t.raised, t.raises,
    t.told, t.heard, t.since) }
  for i = 1, 2 do
    local of = i == 1 and requests or tokens
    local l = of.refused
    if l then also(of.name .. account, struct.pack(LOG, l.h, l.c, l.t, l.w, l.n)) end
  end
  if in_flight_changed then also(places_of, whole(in_flight)) end
  for of, purse in pairs(purses) do
    if purse.changed then also(of, struct.pack(MONEY, purse.calls, purse.spent, purse.reserved, purse.unconfirmed)) end
  end
  for id, call in pairs(opened) do
    also('call:' .. id, struct.pack(CALL, call.ends, call.tokens, call.bound, call.at, call.place, call.day,
      #account, account, #call.run, call.run))
  end
  -- What was closed may have been opened again.
  write('HDEL', closed)
  write('HSET', written)
end

local function take_steps(keys, args)
  begin(keys, args)
  reap()
  local answers = {}
  for i = 1, #steps do
    local step = steps[i]
    answers[i] = take_step[step[1]](unpack(step, 2))
  end
  finish()
  answers[#answers + 1] = { takings, lost and 1 or 0 }
  return answers
end
