-- Moves a job that RQ has appended to the queue to its place near the head.
--
-- KEYS: queue
-- ARGV: id, died ('1': its worker died)
local queue, id, died = KEYS[1], ARGV[1], ARGV[2]
redis.call('LREM', queue, 0, id)
insert_job(queue, id, died)
