-- Returns how many jobs wait, and when the first of them was enqueued. Where no worker removes them,
-- jobs that outlived their `ttl` stand before the others, listed but gone: the first that exists is
-- found by bisection.
--
-- KEYS: queue
local queue = KEYS[1]
local waiting = redis.call('LLEN', queue)
local low, high, place, since = 0, waiting, 0, false
while low < high do
    local id = redis.call('LINDEX', queue, place)
    local found = redis.call('HGET', JOB .. id, 'enqueued_at')
    if found then since, high = found, place else low = place + 1 end
    place = math.floor((low + high) / 2)
end
return {waiting, since}
