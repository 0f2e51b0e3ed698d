"""What Redis does in one step, in Lua: a detection is accepted, begun, finished or deleted whole.

Keys that a script cannot know beforehand (the caller's idempotency entry, the cache entry) are
kept in the record's hash under their full names, so that key names are made in
`app.contract.records` only.

A detection *holds* the bytes of its picture and of its masks. Detections of one owner may hold the
same bytes, which are counted once and stay as long as one of them does. A holding is written
`<bytes> <key>`.

Until a detection ends, memory is *reserved* for its result (`app.contract.reservation`). A
reservation, `<bytes> <id> <owner>`, is made, counted and released in the same steps as the
detection, so no crash leaves one behind; it lapses by itself when the detection can no longer
have a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis.client import Pipeline
from rq.job import Job

from app.contract import records

_RECORD_BYTES = 4096  # of memory, about, whatever the picture

# The commands in ARGV, each preceded by its number of words, from `at` on.
_RUN = """
while at <= #ARGV do
    local words = tonumber(ARGV[at])
    run(unpack(ARGV, at + 1, at + words))
    at = at + words + 1
end
"""

# Start-time fair queueing (Goyal, Vin and Cheng, 1996) in RQ's own list. A job has a turn, and the
# list is sorted by it. The turn of an owner's next job is one length after that of its last one,
# or, if that has been long ago, the turn that the queue has come to. So owners take turns, however
# many jobs each has waiting, and an owner whose lengths are half as long has two for one.
# What RQ puts at the head (a retry) or at the end by itself stays there.
_PLACE = f"""
local function job_key(id) return '{Job.key_for("")}' .. id end
local function place(queue, id, owner, length, moment)
    local turns, waiting = '{records.turns_key("")}' .. queue, redis.call('LLEN', queue)
    if waiting == 0 then redis.call('DEL', turns) end
    local function turn_at(index)
        local found = redis.call('LINDEX', queue, index)
        return found and tonumber(redis.call('HGET', job_key(found), 'turn') or '')
    end
    local known = redis.call('HMGET', turns, '', owner)
    local come_to = math.max(tonumber(known[1] or 0), turn_at(0) or 0)
    local turn = math.max(come_to, tonumber(known[2] or 0))
    redis.call('HSET', turns, '', come_to, owner, turn + length)
    live_until(turns, moment)
    redis.call('HSET', job_key(id), 'turn', turn)
    local last = turn_at(-1)
    if not last or last <= turn then return redis.call('RPUSH', queue, id) end
    local low, high = 0, waiting
    while low < high do
        local middle = math.floor((low + high) / 2)
        local other = turn_at(middle)
        if other and other > turn then high = middle else low = middle + 1 end
    end
    redis.call('LINSERT', queue, 'BEFORE', redis.call('LINDEX', queue, low), id)
end
"""

_HOLDINGS = f"""
local function masks_key(owner, name)
    return '{records.masks_key("", "")[:-1]}' .. owner .. ':' .. name
end
local function waiting_key(owner) return '{records.waiting_key("")}' .. owner end
local function holdings_key(owner) return '{records.holdings_key("")}' .. owner end
local function held_bytes_key(owner) return '{records.held_bytes_key("")}' .. owner end
local function holders_key(key) return key .. ':holders' end
local function parsed(holding)
    local size, key = string.match(holding, '^(%d+) (.+)$')
    return tonumber(size), key
end
local clock
local function now_ms()
    clock = clock or redis.call('TIME')
    return clock[1] * 1000 + math.floor(clock[2] / 1000)
end
local function live_until(key, moment)
    if redis.call('PEXPIRETIME', key) < tonumber(moment) then
        redis.call('PEXPIREAT', key, moment)
    end
end
"""

# A detection holds bytes, which are there, until a moment (ms since epoch).
_HOLD = """
local function hold(owner, id, holding, moment)
    local size, key = parsed(holding)
    redis.call('ZADD', holders_key(key), moment, id)
    live_until(holders_key(key), moment)
    if not redis.call('ZSCORE', holdings_key(owner), holding) then
        redis.call('INCRBY', held_bytes_key(owner), size)
    end
    redis.call('ZADD', holdings_key(owner), 'GT', moment, holding)
    live_until(holdings_key(owner), moment)
    live_until(held_bytes_key(owner), moment)
    live_until(key, moment)
