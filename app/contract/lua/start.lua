-- Marks a detection as processing and extends its reservation to the expiry of its record.
--
-- KEYS: record, waiting
-- ARGV: now (s), id
-- Returns the record, or false if it is finished, deleted or past its deadline.
local record, waiting = unpack(KEYS)
local now, id = unpack(ARGV)
local found = redis.call('HMGET', record, 'status', 'record', 'deadline', 'owner', 'reservation')
if found[1] ~= 'queued' and found[1] ~= 'processing' then return false end
if found[1] == 'queued' and tonumber(found[3]) <= tonumber(now) then return false end
redis.call('HSET', record, 'status', 'processing')
redis.call('ZREM', waiting, id)
redis.call('ZREM', waiting_key(found[4]), id)
if found[5] then reserve(found[5], redis.call('PEXPIRETIME', record)) end
return found[2]
