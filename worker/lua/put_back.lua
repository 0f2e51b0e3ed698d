-- Puts a worker's jobs back into the queue.
--
-- KEYS: queue, started registry, executions of the worker
-- ARGV: died ('1': the worker dies); per job: id, execution
-- Returns 1 for each job that was still this worker's.
--
-- ZREM comes first: a full Redis allows it, and after it all further writes of the script.
local queue, started, executions = unpack(KEYS)
local died = ARGV[1]
local returned = {}
for at = 2, #ARGV, 2 do
    local id, execution = ARGV[at], ARGV[at + 1]
    local name = id .. ':' .. execution
    local owned = redis.call('ZREM', started, name)
    returned[#returned + 1] = owned
    if owned == 1 then
        redis.call('DEL', execution_key(id, execution))
        redis.call('ZREM', executions_key(id), execution)
        redis.call('SREM', executions, name)
        if redis.call('EXISTS', job_key(id)) == 1 then
            redis.call('HSET', job_key(id), 'status', QUEUED)
            insert_job(queue, id, died)
        end
    end
end
return returned
