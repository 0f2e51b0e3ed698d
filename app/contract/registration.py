"""Registration of workers with RQ."""

from __future__ import annotations

from redis.client import Pipeline
from rq import worker_registration
from rq.worker import SimpleWorker


class RegisteredWorker(SimpleWorker):
    """An RQ worker that stays registered even if Redis loses its keys."""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """As RQ's, and register again; this changes nothing if the worker is registered."""
        if pipeline is None:
            with self.connection.pipeline(transaction=False) as own:
                self.heartbeat(timeout, own)
                own.execute()
            return
        super().heartbeat(timeout, pipeline)
        pipeline.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipeline)
