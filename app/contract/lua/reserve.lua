-- Memory reservations. Repeating `reserve` only changes the expiry (`moment`, ms since epoch).
-- Expired reservations count until `lapse` removes them.
local reservations, reserved_bytes = RESERVATIONS, RESERVED
local function count(reservation, sign)
    local size, owner = string.match(reservation, '^(%d+) %S+ (.*)$')
    redis.call('HINCRBY', reserved_bytes, '', sign .. size)
    redis.call('HINCRBY', reserved_bytes, owner, sign .. size)
end
local function reserve(reservation, moment)
    if redis.call('ZADD', reservations, moment, reservation) == 1 then count(reservation, '') end
end
local function unreserve(reservation)
    if redis.call('ZREM', reservations, reservation) == 1 then count(reservation, '-') end
end
local function lapse()
    local lapsed = redis.call('ZRANGEBYSCORE', reservations, '-inf', now_ms(), 'LIMIT', 0, 1000)
    for _, reservation in ipairs(lapsed) do unreserve(reservation) end
end
local function reserved(owner)
    return tonumber(redis.call('HGET', reserved_bytes, owner) or '0')
end
