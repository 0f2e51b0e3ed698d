-- Whether an owner takes more of Redis's memory than its share: as much as stays free, times its
-- weight. Whoever fills it leaves room for another, as large as its own part, and so does the next.
-- `inside`: pictures and masks lie there too.
local function beyond_share(owner, index, weight, free, inside)
    local memory = redis.call('ZCARD', index) * RECORD_BYTES + reserved(owner)
    if inside then memory = memory + held(owner) end
    return memory > weight * free
end
