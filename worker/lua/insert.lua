-- Inserts a job that was taken before near the head of the queue. Such jobs are sorted by the number
-- of workers that died with them, then by age. They no longer expire, since they were started.
local function insert_job(queue, id, died)
    local function rank(of)
        local found = redis.call('HMGET', job_key(of), 'started_at', 'deaths', 'created_at')
        return (found[1] or '') ~= '', tonumber(found[2] or '') or 0, found[3] or ''
    end
    redis.call('PERSIST', job_key(id))
    local _, deaths, created_at = rank(id)
    if died == '1' then
        deaths = deaths + 1
        redis.call('HSET', job_key(id), 'deaths', deaths)
        if deaths > MAX_DEATHS then redis.call('HSET', job_key(id), 'retries_left', 0) end
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
