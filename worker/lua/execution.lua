-- Does what RQ's Execution.create and Job.prepare_for_execution do, or their heartbeats.
local function write_execution(started, index, worker, id, execution, created_at, moment, time, ttl)
    local name, key = id .. ':' .. execution, execution_key(id, execution)
    local due = math.floor(moment) + ttl
    -- A full Redis allows EXPIRE, and after it all further writes of the script.
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
