-- Accepts a detection or returns why not. Idempotent: repeating it after a lost reply has no effect.
--
-- KEYS: record, index, cache entry and idempotency entry ('': none), model, waiting, picture, masks,
--   ('': none are expected), source: record whose picture and masks are reused ('': none, the
--   picture was stored before)
-- ARGV: id, owner, record, deadline (s), tombstone: expiry of the record (ms since epoch), index
--   member, oldest index member, fingerprint, look ('1': check the cache), expiry (ms since epoch),
--   bytes of the picture, external ('1': entries of the source are copied, not shared), moment (s),
--   length of its turn, bytes to reserve, usable fraction of Redis's memory, weight of the owner
--   (0: there are no other owners), commands that enqueue it
-- Returns {outcome, ...}. If the outcome is not `accepted`, the upload is deleted.
--
-- The memory in use includes a new picture, which the share must not count. With a source nothing
-- is reserved, because there is a result, but the same amount must be free.
local record, index, cache, idempotency, model = unpack(KEYS, 1, 5)
local waiting, picture, masks, source = unpack(KEYS, 6, 9)
local id, owner, json, deadline, tombstone, member, oldest, fingerprint = unpack(ARGV, 1, 8)
local look, expiry, bytes, external, moment, length, needed = unpack(ARGV, 9, 15)
local usable, weight = tonumber(ARGV[16]), tonumber(ARGV[17])
local is_new = source == '' and redis.call('EXISTS', holders_key(picture)) == 0
local function leave(...)
    if is_new then redis.call('DEL', picture) end
    return {...}
end
if redis.call('EXISTS', record) == 1 then return leave('accepted') end
if idempotency ~= '' then
    local first = redis.call('HMGET', idempotency, 'fingerprint', 'record')
    if first[2] and redis.call('EXISTS', first[2]) == 1 then
        if first[1] ~= fingerprint then return leave('mismatch') end
        return leave('repeated',
            unpack(redis.call('HMGET', first[2], 'status', 'record', 'deadline')))
    end
end
if look == '1' then
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
    local free, inside = most * usable - used, external ~= '1'
    if most * usable < tonumber(needed) then return leave('too_large') end
    if free < tonumber(needed) then return leave('full') end
    if inside and is_new then free = free + bytes end
    if weight > 0 and beyond_share(owner, index, weight, free, inside) then
        return leave('share_full')
    end
end
local holdings = {image = bytes .. ' ' .. picture}
if source ~= '' then
    local known = redis.call('HMGET', source, 'image', 'masks')
    local copies = {image = picture, masks = masks}
    for number, name in ipairs(masks == '' and {'image'} or {'image', 'masks'}) do
        if not known[number] then return leave('gone') end
        local size, key = parsed(known[number])
        if redis.call('EXISTS', key) == 0 then return leave('gone') end
        if external == '1' then
            redis.call('COPY', key, copies[name])
            key = copies[name]
        end
        holdings[name] = size .. ' ' .. key
    end
end
local reservation = needed .. ' ' .. id .. ' ' .. owner
redis.call('HSET', record, 'status', 'queued', 'owner', owner, 'record', json,
    'deadline', deadline, 'member', member, 'cache', cache, 'idempotency', idempotency,
    'reservation', reservation, 'image', holdings.image)
if holdings.masks then redis.call('HSET', record, 'masks', holdings.masks) end
redis.call('PEXPIREAT', record, tombstone)
if is_new then redis.call('PEXPIREAT', picture, expiry) end
for _, holding in pairs(holdings) do hold(owner, id, holding, expiry) end
redis.call('ZADD', index, 0, member)
redis.call('ZREMRANGEBYLEX', index, '-', '(' .. oldest)
outlive(index, tombstone)
if idempotency ~= '' then
    redis.call('HSET', idempotency, 'fingerprint', fingerprint, 'record', record)
    redis.call('PEXPIREAT', idempotency, tombstone)
end
if source == '' then
    reserve(reservation, math.floor(math.min(deadline * 1000, expiry)))
    for _, key in ipairs({waiting, waiting_key(owner)}) do redis.call('ZADD', key, moment, id) end
    for _, key in ipairs({waiting, waiting_key(owner), reservations, reserved_bytes}) do
        outlive(key, tombstone)
    end
end
run_commands(18, function(command, key, value, ...)
    if command == 'RPUSH' then return place(key, value, owner, tonumber(length), tombstone) end
    redis.call(command, key, value, ...)
end)
return {'accepted'}