end
"""

# A detection holds them no longer: they go, or stay as long as others hold them.
_RELEASE = """
local function release(owner, id, holding)
    local size, key = parsed(holding)
    local holders = holders_key(key)
    redis.call('ZREM', holders, id)
    redis.call('ZREMRANGEBYSCORE', holders, '-inf', now_ms())
    local last = redis.call('ZRANGE', holders, -1, -1, 'WITHSCORES')
    if last[2] then
        redis.call('PEXPIREAT', key, last[2])
        redis.call('ZADD', holdings_key(owner), last[2], holding)
    else
        redis.call('DEL', key, holders)
        if redis.call('ZREM', holdings_key(owner), holding) == 1 then
            redis.call('DECRBY', held_bytes_key(owner), size)
        end
    end
end
"""

# What an owner holds: number of bytes, once what has expired is left out.
_HELD = """
local function held(owner)
    local expired = redis.call('ZRANGEBYSCORE', holdings_key(owner), '-inf', now_ms(), 'LIMIT', 0,
        1000)
    for _, holding in ipairs(expired) do
        redis.call('DECRBY', held_bytes_key(owner), (parsed(holding)))
        redis.call('ZREM', holdings_key(owner), holding)
    end
    return tonumber(redis.call('GET', held_bytes_key(owner)) or '0')
end
"""

# Reserved memory. `reserve` again moves the moment (ms since epoch) at which it lapses, no more.
# What has lapsed counts until `lapse` is called.
_RESERVE = f"""
local reservations, reserved_bytes = '{records.RESERVATIONS_KEY}', '{records.RESERVED_KEY}'
local function count(reservation, sign)
    local size, owner = string.match(reservation, '^(%d+) %S+ (.*)$')
    redis.call('HINCRBY', reserved_bytes, '', sign .. size)
    redis.call('HINCRBY', reserved_bytes, owner, sign .. size)
end
local function reserve(reservation, moment)
    if redis.call('ZADD', reservations, moment, reservation) == 1 then count(reservation, '') end
end
local function unreserve(reservation)
    if redis.call('ZREM', reservations, reservation) == 1 then count(reservation, '-') end
end
local function lapse()
    local lapsed = redis.call('ZRANGEBYSCORE', reservations, '-inf', now_ms(), 'LIMIT', 0, 1000)
    for _, reservation in ipairs(lapsed) do unreserve(reservation) end
end
local function reserved(owner)
    return tonumber(redis.call('HGET', reserved_bytes, owner) or '0')
end
"""

# Returns the bytes that are reserved for all owners.
RESERVED = _HOLDINGS + _RESERVE + "lapse() return reserved('')"

# Whether an owner takes more of Redis's memory than its share: as much as stays free, times its
# weight. Whoever fills it leaves room for another, as large as its own part, and so does the next.
# `inside`: pictures and masks lie there too.
SHARE = (
    _HOLDINGS
    + _RESERVE
    + _HELD
    + f"""
local function beyond_share(owner, index, weight, free, inside)
    local memory = redis.call('ZCARD', index) * {_RECORD_BYTES} + reserved(owner)
    if inside then memory = memory + held(owner) end
    return memory > weight * free
end
"""
)

# KEYS: record, upload ('': none), index, cache entry, idempotency entry (either '': none), model,
#   waiting, picture, masks, a record whose picture and masks serve ('': none)
# ARGV: id, owner, record, deadline (s), tombstone (ms since epoch), index member, oldest index
#   member, fingerprint, '1': look in the cache, expiry (ms since epoch), bytes of the picture,
#   '1': what serves is copied, not shared, moment (s), length of its turn, bytes to reserve, part
#   of Redis's memory that may be used, weight of the owner (0: nobody else is to be protected),
#   commands that queue it…
# Returns {what happened, …}; but for `accepted` nothing is left of what came. Sent again because an
# answer was lost, it changes nothing.
# The upload is in the memory that is used already; a share is that of before it came. What serves
# has its result: nothing is reserved for it, but as much must be free.
ACCEPT = (
    SHARE
    + _HOLD
    + _PLACE
    + """
