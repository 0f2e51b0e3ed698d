-- Returns the number of waiting jobs and the time at which the oldest waiting detection was queued.
-- Removes expired detections from the waiting set.
--
-- KEYS: queue, waiting
-- ARGV: now (s), longest wait (s)
local queue, waiting = unpack(KEYS)
local now, ttl = unpack(ARGV)
redis.call('ZREMRANGEBYSCORE', waiting, '-inf', now - ttl)
local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
return {redis.call('LLEN', queue), first[2] or false}
