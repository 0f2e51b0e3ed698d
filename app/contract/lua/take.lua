-- Admits as many pictures of a caller as all limits allow.
--
-- KEYS: queue, caller's waiting detections, bucket of its rate limit, its index
-- ARGV: caller, pictures, now (s), expiry in the queue (s), limit of the waiting time (s), limit of
--   the queue, count (0: none) and spacing (us) of the rate limit, weight (0: no other callers), the
--   caller's limits of waiting detections and of bytes (0: none), free memory in bytes ('': no
--   limit), inside ('1': pictures are stored in Redis)
-- Returns the number of admitted pictures, the code of the limit that stopped the rest ('': none),
-- the number of waiting jobs, of the caller's waiting detections and the age of the oldest (s), its
-- kept and reserved bytes, the remaining quota of its rate limit and us until the bucket is full.
--
-- The share of the queue is a dynamic threshold, as in share.lua.
local queue, own_waiting, bucket, index = unpack(KEYS)
local caller, asked, now, ttl, age_limit, limit, count, spacing = unpack(ARGV, 1, 8)
local weight, most_waiting, most_bytes, free, inside = unpack(ARGV, 9, 13)
local taken, reason = tonumber(asked), ''
local function allow(most, otherwise)
    if most < taken then taken, reason = most, otherwise end
end
redis.call('ZREMRANGEBYSCORE', own_waiting, '-inf', now - ttl)
local waiting, own = redis.call('LLEN', queue), redis.call('ZCARD', own_waiting)
local first = redis.call('ZRANGE', own_waiting, 0, 0, 'WITHSCORES')
local age = first[2] and now - first[2] or 0
local bytes, coming = held(caller), reserved(caller)
weight, most_waiting, most_bytes = tonumber(weight), tonumber(most_waiting), tonumber(most_bytes)
allow(limit - waiting, 'queue_full')
if age > tonumber(age_limit) then allow(0, 'queue_slow') end
if weight > 0 then
    allow(math.ceil((weight * (limit - waiting) - own) / (1 + weight)),
        'queue_share_full')
    if free ~= '' and beyond_share(caller, index, weight, free, inside == '1') then
        allow(0, 'storage_share_full')
    end
end
if most_waiting > 0 then allow(most_waiting - own, 'queue_share_full') end
if most_bytes > 0 and bytes + coming >= most_bytes then
    allow(0, 'storage_share_full')
end
local left, full_in = 0, 0
if tonumber(count) > 0 then
    local time = redis.call('TIME')
    local moment = time[1] * 1000000 + time[2]
    local full = math.max(moment, tonumber(redis.call('GET', bucket) or '') or 0)
    left = math.max(0, math.floor((moment + count * spacing - full) / spacing))
    allow(left, 'rate_limited')
    if taken > 0 then
        full = full + taken * spacing
        left = left - taken
        redis.call('SET', bucket, string.format('%.0f', full), 'PX',
            math.ceil((full - moment) / 1000))
    end
    full_in = full - moment
end
return {math.max(0, taken), reason, waiting, own, math.floor(age), bytes, coming, left,
    full_in}