local record, upload, index, cache, idempotency = unpack(KEYS, 1, 5)
local model, waiting, picture, masks, source = unpack(KEYS, 6, 10)
local id, owner, expiry = ARGV[1], ARGV[2], ARGV[10]
local function leave(...)
    if upload ~= '' then redis.call('DEL', upload) end
    return {...}
end
if redis.call('EXISTS', record) == 1 then return leave('accepted') end
if idempotency ~= '' then
    local first = redis.call('HMGET', idempotency, 'fingerprint', 'record')
    if first[2] and redis.call('EXISTS', first[2]) == 1 then
        if first[1] ~= ARGV[8] then return leave('mismatch') end
        return leave('repeated',
            unpack(redis.call('HMGET', first[2], 'status', 'record', 'deadline')))
    end
end
if ARGV[9] == '1' then
    local current, known_key = redis.call('GET', model), redis.call('GET', cache)
    if current and known_key then
        local known = redis.call('HMGET', known_key, 'status', 'record', 'model')
        if known[1] == 'succeeded' and known[3] == current then return leave('known', known[2]) end
    end
end
local memory = redis.call('INFO', 'memory')
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
lapse()
if most > 0 then
    local used = string.match(memory, 'used_memory:(%d+)') + reserved('')
    local free, weight, inside = most * ARGV[16] - used, tonumber(ARGV[17]), ARGV[12] ~= '1'
    if most * ARGV[16] < tonumber(ARGV[15]) then return leave('too_large') end
    if free < tonumber(ARGV[15]) then return leave('full') end
    if inside and upload ~= '' then free = free + ARGV[11] end
    if weight > 0 and beyond_share(owner, index, weight, free, inside) then
        return leave('share_full')
    end
end
local holdings = {image = ARGV[11] .. ' ' .. picture}
if source ~= '' then
    local known = redis.call('HMGET', source, 'image', 'masks')
    local copies = {image = picture, masks = masks}
    for number, name in ipairs({'image', 'masks'}) do
        if not known[number] then return leave('gone') end
        local size, key = parsed(known[number])
        if redis.call('EXISTS', key) == 0 then return leave('gone') end
        if ARGV[12] == '1' then
            redis.call('COPY', key, copies[name])
            key = copies[name]
        end
        holdings[name] = size .. ' ' .. key
    end
elseif redis.call('EXISTS', picture) == 1 then
    redis.call('DEL', upload)
elseif redis.call('EXISTS', upload) == 1 then
    redis.call('RENAME', upload, picture)
end
local reservation = ARGV[15] .. ' ' .. id .. ' ' .. owner
redis.call('HSET', record, 'status', 'queued', 'owner', owner, 'record', ARGV[3],
    'deadline', ARGV[4], 'member', ARGV[6], 'cache', cache, 'idempotency', idempotency,
    'reservation', reservation)
redis.call('PEXPIREAT', record, ARGV[5])
for name, holding in pairs(holdings) do
    redis.call('HSET', record, name, holding)
    hold(owner, id, holding, expiry)
end
redis.call('ZADD', index, 0, ARGV[6])
redis.call('ZREMRANGEBYLEX', index, '-', '(' .. ARGV[7])
live_until(index, ARGV[5])
if idempotency ~= '' then
    redis.call('HSET', idempotency, 'fingerprint', ARGV[8], 'record', record)
    redis.call('PEXPIREAT', idempotency, ARGV[5])
end
if source == '' then
    reserve(reservation, math.floor(math.min(ARGV[4] * 1000, expiry)))
    for _, key in ipairs({waiting, waiting_key(owner)}) do redis.call('ZADD', key, ARGV[13], id) end
    for _, key in ipairs({waiting, waiting_key(owner), reservations, reserved_bytes}) do
        live_until(key, ARGV[5])
    end
end
local function run(command, key, value, ...)
    if command == 'RPUSH' then return place(key, value, owner, tonumber(ARGV[14]), ARGV[5]) end
    redis.call(command, key, value, ...)
