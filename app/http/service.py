"""The service object that routes share: one per process, created at start-up."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from app.contract import records
from app.contract.directory import Directory
from app.contract.events import Ending, endings_after
from app.contract.jobs import JobQueue, places
from app.contract.schemas import (
    Detection,
    ErrorCode,
    Head,
    ImageInfo,
    MaskInfo,
    Masks,
    Status,
    Timings,
    ViewInfo,
    mask_path,
    overlay_path,
)
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Acceptance, Submission
from app.http import guard
from app.http.coalescer import Coalescer
from app.http.fetching import Fetcher
from app.http.metrics import CACHED, IMAGE_PIXELS, UPLOAD_BYTES, WAITING
from app.http.pictures import inspect
from app.http.problems import (
    OUTAGES,
    ServiceError,
    of_outage,
    of_unexpected,
    without_traceback,
)
from app.http.resources import Resources
from app.http.uploads import SMALL
from app.http.waiting import CHECK_INTERVAL, FinishedEvents
from app.webhooks.queue import Deliveries
from app.webhooks.targets import TargetRefusedError
from pictures.decoders import Decoders
from pictures.findings import MAX_FRAMES, View

DECODERS = 2
"""Maximum number of previews decoded at the same time."""

_CROP = 512 * 512  # pixels


@dataclass(frozen=True)
class Service:
    """Dependencies of the routes; `deliveries` is None if webhooks are off."""

    settings: Settings
    store: Store
    queue: JobQueue
    events: FinishedEvents
    deliveries: Deliveries | None = None

    @cached_property
    def directory(self) -> Directory:
        """Callers with their keys and limits.

        Raises:
            CallersFileError: If `GAMMA_CALLERS_FILE` is invalid.
        """
        return Directory(self.settings)

    @cached_property
    def decoders(self) -> Decoders:
        """Decoders of previews, in separate processes without access to secrets."""
        return Decoders(DECODERS, max_pixels=self.settings.max_pixels)

    @cached_property
    def fetcher(self) -> Fetcher:
        """Fetches pictures by URL."""
        return Fetcher(self.settings)

    @cached_property
    def resources(self) -> Resources:
        """Shared limits of uploads and downloads."""
        return Resources(self.settings)

    async def submit_request(self, submission: Submission) -> Detection:
        """As `submit`, but small concurrent uploads share a call.

        Raises:
            ServiceError: If the submission is refused.
        """
        if len(submission.picture) > SMALL:
            return await run_in_threadpool(self.submit, submission)
        (result,) = await self._small_submissions([submission])
        if isinstance(result, ServiceError):
            raise result
        return result

    async def wait(
        self,
        detections: Sequence[Detection],
        owner: str,
        seconds: float,
        disconnected: Callable[[], Awaitable[bool]],
    ) -> dict[str, Detection | ServiceError]:
        """Wait until detections are finished, without blocking a thread.

        Args:
            detections: last known records.
            owner: name of the caller.
            seconds: maximum time to wait.
            disconnected: returns whether the client has disconnected, which ends the wait.

        Returns:
            Current records by id, or `not_found` if a detection was deleted. During an outage the
            wait ends, with the last known records.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        current: dict[str, Detection | ServiceError] = {one.id: one for one in detections}
        waiting = {one.id for one in detections if not one.status.finished}
        with self.events.subscribe(waiting) as subscription, WAITING.track_inprogress():
            while waiting:
                endings = await subscription.receive(min(deadline - loop.time(), CHECK_INTERVAL))
                if endings:
                    found = {name: records.read_ending(end) for name, end in endings.items()}
                else:
                    asked = [(name, owner) for name in waiting]
                    guard.begin()  # a new budget for each read
                    try:
                        read = await self._records(asked)
                    except OUTAGES as error:
                        of_outage(error)
                        break
                    found = {name: end for (name, _), end in zip(asked, read, strict=True)}
                for name, record in found.items():
                    current[name] = record or ServiceError(ErrorCode.NOT_FOUND)
                    if record is None or record.status.finished:
                        waiting.discard(name)
                if loop.time() >= deadline or (waiting and await disconnected()):
                    break
        return current

    @cached_property
    def _small_submissions(self) -> Coalescer[Submission, Detection | ServiceError]:
        return Coalescer(self.submit_all, lambda submission: submission.owner)

    @cached_property
    def _records(self) -> Coalescer[tuple[str, str], Detection | None]:
        return Coalescer(self.store.get_each)

    @cached_property
    def endings(self) -> Coalescer[tuple[str, str], list[Ending]]:
        """Reads the endings after positions, see `endings_after`."""
        return Coalescer(partial(endings_after, self.store.redis))

    def submit(self, submission: Submission) -> Detection:
        """Submit one picture, see `submit_all`.

        Raises:
            ServiceError: If the submission is refused.
        """
        (result,) = self.submit_all([submission])
        if isinstance(result, ServiceError):
            raise result
        return result

    def submit_all(self, submissions: Sequence[Submission]) -> list[Detection | ServiceError]:
        """Store pictures and queue their detections, in one round trip to Redis.

        A repeated request returns its earlier detection. If the caller has a result of the same
        model for the same picture and view, it is reused, in a second round trip.

        Returns:
            For each submission the current detection or the error, such as those of `inspect`,
            `idempotency_mismatch`, `storage_full` and `storage_share_full`.
        """
        refusals = [self._prepare(one) for one in submissions]
        pairs = list(zip(submissions, refusals, strict=True))
        self.store.accept([one for one, refusal in pairs if refusal is None])
        return [refusal or self._settle(one) for one, refusal in pairs]

    def _prepare(self, submission: Submission) -> ServiceError | None:
        """Set the attributes that the store needs; returns the error if it is refused."""
        settings, owner = self.settings, submission.owner
        try:
            image = inspect(submission.picture, settings.max_pixels)
            submission.webhook_url = self.webhook_url(submission.webhook_url, owner)
        except ServiceError as error:
            return without_traceback(error)
        except Exception as error:  # must not affect the other submissions
            return of_unexpected(error)
        now = datetime.now(UTC)
        callers = self.directory.now
        weight = callers.settings_of(owner).weight
        submission.detection = Detection(
            id=uuid.uuid4().hex,
            ref_id=submission.ref_id,
            image=image,
            view=ViewInfo(
                mode=submission.view, frames=min(submission.frames, image.frames or MAX_FRAMES)
            ),
            created_at=now,
            expires_at=now + timedelta(seconds=settings.retention),
        )
        submission.deadline = now + timedelta(seconds=settings.queue_ttl)
        submission.cache = settings.cache
        submission.turn = self._crops(image, submission.detection.view) / weight
        submission.weight = 0.0 if callers.alone else weight
        submission.job = self.store.recorder()
        self.queue.enqueue(submission.job, submission.detection.id, submission.meta)
        if self.deliveries is not None and submission.webhook_url is not None:
            submission.delivery = self.store.recorder()
            self.deliveries.plan(submission.delivery, submission, submission.webhook_url)
        return None

    def _crops(self, image: ImageInfo, view: ViewInfo) -> float:
        """Approximate number of crops, as a measure of the work."""
        each = 1.0
        if view.mode is not View.CENTER:
            each = max(1.0, image.width * image.height / _CROP)
        return min(self.settings.max_tiles, each * view.frames)

    def webhook_url(self, given: str | None, owner: str) -> str | None:
        """Check and normalise a webhook URL; None: the owner's default URL, if it has one.

        Raises:
            ServiceError: If it is not allowed: `webhook_refused`.
        """
        caller = self.directory.now.settings_of(owner)
        given = given or caller.webhook_url
        if given is None:
            return None
        if self.deliveries is None or caller.webhook_secrets is None:
            raise ServiceError(
                ErrorCode.WEBHOOK_REFUSED,
                "No secret is configured for your webhooks (GAMMA_WEBHOOK_SECRETS, or "
                "webhook_secrets in GAMMA_CALLERS_FILE).",
            )
        try:
            return self.deliveries.check(given)
        except TargetRefusedError as error:
            raise ServiceError(ErrorCode.WEBHOOK_REFUSED, str(error)) from None

    def _settle(self, submission: Submission) -> Detection | ServiceError:
        """The detection or error of a stored submission; reuses the result of a known picture."""
        if submission.outcome is Acceptance.KNOWN:
            result = _reused(submission.answer, submission.detection)
            if self.store.accept_known(submission, result):
                CACHED.inc()
        if submission.outcome is Acceptance.GONE:  # deleted meanwhile: compute it
            submission.cache = False
            self.store.accept([submission])
        if submission.outcome is Acceptance.MISMATCH:
            return ServiceError(ErrorCode.IDEMPOTENCY_MISMATCH)
        if submission.outcome is Acceptance.TOO_LARGE:
            return ServiceError(
                ErrorCode.TOO_MANY_PIXELS, "Its result would not fit into Redis's memory."
            )
        if submission.outcome is Acceptance.FULL:
            return ServiceError(ErrorCode.STORAGE_FULL)
        if submission.outcome is Acceptance.SHARE_FULL:
            return ServiceError(ErrorCode.STORAGE_SHARE_FULL)
        if submission.outcome is Acceptance.ACCEPTED:
            image = submission.detection.image
            UPLOAD_BYTES.observe(image.bytes)
            IMAGE_PIXELS.observe(image.width * image.height)
        return submission.answer

    def record(self, detection_id: str, owner: str) -> Detection:
        """Get the record of a detection.

        Raises:
            ServiceError: If the owner has no such detection: `not_found`.
        """
        (detection,) = self.store.get_owned([detection_id], owner)
        if detection is None:
            raise ServiceError(ErrorCode.NOT_FOUND)
        return detection

    def in_queue(self, detections: Sequence[Detection]) -> list[Detection]:
        """Add their place in the queue to queued detections; one more round trip if there are any.

        A detection that a worker has taken since the record was read has no place.
        """
        arrivals = {
            one.id: one.created_at.timestamp() for one in detections if one.status is Status.QUEUED
        }
        if not arrivals:
            return list(detections)
        found = places(self.store.redis, self.settings, arrivals)
        return [
            one.model_copy(
                update={
                    "queue_position": found[one.id].position,
                    "expected_wait": found[one.id].wait,
                }
            )
            if one.id in found
            else one
            for one in detections
        ]

    def delete(self, detection_id: str, owner: str) -> None:
        """Delete a detection, and its job if it is waiting.

        Raises:
            ServiceError: If the owner has no such detection: `not_found`.
        """
        if not self.discard(detection_id, owner):
            raise ServiceError(ErrorCode.NOT_FOUND)

    def discard(self, detection_id: str, owner: str) -> bool:
        """As `delete`; returns False if the owner has no such detection."""
        commands = self.store.recorder()
        self.queue.withdraw(commands, detection_id)
        return self.store.delete(detection_id, owner, commands)


def _reused(known: Detection, new: Detection) -> Detection:
    """The final record of a detection that reuses the result of another."""
    now = datetime.now(UTC)
    total = (now - new.created_at).total_seconds()
    return known.model_copy(
        update={
            "id": new.id,
            "ref_id": new.ref_id,
            "cached": True,
            "masks": known.masks
            and Masks(
                ai=_moved(known.masks.ai, new.id, Head.AI),
                manipulation=_moved(known.masks.manipulation, new.id, Head.MANIPULATION),
            ),
            "timings": Timings(queued=0, decode=0, forward=0, encode=0, total=max(0.0, total)),
            "created_at": new.created_at,
            "finished_at": now,
            "expires_at": new.expires_at,
        }
    )


def _moved(mask: MaskInfo, detection_id: str, head: Head) -> MaskInfo:
    urls = {
        "mask_url": mask_path(detection_id, head),
        "overlay_url": overlay_path(detection_id, head),
    }
    return mask.model_copy(update=urls)


def service_of(request: Request) -> Service:
    """The service of the application that handles the request."""
    return cast(Service, request.app.state.service)
