"""What Redis does in one step, in Lua: a detection is accepted, begun, finished or deleted whole.

Keys that a script cannot know beforehand (the caller's idempotency entry, the cache entry) are
kept in the record's hash under their full names, so that key names are made in
`app.records` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis.client import Pipeline

# The commands in ARGV, each preceded by its number of words, from `at` on.
_RUN = """
while at <= #ARGV do
    local words = tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, at + words))
    at = at + words + 1
end
"""

# KEYS: record, picture, index, cache entry, idempotency entry (either '': none), model, then for
#   bytes to be copied: source, target…
# ARGV: owner, record, deadline (s), tombstone (ms since epoch), index member, oldest index member,
#   fingerprint, '1': look in the cache, expiry (ms since epoch), commands that queue it…
# Returns {what happened, …}; but for `accepted` nothing is left of what came. Sent again because an
# answer was lost, it changes nothing.
ACCEPT = (
    """
local record, picture, index, cache, idempotency = unpack(KEYS)
if redis.call('EXISTS', record) == 1 then return {'accepted'} end
if idempotency ~= '' then
    local first = redis.call('HMGET', idempotency, 'fingerprint', 'record')
    if first[2] and redis.call('EXISTS', first[2]) == 1 then
        redis.call('DEL', picture)
        if first[1] ~= ARGV[7] then return {'mismatch'} end
        return {'repeated', unpack(redis.call('HMGET', first[2], 'status', 'record', 'deadline'))}
    end
end
if ARGV[8] == '1' then
    local model, source = redis.call('GET', KEYS[6]), redis.call('GET', cache)
    if model and source then
        local known = redis.call('HMGET', source, 'status', 'record', 'model')
        if known[1] == 'succeeded' and known[3] == model then
            redis.call('DEL', picture)
            return {'known', known[2]}
        end
    end
end
for i = 7, #KEYS, 2 do
    if redis.call('EXISTS', KEYS[i]) == 0 then return {'gone'} end
end
for i = 7, #KEYS, 2 do
    redis.call('COPY', KEYS[i], KEYS[i + 1])
    redis.call('PEXPIREAT', KEYS[i + 1], ARGV[9])
end
redis.call('HSET', record, 'status', 'queued', 'owner', ARGV[1], 'record', ARGV[2],
    'deadline', ARGV[3], 'member', ARGV[5], 'cache', cache, 'idempotency', idempotency)
redis.call('PEXPIREAT', record, ARGV[4])
redis.call('ZADD', index, 0, ARGV[5])
redis.call('ZREMRANGEBYLEX', index, '-', '(' .. ARGV[6])
if redis.call('PEXPIRETIME', index) < tonumber(ARGV[4]) then
    redis.call('PEXPIREAT', index, ARGV[4])
end
if idempotency ~= '' then
    redis.call('HSET', idempotency, 'fingerprint', ARGV[7], 'record', record)
    redis.call('PEXPIREAT', idempotency, ARGV[4])
end
local at = 10
"""
    + _RUN
    + "return {'accepted'}"
)

# KEYS: record; ARGV: now (s). Returns the record, or nothing if there is no work to do.
START = """
local found = redis.call('HMGET', KEYS[1], 'status', 'record', 'deadline')
if found[1] ~= 'queued' and found[1] ~= 'processing' then return false end
if found[1] == 'queued' and tonumber(found[3]) <= tonumber(ARGV[1]) then return false end
redis.call('HSET', KEYS[1], 'status', 'processing')
return found[2]
"""

# KEYS: record, masks…
# ARGV: status, record, model, id, channel, expiry (ms since epoch), now as RQ writes it, masks…
# A result may serve the same picture again: the cache entry then names its record. A webhook's job
# waits on RQ's schedule (`app.webhooks.queue`): now it is due, if it is still there.
FINISH = """
local found = redis.call('HMGET', KEYS[1], 'status', 'cache', 'webhook')
if found[1] ~= 'queued' and found[1] ~= 'processing' then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[1], 'record', ARGV[2], 'model', ARGV[3])
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 6], 'PXAT', ARGV[6]) end
if ARGV[1] == 'succeeded' and found[2] and found[2] ~= '' then
    redis.call('SET', found[2], KEYS[1], 'PXAT', ARGV[6])
end
if found[3] then
    local webhook = cjson.decode(found[3])
    if redis.call('ZREM', webhook.schedule_key, webhook.job_id) == 1 then
        redis.call('HSET', webhook.job_key, 'status', 'queued', 'enqueued_at', ARGV[7])
        redis.call('RPUSH', webhook.queue_key, webhook.job_id)
    end
end
redis.call('PUBLISH', ARGV[5], ARGV[4] .. ' ' .. ARGV[1] .. ' ' .. ARGV[2])
return 1
"""

# KEYS: index, record, and all bytes; ARGV: owner, id, channel, commands that take it off the queue…
# Returns 1, or 0 if this owner has no such detection.
DELETE = (
    """
local found = redis.call('HMGET', KEYS[2], 'owner', 'status', 'member', 'cache', 'idempotency')
if found[1] ~= ARGV[1] then return 0 end
redis.call('DEL', unpack(KEYS, 2))
redis.call('ZREM', KEYS[1], found[3])
if found[4] ~= '' and redis.call('GET', found[4]) == KEYS[2] then redis.call('DEL', found[4]) end
if found[5] ~= '' then redis.call('DEL', found[5]) end
redis.call('PUBLISH', ARGV[3], ARGV[2])
if found[2] ~= 'queued' then return 1 end
local at = 4
"""
    + _RUN
    + "return 1"
)


def words(commands: Pipeline) -> Iterator[Any]:
    """The commands collected in a pipeline, as a script's ARGV: each preceded by its length."""
    for command, _ in commands.command_stack:
        yield len(command)
        yield from command
