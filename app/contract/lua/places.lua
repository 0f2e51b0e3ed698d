-- Returns the place of each detection in the queue (1 is next, 0: none), and the estimated time until
-- a worker takes it (s; '': unknown).
--
-- KEYS: queue, registry of finished jobs
-- ARGV: now (s), lifetime of finished jobs in the registry (s); per detection: id, arrival (s)
--
-- The queue is sorted by turns (place.lua), so bisection finds a job in about 30 commands. Only jobs
-- that RQ has put elsewhere after a failure need a search of the whole queue.
local WINDOW, SHORTEST, EQUAL = 30, 1, 16 -- s; s; jobs of other owners with the same turn
local queue, finished = unpack(KEYS)
local now, lifetime = tonumber(ARGV[1]), tonumber(ARGV[2])
local waiting = redis.call('LLEN', queue)
local turns = {}
local function turn_at(index)
    if turns[index] == nil then
        local id = redis.call('LINDEX', queue, index)
        turns[index] = tonumber(redis.call('HGET', JOB .. id, 'turn') or '') or false
    end
    return turns[index]
end
local function place_of(id)
    local turn, status = unpack(redis.call('HMGET', JOB .. id, 'turn', 'status'))
    if status ~= QUEUED then return 0 end
    turn = tonumber(turn or '') or 0
    local low, high = 0, waiting
    while low < high do
        local middle = math.floor((low + high) / 2)
        local other = turn_at(middle)
        if other and other >= turn then high = middle else low = middle + 1 end
    end
    for number, one in ipairs(redis.call('LRANGE', queue, low, low + EQUAL - 1)) do
        if one == id then return low + number end
    end
    return (redis.call('LPOS', queue, id) or -1) + 1
end
local found = {}
for at = 3, #ARGV, 2 do
    local place, wait = place_of(ARGV[at]), ''
    local seconds = math.min(now - ARGV[at + 1], WINDOW)
    if place > 0 and seconds >= SHORTEST then
        local ended = redis.call('ZCOUNT', finished, now - seconds + lifetime, '+inf')
        if ended > 0 then wait = string.format('%.0f', place * seconds / ended) end
    end
    found[#found + 1] = {place, wait}
end
return found
