-- Returns how many jobs wait, and when the detection came that has waited longest. What has waited
-- too long is expired, and waits no longer.
--
-- KEYS: queue, what waits
-- ARGV: now (s), longest wait (s)
local queue, waiting = unpack(KEYS)
local now, ttl = unpack(ARGV)
redis.call('ZREMRANGEBYSCORE', waiting, '-inf', now - ttl)
local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
return {redis.call('LLEN', queue), first[2] or false}
