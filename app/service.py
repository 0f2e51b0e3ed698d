"""What the routes share: one object a process, made at start-up, never a global."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, cast

from fastapi import Depends, Request

from app.jobs import JobQueue
from app.metrics import IMAGE_PIXELS, UPLOAD_BYTES
from app.pictures import inspect
from app.problems import ServiceError
from app.schemas import Detection, ErrorCode, View, ViewInfo
from app.settings import Settings
from app.store import Store
from app.waiting import FinishedEvents


@dataclass(frozen=True)
class Service:
    """Everything a request needs."""

    settings: Settings
    store: Store
    queue: JobQueue
    events: FinishedEvents

    def admit(self) -> None:
        """Refuse new work while the queue is at its limit.

        Raises:
            ServiceError: `queue_full`.
        """
        if self.queue.depth() >= self.settings.queue_limit:
            raise ServiceError(
                ErrorCode.QUEUE_FULL, f"{self.settings.queue_limit} detections wait already."
            )

    def submit(self, picture: bytes, view: View, ref_id: str | None) -> Detection:
        """Store a picture and queue its detection, in one round trip.

        Raises:
            ServiceError: the header shows that the picture cannot be accepted.
        """
        settings = self.settings
        image = inspect(picture, settings.max_pixels)
        now = datetime.now(UTC)
        detection = Detection(
            id=uuid.uuid4().hex,
            ref_id=ref_id,
            image=image,
            view=ViewInfo(mode=view),
            created_at=now,
            expires_at=now + timedelta(seconds=settings.retention),
        )
        deadline = now + timedelta(seconds=settings.queue_ttl)
        with self.store.redis.pipeline() as pipeline:
            self.queue.enqueue(pipeline, detection.id)  # first: RQ opens the transaction itself
            self.store.create(pipeline, detection, picture, deadline)
            pipeline.execute()
        UPLOAD_BYTES.observe(image.bytes)
        IMAGE_PIXELS.observe(image.width * image.height)
        return detection

    def record(self, detection_id: str) -> Detection:
        """The record of a detection.

        Raises:
            ServiceError: `not_found`.
        """
        detection = self.store.get(detection_id)
        if detection is None:
            raise ServiceError(ErrorCode.NOT_FOUND, "There is no such detection.")
        return detection


def of_request(request: Request) -> Service:
    """The service of the application that handles the request."""
    return cast(Service, request.app.state.service)


TheService = Annotated[Service, Depends(of_request)]
