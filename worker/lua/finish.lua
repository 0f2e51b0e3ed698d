-- Finishes jobs as successful.
--
-- KEYS: started registry, finished registry, worker, its executions
-- ARGV: worker, now (s since the epoch), now (text); per job: id, execution, start (s), ttl (s), result
-- Returns 1 for each job finished by this execution, now or by an earlier call that was repeated.
local started, finished_registry, worker_key, executions = unpack(KEYS)
local worker, moment, time = unpack(ARGV, 1, 3)
local finished = {}
local function finished_by(id, execution)
    local last = redis.call('XREVRANGE', results_key(id), '+', '-', 'COUNT', 1)[1]
    for _, word in ipairs(last and last[2] or {}) do
        if word == execution then return 1 end
    end
    return 0
end
for at = 4, #ARGV, 5 do
    local id, execution, started_at, ttl, result = unpack(ARGV, at, at + 4)
    local name = id .. ':' .. execution
    if not redis.call('ZSCORE', started, name) then
        finished[#finished + 1] = finished_by(id, execution)
    else
        redis.call('HINCRBY', worker_key, 'successful_job_count', 1)
        redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', moment - started_at)
        redis.call('HSET', job_key(id), 'status', FINISHED, 'ended_at', time)
        redis.call('EXPIRE', job_key(id), ttl)
        redis.call('XADD', results_key(id), 'MAXLEN', '~', 10, '*',
            'type', SUCCESSFUL, 'worker_name', worker, 'return_value', result,
            'execution_id', execution, 'execution_started_at', started_at,
            'execution_ended_at', moment)
        redis.call('EXPIRE', results_key(id), ttl)
        redis.call('ZADD', finished_registry, math.floor(moment) + ttl, id)
        redis.call('DEL', execution_key(id, execution))
        redis.call('ZREM', started, name)
        redis.call('ZREM', executions_key(id), execution)
        redis.call('SREM', executions, name)
        finished[#finished + 1] = 1
    end
end
return finished
