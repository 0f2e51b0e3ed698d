-- Total bytes of an owner's holdings; removes expired ones.
local function held(owner)
    local expired = redis.call('ZRANGEBYSCORE', holdings_key(owner), '-inf', now_ms(), 'LIMIT', 0,
        1000)
    for _, holding in ipairs(expired) do
        redis.call('DECRBY', held_bytes_key(owner), (parsed(holding)))
        redis.call('ZREM', holdings_key(owner), holding)
    end
    return tonumber(redis.call('GET', held_bytes_key(owner)) or '0')
end
