-- Moves a job that RQ has put into the queue to its place there.
--
-- KEYS: queue
-- ARGV: id, died ('1': its worker died)
local queue, id, died = KEYS[1], ARGV[1], ARGV[2]
redis.call('LREM', queue, 0, id)
put_back(queue, id, died)
