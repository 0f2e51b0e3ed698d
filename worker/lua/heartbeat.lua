-- Sends a heartbeat for the jobs that are still this worker's.
--
-- KEYS: started registry, executions of the worker
-- ARGV: worker, now (s since the epoch), now (text), ttl (s); per job: id, execution, start (s)
local started, executions = unpack(KEYS)
local worker, moment, time, ttl = unpack(ARGV, 1, 4)
for at = 5, #ARGV, 3 do
    local id, execution, created_at = unpack(ARGV, at, at + 2)
    if redis.call('ZSCORE', started, id .. ':' .. execution) then
        write_execution(started, executions, worker, id, execution, created_at, moment, time, ttl)
    end
end
