-- Adds a holding of a detection until `moment` (ms since epoch); its key must exist.
local function hold(owner, id, holding, moment)
    local size, key = parsed(holding)
    redis.call('ZADD', holders_key(key), moment, id)
    live_until(holders_key(key), moment)
    if redis.call('ZADD', holdings_key(owner), 'GT', moment, holding) == 1 then
        redis.call('INCRBY', held_bytes_key(owner), size)
    end
    outlive(holdings_key(owner), moment)
    outlive(held_bytes_key(owner), moment)
    live_until(key, moment)
end
