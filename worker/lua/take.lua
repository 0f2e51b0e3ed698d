-- Takes jobs off the queue for a worker.
--
-- KEYS: queue, started registry, worker, its executions, its last take, suspension flag
-- ARGV: token, maximum, idle ('1' or '0'), worker, now (s since the epoch), now (text), ttl (s)
-- Returns false if suspended; else 1 if the next job must wait to run alone, and of each job taken
-- its id, data, result_ttl, deaths and meta.
--
-- A call repeated with the same token (the reply was lost) returns the same jobs. The worker's state
-- is written first: a full Redis refuses that, and with it the whole script.
local queue, started, worker_key, executions, last_take, suspended = unpack(KEYS)
local token, most, idle, worker, moment, time, ttl = unpack(ARGV)
local alone = 0
local names = redis.call('LRANGE', last_take, 0, -1)
if table.remove(names, 1) ~= token then
    if redis.call('EXISTS', suspended) == 1 then return false end
    names = {}
    while #names < tonumber(most) do
        local id = redis.call('LINDEX', queue, 0)
        if not id then break end
        local suspect = redis.call('HEXISTS', job_key(id), 'deaths') == 1
        if suspect and (idle == '0' or #names > 0) then
            alone = 1
            break
        end
        redis.call('HSET', worker_key, 'state', BUSY)
        redis.call('LPOP', queue)
        if redis.call('EXISTS', job_key(id)) == 1 then
            names[#names + 1] = id
            write_execution(started, executions, worker, id, token .. '-' .. #names, moment, moment, time, ttl)
            redis.call('HSET', job_key(id), 'started_at', time)
            redis.call('PERSIST', job_key(id))
            if suspect then break end
        end
    end
    if #names > 0 then
        redis.call('DEL', last_take)
        redis.call('RPUSH', last_take, token, unpack(names))
        redis.call('EXPIRE', last_take, TAKE_REMEMBERED)
        redis.call('EXPIRE', executions, ttl + 60)
    end
end
local taken = {}
for number, id in ipairs(names) do
    local found = redis.call('HMGET', job_key(id), 'data', 'result_ttl', 'deaths', 'meta')
    taken[number] = {id, found[1], found[2], found[3], found[4]}
end
return {alone, taken}
