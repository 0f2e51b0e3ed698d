"""Workers stay registered with RQ even if Redis loses its keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from app.command.doctor.findings import State
from app.command.doctor.redis_server import _deliveries
from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.settings import Settings
from app.webhooks.delivery import Deliverer
from app.webhooks.queue import queue_name
from app.webhooks.worker import DeliveryWorker


def while_idle(worker: DeliveryWorker) -> None:
    worker.heartbeat()


def with_a_job(worker: DeliveryWorker) -> None:
    with worker.connection.pipeline() as pipeline:
        worker.heartbeat(60, pipeline=pipeline)
        pipeline.execute()


@pytest.mark.parametrize("heartbeat", [while_idle, with_a_job])
def test_delivery_worker_registers_again_after_redis_lost_its_keys(
    tmp_path: Path, heartbeat: Callable[[DeliveryWorker], None]
) -> None:
    settings = Settings(callers_file=tmp_path / "callers.toml")
    with private_redis(tmp_path / "data", 2**26) as (url, _), connect(url) as redis:
        queue = Queue(queue_name(settings), connection=redis, serializer=JSONSerializer)
        worker = DeliveryWorker(queue, redis, Mock(Deliverer), threads=1)
        worker.register_birth()
        redis.flushall()
        redis.rpush(queue.key, "msg_1")
        heartbeat(worker)
        (found,) = Worker.all(connection=redis)
        assert (found.name, found.queue_names()) == (worker.name, [queue.name])
        assert redis.ttl(worker.key) > 0
        (finding,) = _deliveries(redis, settings)
        assert finding.state is State.OK
