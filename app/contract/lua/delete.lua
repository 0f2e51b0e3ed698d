-- Deletes a detection.
--
-- KEYS: index, record, waiting
-- ARGV: owner, id, channel, commands that remove it from the queue
-- Returns 1, or 0 if this owner has no such detection.
local index, record, waiting = unpack(KEYS)
local owner, id, channel = unpack(ARGV, 1, 3)
local found = redis.call('HMGET', record, 'owner', 'status', 'member', 'cache', 'idempotency',
    'image', 'masks', 'reservation', 'event')
if found[1] ~= owner then return 0 end
redis.call('DEL', record)
for _, holding in ipairs({found[6], found[7]}) do
    if holding then release(owner, id, holding) end
end
if found[8] then unreserve(found[8]) end
if found[9] then redis.call('XDEL', events_key(owner), found[9]) end
redis.call('ZREM', index, found[3])
redis.call('ZREM', waiting, id)
redis.call('ZREM', waiting_key(owner), id)
if found[4] ~= '' and redis.call('GET', found[4]) == record then redis.call('DEL', found[4]) end
if found[5] ~= '' then redis.call('DEL', found[5]) end
redis.call('PUBLISH', channel, id)
if found[2] == 'queued' then run_commands(4, redis.call) end
return 1