end
local at = 18
"""
    + _RUN
    + "return {'accepted'}"
)

# KEYS: record, waiting
# ARGV: now (s), id
# Returns the record, or nothing if there is no work to do. From now on the result may come as long
# as the record lives.
START = (
    _HOLDINGS
    + _RESERVE
    + """
local found = redis.call('HMGET', KEYS[1], 'status', 'record', 'deadline', 'owner', 'reservation')
if found[1] ~= 'queued' and found[1] ~= 'processing' then return false end
if found[1] == 'queued' and tonumber(found[3]) <= tonumber(ARGV[1]) then return false end
redis.call('HSET', KEYS[1], 'status', 'processing')
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZREM', waiting_key(found[4]), ARGV[2])
if found[5] then reserve(found[5], redis.call('PEXPIRETIME', KEYS[1])) end
return found[2]
"""
)

# KEYS: record
# ARGV: status, record, model, id, channel, expiry (ms since epoch), now as RQ writes it, name of
#   the masks, their bytes; of each mask its head and entry…
# The record is written before anything else: a full Redis refuses that, and so all of it.
# A result may serve the same picture again: the cache entry then names its record. A webhook's job
# waits on RQ's schedule (`app.webhooks.queue`): now it is due, if it is still there.
FINISH = (
    _HOLDINGS
    + _HOLD
    + _RESERVE
    + _PLACE
    + """
local found = redis.call('HMGET', KEYS[1], 'status', 'cache', 'webhook', 'owner', 'reservation')
if found[1] ~= 'queued' and found[1] ~= 'processing' then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[1], 'record', ARGV[2], 'model', ARGV[3])
if found[5] then unreserve(found[5]) end
if #ARGV > 9 then
    local key = masks_key(found[4], ARGV[8])
    local holding = ARGV[9] .. ' ' .. key
    redis.call('HSET', key, unpack(ARGV, 10))
    redis.call('HSET', KEYS[1], 'masks', holding)
    hold(found[4], ARGV[4], holding, ARGV[6])
end
if ARGV[1] == 'succeeded' and found[2] and found[2] ~= '' then
    redis.call('SET', found[2], KEYS[1], 'PXAT', ARGV[6])
end
if found[3] then
    local webhook = cjson.decode(found[3])
    if redis.call('ZREM', webhook.schedule_key, webhook.job_id) == 1 then
        redis.call('HSET', webhook.job_key, 'status', 'queued', 'enqueued_at', ARGV[7])
        place(webhook.queue_key, webhook.job_id, found[4], 1, ARGV[6])
    end
end
redis.call('PUBLISH', ARGV[5], ARGV[4] .. ' ' .. ARGV[1] .. ' ' .. ARGV[2])
return 1
"""
)

# KEYS: index, record, waiting
# ARGV: owner, id, channel, commands that take it off the queue…
# Returns 1, or 0 if this owner has no such detection.
DELETE = (
    _HOLDINGS
    + _RELEASE
    + _RESERVE
    + """
local found = redis.call('HMGET', KEYS[2], 'owner', 'status', 'member', 'cache', 'idempotency',
    'image', 'masks', 'reservation')
if found[1] ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
for _, holding in ipairs({found[6], found[7]}) do
    if holding then release(ARGV[1], ARGV[2], holding) end
end
if found[8] then unreserve(found[8]) end
redis.call('ZREM', KEYS[1], found[3])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('ZREM', waiting_key(ARGV[1]), ARGV[2])
if found[4] ~= '' and redis.call('GET', found[4]) == KEYS[2] then redis.call('DEL', found[4]) end
if found[5] ~= '' then redis.call('DEL', found[5]) end
redis.call('PUBLISH', ARGV[3], ARGV[2])
if found[2] ~= 'queued' then return 1 end
local run = redis.call
local at = 4
"""
    + _RUN
    + "return 1"
)


def words(commands: Pipeline) -> Iterator[Any]:
    """The commands collected in a pipeline, as a script's ARGV: each preceded by its length."""
    for command, _ in commands.command_stack:
        yield len(command)
        yield from command
