"""What Redis does with RQ's jobs in one step, in Lua, for this worker.

Each script makes the changes that RQ's own classes would make job by job, and makes them only if
the job is still this worker's. So a process that was stopped for long, or a client that sends a
command again because its answer was lost, does nothing twice.
"""

from __future__ import annotations

from typing import cast

from rq.defaults import RQ_KEY_PREFIX
from rq.executions import ExecutionRegistry
from rq.job import Job, JobStatus
from rq.results import Result
from rq.worker import WorkerStatus

MOST_DEATHS = 5
"""So many workers may die with a job in hand; one more, and it is not tried again."""

_TAKE_REMEMBERED = 600  # s

_RESULTS = cast(str, Result.get_key(""))  # type: ignore[no-untyped-call]

_NAMES = f"""
local function job_key(id) return '{Job.key_for("")}' .. id end
local function results_key(id) return '{_RESULTS}' .. id end
local function executions_key(id) return '{ExecutionRegistry.key_template.format("")}' .. id end
local function execution_key(id, execution)
    return '{RQ_KEY_PREFIX}:execution:' .. id .. ':' .. execution
end
"""

# As RQ's Execution.create and Job.prepare_for_execution, or their heartbeats.
_HOLD = f"""
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
    redis.call('HSET', job_key(id), 'last_heartbeat', time, 'status', '{JobStatus.STARTED.value}',
        'worker_name', worker)
end
"""

# KEYS: queue, started registry, worker, its executions, what it took last, whether to take nothing
# ARGV: token, most, whether nothing is in hand (1 or 0), worker, moment (s), time, ttl
# The token names this take: sent again because no answer came, it tells what was taken.
# The worker's state is written before anything else: a full Redis refuses that, and so all of it.
TAKE = (
    _NAMES
    + _HOLD
    + f"""
local token, most, idle, worker, moment, time, ttl = unpack(ARGV)
local alone = 0
local names = redis.call('LRANGE', KEYS[5], 0, -1)
if table.remove(names, 1) ~= token then
    if redis.call('EXISTS', KEYS[6]) == 1 then return false end
    names = {{}}
    while #names < tonumber(most) do
        local id = redis.call('LINDEX', KEYS[1], 0)
        if not id then break end
        local suspect = redis.call('HEXISTS', job_key(id), 'deaths') == 1
        if suspect and (idle == '0' or #names > 0) then
            alone = 1
            break
        end
        redis.call('HSET', KEYS[3], 'state', '{WorkerStatus.BUSY.value}')
        redis.call('LPOP', KEYS[1])
        if redis.call('EXISTS', job_key(id)) == 1 then
            names[#names + 1] = id
            hold(KEYS[2], KEYS[4], worker, id, token .. '-' .. #names, moment, moment, time, ttl)
            redis.call('HSET', job_key(id), 'started_at', time)
            redis.call('PERSIST', job_key(id))
            if suspect then break end
        end
    end
    if #names > 0 then
        redis.call('DEL', KEYS[5])
        redis.call('RPUSH', KEYS[5], token, unpack(names))
        redis.call('EXPIRE', KEYS[5], {_TAKE_REMEMBERED})
        redis.call('EXPIRE', KEYS[4], ttl + 60)
    end
end
local taken = {{}}
for number, id in ipairs(names) do
    local found = redis.call('HMGET', job_key(id), 'data', 'result_ttl', 'deaths', 'meta')
    taken[number] = {{id, found[1], found[2], found[3], found[4]}}
end
return {{alone, taken}}
"""
)

# KEYS: started registry, executions of the worker
# ARGV: worker, moment (s), time, ttl; of each job its id, execution and start (s)
KEEP = (
    _NAMES
    + _HOLD
    + """
local worker, moment, time, ttl = unpack(ARGV, 1, 4)
for at = 5, #ARGV, 3 do
    local id, execution, created_at = unpack(ARGV, at, at + 2)
    if redis.call('ZSCORE', KEYS[1], id .. ':' .. execution) then
        hold(KEYS[1], KEYS[2], worker, id, execution, created_at, moment, time, ttl)
    end
end
"""
)

