-- Removes a holding of a detection; deletes its key if no other detection holds it.
local function release(owner, id, holding)
    local size, key = parsed(holding)
    local holders = holders_key(key)
    redis.call('ZREM', holders, id)
    redis.call('ZREMRANGEBYSCORE', holders, '-inf', now_ms())
    local last = redis.call('ZRANGE', holders, -1, -1, 'WITHSCORES')
    if last[2] then
        redis.call('PEXPIREAT', key, last[2])
        redis.call('ZADD', holdings_key(owner), last[2], holding)
    else
        redis.call('DEL', key, holders)
        if redis.call('ZREM', holdings_key(owner), holding) == 1 then
            redis.call('DECRBY', held_bytes_key(owner), size)
        end
    end
end
