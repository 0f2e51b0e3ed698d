"""What RQ's lists of workers say of ours."""

from __future__ import annotations

from redis.client import Pipeline
from rq import worker_registration
from rq.worker import SimpleWorker


class RegisteredWorker(SimpleWorker):
    """A worker that stands in RQ's lists as long as it lives, also after Redis lost its keys."""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """As RQ's; and register again, which changes nothing if Redis knows this worker."""
        if pipeline is None:
            with self.connection.pipeline(transaction=False) as own:
                self.heartbeat(timeout, own)
                own.execute()
            return
        super().heartbeat(timeout, pipeline)
        pipeline.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipeline)
