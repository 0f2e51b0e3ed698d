-- Whether an owner uses more than its share of Redis's memory, which is the free memory times its
-- weight (a dynamic threshold). So an owner always leaves memory for others.
-- `inside`: pictures and masks are stored in Redis.
local function beyond_share(owner, index, weight, free, inside)
    local memory = redis.call('ZCARD', index) * RECORD_BYTES + reserved(owner)
    if inside then memory = memory + held(owner) end
    return memory > weight * free
end
