local function masks_key(owner, name)
    return MASKS .. owner .. ':' .. name
end
local function waiting_key(owner) return WAITING .. owner end
local function holdings_key(owner) return HOLDINGS .. owner end
local function events_key(owner) return EVENTS .. owner end
local function held_bytes_key(owner) return HELD_BYTES .. owner end
local function holders_key(key) return key .. ':holders' end
local function parsed(holding)
    local size, key = string.match(holding, '^(%d+) (.+)$')
    return tonumber(size), key
end
local clock
local function now_ms()
    clock = clock or redis.call('TIME')
    return clock[1] * 1000 + math.floor(clock[2] / 1000)
end
local function live_until(key, moment, spare)
    if redis.call('PEXPIRETIME', key) < tonumber(moment) then
        redis.call('PEXPIREAT', key, moment + (spare or 0))
    end
end
-- For keys that many detections extend: adds a minute, to save most of the writes.
local function outlive(key, moment) live_until(key, moment, 60000) end
