-- Returns the number of waiting jobs and the time at which the oldest one was enqueued. Expired jobs
-- stay in front of the list until a worker removes them, so bisection finds the first that exists.
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
