"""What the routes share: one object a process, made at start-up, never a global."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from redis.client import Pipeline

from app.contract import records, tracing
from app.contract.directory import Directory
from app.contract.jobs import JobQueue
from app.contract.reception import Application, Reception
from app.contract.schemas import (
    Detection,
    ErrorCode,
    Head,
    ImageInfo,
    MaskInfo,
    Masks,
    Timings,
    View,
    ViewInfo,
    mask_path,
    overlay_path,
)
from app.contract.settings import Settings
from app.contract.store import Store
from app.http import guard
from app.http.coalescer import Coalescer
from app.http.metrics import CACHED, IMAGE_PIXELS, UPLOAD_BYTES, WAITING
from app.http.pictures import inspect
from app.http.problems import (
    OUTAGES,
    ServiceError,
    of_outage,
    of_surprise,
    storage_full,
    storage_share_full,
    without_traceback,
)
from app.http.uploads import SMALL, Rooms
from app.http.waiting import CHECK_INTERVAL, FinishedEvents
from app.webhooks.queue import Deliveries
from app.webhooks.targets import TargetRefusedError
from pictures.decoders import Decoders

DECODERS = 2
"""Stored pictures that are decoded at the same time, to be shown."""

_CROP = 512 * 512  # pixels


@dataclass(frozen=True)
class Order:
    """A picture that a caller wants to be examined.

    Attributes:
        owner: name of the caller.
        picture: the file as it came.
        ref_id: the caller's own reference.
        idempotency_key: the caller's name for this request: repeated, it has the same answer.
        webhook_url: where the result is announced.
        meta: names the request in the log lines of other processes.
    """

    owner: str
    picture: bytes
    view: View
    ref_id: str | None = None
    idempotency_key: str | None = None
    webhook_url: str | None = None
    meta: Mapping[str, str] = field(default_factory=tracing.meta)


@dataclass(frozen=True)
class Service:
    """Everything a request needs; no deliveries: webhooks are off."""

    settings: Settings
    store: Store
    queue: JobQueue
    events: FinishedEvents
    deliveries: Deliveries | None = None

    @cached_property
    def directory(self) -> Directory:
        """Who may call, and on what terms.

        Raises:
            CallersFileError: `GAMMA_CALLERS_FILE` cannot be used.
        """
        return Directory(self.settings)

    @cached_property
    def decoders(self) -> Decoders:
        """Where stored pictures are decoded: in processes that know nothing of all this."""
        return Decoders(DECODERS, max_pixels=self.settings.max_pixels)

    @cached_property
    def rooms(self) -> Rooms:
        """Where the bytes of uploads are held."""
        return Rooms(self.settings)

    async def apply(self, order: Order) -> Detection:
        """As `submit`, for a request: small pictures that come at the same time go together.

        Raises:
            ServiceError: it is refused.
        """
        if len(order.picture) > SMALL:
            return await run_in_threadpool(self.submit, order)
        (result,) = await self._small_orders([order])
        if isinstance(result, ServiceError):
            raise result
        return result

    async def wait(
        self,
        detections: Sequence[Detection],
        owner: str,
        seconds: float,
        hung_up: Callable[[], Awaitable[bool]],
    ) -> dict[str, Detection | ServiceError]:
        """What became of detections, by their ids; it holds no thread.

        Args:
            detections: as they were last seen.
            owner: whose they are.
            seconds: that it takes at most, should they not all be final before.
            hung_up: whether nobody waits any more; asked now and then.

        Returns:
            Their records as they are now; `not_found` for one that was deleted meanwhile. An
            outage ends the wait: they are as they were last seen.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        current: dict[str, Detection | ServiceError] = {one.id: one for one in detections}
        waiting = {one.id for one in detections if not one.status.finished}
        with self.events.expect(waiting) as expectation, WAITING.track_inprogress():
            while waiting:
                endings = await expectation.news(min(deadline - loop.time(), CHECK_INTERVAL))
                if endings:
                    found = {name: records.read_ending(end) for name, end in endings.items()}
                else:
                    asked = [(name, owner) for name in waiting]
                    guard.begin()  # each look has a budget: a wait may have many
                    try:
                        read = await self._records(asked)
                    except OUTAGES as error:
                        of_outage(error)
                        break
                    found = {name: end for (name, _), end in zip(asked, read, strict=True)}
                for name, record in found.items():
                    current[name] = record or no_such_detection()
                    if record is None or record.status.finished:
                        waiting.discard(name)
                if loop.time() >= deadline or (waiting and await hung_up()):
                    break
        return current

    @cached_property
    def _small_orders(self) -> Coalescer[Order, Detection | ServiceError]:
        return Coalescer(self.submit_all, lambda order: order.owner)

    @cached_property
    def _records(self) -> Coalescer[tuple[str, str], Detection | None]:
        return Coalescer(self.store.get_each)

    def submit(self, order: Order) -> Detection:
        """The detection of one picture, see `submit_all`.

        Raises:
            ServiceError: it is refused.
        """
        (result,) = self.submit_all([order])
        if isinstance(result, ServiceError):
            raise result
        return result

    def submit_all(self, orders: Sequence[Order]) -> list[Detection | ServiceError]:
        """Store pictures and queue their detections, in one round trip to Redis; each for itself.

        A repeated request is given the detection it was given before. A picture that the same
        model has answered for the same caller and view is given that answer, in a second trip.

        Returns:
            In the order of `orders`: the detection as it is now, or why there is none (its header
            shows that the picture cannot be accepted, `idempotency_mismatch`, `storage_full` or
            `storage_share_full`).
        """
        applications = [self._application(order) for order in orders]
        accepted = [
            (order, application)
            for order, application in zip(orders, applications, strict=True)
            if isinstance(application, Application)
        ]
        received = iter(self._accept(accepted))
        return [
            application
            if isinstance(application, ServiceError)
            else self._settle(order, application, *next(received))
            for order, application in zip(orders, applications, strict=True)
        ]

    def _application(self, order: Order) -> Application | ServiceError:
        settings = self.settings
        try:
            image = inspect(order.picture, settings.max_pixels)
            webhook_url = self.webhook_url(order.webhook_url, order.owner)
        except ServiceError as error:
            return without_traceback(error)
        except Exception as error:  # one order's surprise must not end the others
            return of_surprise(error)
        now = datetime.now(UTC)
        callers = self.directory.now
        weight = callers.terms_of(order.owner).weight
        return Application(
            Detection(
                id=uuid.uuid4().hex,
                ref_id=order.ref_id,
                image=image,
                view=ViewInfo(mode=order.view),
                created_at=now,
                expires_at=now + timedelta(seconds=settings.retention),
            ),
            owner=order.owner,
            deadline=now + timedelta(seconds=settings.queue_ttl),
            idempotency_key=order.idempotency_key,
            webhook_url=webhook_url,
            cache=settings.cache,
            turn=self._crops(image, order.view) / weight,
            weight=0.0 if callers.alone else weight,
        )

    def _crops(self, image: ImageInfo, view: View) -> float:
        """About how many crops a picture is, which is what it costs."""
        if view is View.CENTER:
            return 1.0
        return min(self.settings.max_tiles, max(1.0, image.width * image.height / _CROP))

    def _accept(
        self, accepted: Sequence[tuple[Order, Application]]
    ) -> list[tuple[Reception, Detection]]:
        """What becomes of applications that bring their pictures."""
        if not accepted:
            return []
        arrivals = []
        for order, application in accepted:
            jobs = self.store.redis.pipeline()  # collects commands, is never executed
            self.queue.enqueue(jobs, application.detection.id, order.meta)
            self._announce(jobs, order, application)
            arrivals.append((application, order.picture, jobs))
        return self.store.accept(arrivals)

    def webhook_url(self, given: str | None, owner: str) -> str | None:
        """The URL that an owner's webhook goes to, in its normal form.

        Raises:
            ServiceError: `webhook_refused`.
        """
        if given is None:
            return None
        secrets = self.directory.now.terms_of(owner).webhook_secrets
        if self.deliveries is None or secrets is None:
            raise ServiceError(
                ErrorCode.WEBHOOK_REFUSED,
                "No secret is configured for your webhooks (GAMMA_WEBHOOK_SECRETS, or "
                "webhook_secrets in GAMMA_CALLERS_FILE).",
            )
        try:
            return self.deliveries.check(given)
        except TargetRefusedError as error:
            raise ServiceError(ErrorCode.WEBHOOK_REFUSED, str(error)) from None

    def _announce(self, jobs: Pipeline, order: Order, application: Application) -> None:
        """Add the webhook's job to `jobs`, if there is one."""
        if self.deliveries is not None and application.webhook_url is not None:
            self.deliveries.plan(
                jobs,
                application.detection.id,
                application.webhook_url,
                application.owner,
                application.deadline,
                order.meta,
            )

    def _settle(
        self, order: Order, application: Application, reception: Reception, detection: Detection
    ) -> Detection | ServiceError:
        """The answer to what was received; a known picture is given its result."""
        if reception is Reception.KNOWN:
            result = _reused(detection, application.detection)
            jobs = self.store.redis.pipeline()  # collects commands, is never executed
            self._announce(jobs, order, application)
            reception, detection = self.store.accept_known(application, detection, result, jobs)
            if reception is Reception.ACCEPTED:
                detection = result
                CACHED.inc()
        if reception is Reception.GONE:  # deleted between the two trips: compute it
            application = replace(application, cache=False)
            ((reception, detection),) = self._accept([(order, application)])
        if reception is Reception.MISMATCH:
            return ServiceError(
                ErrorCode.IDEMPOTENCY_MISMATCH,
                "This Idempotency-Key was used with another picture, view, ref_id or webhook_url.",
            )
        if reception is Reception.TOO_LARGE:
            return ServiceError(
                ErrorCode.TOO_MANY_PIXELS, "Its result would not fit into Redis's memory."
            )
        if reception is Reception.FULL:
            return storage_full()
        if reception is Reception.SHARE_FULL:
            return storage_share_full()
        if reception is Reception.ACCEPTED:
            UPLOAD_BYTES.observe(detection.image.bytes)
            IMAGE_PIXELS.observe(detection.image.width * detection.image.height)
        return detection

    def record(self, detection_id: str, owner: str) -> Detection:
        """The record of a detection.

        Raises:
            ServiceError: `not_found`, also if it is another owner's.
        """
        (detection,) = self.store.get_owned([detection_id], owner)
        if detection is None:
            raise no_such_detection()
        return detection

    def delete(self, detection_id: str, owner: str) -> None:
        """Remove everything about a detection, and its job if it waits.

        Raises:
            ServiceError: `not_found`, also if it is another owner's.
        """
        jobs = self.store.redis.pipeline()  # collects commands, is never executed
        self.queue.withdraw(jobs, detection_id)
        if not self.store.delete(detection_id, owner, jobs):
            raise no_such_detection()


def no_such_detection() -> ServiceError:
    """The same for what never was, what was deleted, and what is another caller's."""
    return ServiceError(ErrorCode.NOT_FOUND, "There is no detection with this id.")


def _reused(known: Detection, new: Detection) -> Detection:
    """The record of a detection whose picture has a result already."""
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
