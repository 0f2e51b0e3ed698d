-- Start-time fair queueing (Goyal, Vin and Cheng, 1996) in RQ's list, which is sorted by the turn
-- (start tag) of each job. The turn of an owner's next job is that of its last one plus its length,
-- but at least the current turn (virtual time) of the queue. So owners alternate, however many jobs
-- each has waiting, and an owner with half the length gets twice as many jobs.
-- Jobs that RQ itself puts at the head (a retry) or at the end stay there.
local function job_key(id) return JOB .. id end
local function place(queue, id, owner, length, moment)
    local turns, waiting = TURNS .. queue, redis.call('LLEN', queue)
    if waiting == 0 then redis.call('DEL', turns) end
    local function turn_at(index)
        local found = redis.call('LINDEX', queue, index)
        return found and tonumber(redis.call('HGET', job_key(found), 'turn') or '')
    end
    local known = redis.call('HMGET', turns, '', owner)
    local come_to = math.max(tonumber(known[1] or 0), turn_at(0) or 0)
    local turn = math.max(come_to, tonumber(known[2] or 0))
    redis.call('HSET', turns, '', come_to, owner, turn + length)
    outlive(turns, moment)
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