# KEYS: started registry, finished registry, worker, its executions
# ARGV: worker, moment (s), time; of each job its id, execution, start (s), ttl (s) and result
# Returns 1 for each job that this execution has finished, now or when the script was sent before.
FINISH = (
    _NAMES
    + f"""
local worker, moment, time = unpack(ARGV, 1, 3)
local finished = {{}}
local function finished_by(id, execution)
    local last = redis.call('XREVRANGE', results_key(id), '+', '-', 'COUNT', 1)[1]
    for _, word in ipairs(last and last[2] or {{}}) do
        if word == execution then return 1 end
    end
    return 0
end
for at = 4, #ARGV, 5 do
    local id, execution, started_at, ttl, result = unpack(ARGV, at, at + 4)
    local name = id .. ':' .. execution
    if not redis.call('ZSCORE', KEYS[1], name) then
        finished[#finished + 1] = finished_by(id, execution)
    else
        redis.call('HINCRBY', KEYS[3], 'successful_job_count', 1)
        redis.call('HINCRBYFLOAT', KEYS[3], 'total_working_time', moment - started_at)
        redis.call('HSET', job_key(id), 'status', '{JobStatus.FINISHED.value}', 'ended_at', time)
        redis.call('EXPIRE', job_key(id), ttl)
        redis.call('XADD', results_key(id), 'MAXLEN', '~', 10, '*',
            'type', {Result.Type.SUCCESSFUL.value}, 'worker_name', worker, 'return_value', result,
            'execution_id', execution, 'execution_started_at', started_at,
            'execution_ended_at', moment)
        redis.call('EXPIRE', results_key(id), ttl)
        redis.call('ZADD', KEYS[2], math.floor(moment) + ttl, id)
        redis.call('DEL', execution_key(id, execution))
        redis.call('ZREM', KEYS[1], name)
        redis.call('ZREM', executions_key(id), execution)
        redis.call('SREM', KEYS[4], name)
        finished[#finished + 1] = 1
    end
end
return finished
"""
)

# Jobs that had been taken stand at the head of the queue, those that fewer workers died with first,
# then the older ones. They have begun, so they no longer expire there.
_RETURN = f"""
local function put_back(queue, id, died)
    local function rank(of)
        local found = redis.call('HMGET', job_key(of), 'started_at', 'deaths', 'created_at')
        return (found[1] or '') ~= '', tonumber(found[2] or '') or 0, found[3] or ''
    end
    redis.call('PERSIST', job_key(id))
    local _, deaths, created_at = rank(id)
    if died == '1' then
        deaths = deaths + 1
        redis.call('HSET', job_key(id), 'deaths', deaths)
        if deaths > {MOST_DEATHS} then redis.call('HSET', job_key(id), 'retries_left', 0) end
    end
    local place, other = 0, redis.call('LINDEX', queue, 0)
    while other do
        local taken, others_deaths, others_created_at = rank(other)
        if not taken or others_deaths > deaths then break end
        if others_deaths == deaths and others_created_at > created_at then break end
        place = place + 1
        other = redis.call('LINDEX', queue, place)
    end
    if other then
        redis.call('LINSERT', queue, 'BEFORE', other, id)
    else
        redis.call('RPUSH', queue, id)
    end
end
"""

# KEYS: queue; ARGV: id, '1': its worker died. RQ has put it into the queue already.
RETURN = (
    _NAMES
    + _RETURN
    + """
redis.call('LREM', KEYS[1], 0, ARGV[1])
put_back(KEYS[1], ARGV[1], ARGV[2])
"""
)

# KEYS: queue, started registry, executions of the worker
# ARGV: '1': the worker dies; of each job its id and execution
# Returns 1 for each job that was still this worker's. The registry comes first: a full Redis allows
# that, and then whatever else the script writes.
PUT_BACK = (
    _NAMES
    + _RETURN
    + f"""
local returned = {{}}
for at = 2, #ARGV, 2 do
    local id, execution = ARGV[at], ARGV[at + 1]
    local name = id .. ':' .. execution
    local ours = redis.call('ZREM', KEYS[2], name)
    returned[#returned + 1] = ours
    if ours == 1 then
        redis.call('DEL', execution_key(id, execution))
        redis.call('ZREM', executions_key(id), execution)
        redis.call('SREM', KEYS[3], name)
        if redis.call('EXISTS', job_key(id)) == 1 then
            redis.call('HSET', job_key(id), 'status', '{JobStatus.QUEUED.value}')
            put_back(KEYS[1], id, ARGV[1])
        end
    end
end
return returned
"""
)
