-- Writes the result of a detection. Returns 1, or 0 if it is finished or deleted already.
--
-- KEYS: record
-- ARGV: status, record, model, id, channel, expiry (ms since epoch), current time in RQ's format,
--   name of the masks, their size (bytes), and of each mask its head and entry
--
-- The record is written first: if Redis is full, the script fails before it has changed anything.
-- The cache entry then points to the record, the owner's stream gets the ending, and the webhook's job
-- moves from RQ's schedule to its queue.
local record = KEYS[1]
local status, json, model, id, channel, expiry, now, masks, bytes = unpack(ARGV, 1, 9)
local found = redis.call('HMGET', record, 'status', 'cache', 'webhook', 'owner', 'reservation')
if found[1] ~= 'queued' and found[1] ~= 'processing' then return 0 end
redis.call('HSET', record, 'status', status, 'record', json, 'model', model)
if found[5] then unreserve(found[5]) end
if #ARGV > 9 then
    local key = masks_key(found[4], masks)
    local holding = bytes .. ' ' .. key
    redis.call('HSET', key, unpack(ARGV, 10))
    redis.call('HSET', record, 'masks', holding)
    hold(found[4], id, holding, expiry)
end
if status == 'succeeded' and found[2] and found[2] ~= '' then
    redis.call('SET', found[2], record, 'PXAT', expiry)
end
if found[3] then
    local webhook = cjson.decode(found[3])
    if redis.call('ZREM', webhook.schedule_key, webhook.job_id) == 1 then
        redis.call('HSET', webhook.job_key, 'status', 'queued', 'enqueued_at', now)
        place(webhook.queue_key, webhook.job_id, found[4], 1, expiry)
    end
end
local events = events_key(found[4])
local event = redis.call('XADD', events, 'MAXLEN', '~', MAX_EVENTS, '*', 'id', id, 'status', status)
redis.call('HSET', record, 'event', event)
outlive(events, expiry)
redis.call('PUBLISH', channel, id .. ' ' .. status .. ' ' .. json)
return 1
