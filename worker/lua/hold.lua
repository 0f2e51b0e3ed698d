-- As RQ's Execution.create and Job.prepare_for_execution, or their heartbeats.
local function hold(started, index, worker, id, execution, created_at, moment, time, ttl)
    local name, key = id .. ':' .. execution, execution_key(id, execution)
    local due = math.floor(moment) + ttl
    -- First, for a full Redis allows it, and then whatever else the script writes.
    redis.call('EXPIRE', key, ttl)
    redis.call('HSET', key, 'id', execution, 'job_id', id, 'created_at', created_at,
        'last_heartbeat', moment, 'worker_name', worker)
    redis.call('EXPIRE', key, ttl)
    redis.call('ZADD', executions_key(id), due + 60, execution)
    redis.call('EXPIRE', executions_key(id), ttl + 60)
    redis.call('ZADD', started, due, name)
    redis.call('SADD', index, name)
    redis.call('HSET', job_key(id), 'last_heartbeat', time, 'status', STARTED,
        'worker_name', worker)
end
