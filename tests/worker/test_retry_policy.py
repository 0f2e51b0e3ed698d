"""A worker waits while Redis refuses writes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.command.embedded import private_redis
from app.contract.client import WritesRefusedError, connect
from worker.retry_policy import connect_with_retries

SCRIPT = "return redis.call('SET', KEYS[1], ARGV[1])"


@pytest.mark.parametrize("refusal", ["min-replicas-to-write", "replica"])
@pytest.mark.parametrize("form", ["command", "script", "transaction"])
def test_refused_writes_are_retried(tmp_path: Path, refusal: str, form: str) -> None:
    with private_redis(tmp_path / "redis", 2**28) as (url, _), connect(url) as redis:
        if refusal == "replica":
            redis.replicaof("127.0.0.1", 1)
        else:
            redis.config_set(refusal, 1)

        def write(client) -> None:
            if form == "command":
                client.set("key", "written")
            elif form == "script":
                client.eval(SCRIPT, 1, "key", "written")
            else:
                with client.pipeline() as pipeline:
                    pipeline.eval(SCRIPT, 1, "key", "written")
                    pipeline.execute()

        with pytest.raises(WritesRefusedError):
            write(redis)
        with connect_with_retries(url) as retrying:
            waiting = threading.Thread(target=write, args=(retrying,))
            waiting.start()
            redis.replicaof("NO", "ONE")
            redis.config_set("min-replicas-to-write", 0)
            waiting.join(60)
            assert not waiting.is_alive()
        assert redis.get("key") == b"written"
