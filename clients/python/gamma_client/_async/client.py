"""The client of detections."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import Literal, Unpack

import httpx2

from gamma_client._async.connection import AsyncConnection
from gamma_client._async.folders import AsyncUploads
from gamma_client._async.reviews import AsyncReviews
from gamma_client._async.runtime import sleep
from gamma_client._async.webhooks import AsyncWebhooks
from gamma_client.calls import (
    ENDED,
    MAX_IDS,
    MAX_WAIT,
    Call,
    Conditions,
    DetectionEvent,
    Picture,
    cursor_of,
    event_of,
    one,
    one_upload,
)
from gamma_client.errors import DetectionFailedError, StillWaitingError
from gamma_client.models import (
    Deletions,
    Detection,
    DetectionList,
    ModelFacts,
    Usage,
    View,
)

Head = Literal["ai", "manipulation"]


class AsyncClient(AsyncUploads):
    """A service, and a key of it.

    Every method raises, besides what it names itself:

    - ServiceError if the service refuses the request,
    - httpx2.HTTPError if the connection fails or an answer takes too long.

    Requests that do nothing twice are repeated while the service is busy (429, 502, 503, 504) or
    unreachable. That is all but decisions, their withdrawal, webhooks, and deletion by conditions:
    each upload has an `Idempotency-Key`. `Retry-After` says when; without it, pauses grow to 30 s.

    Attributes:
        reviews: decisions of people about detections.
        webhooks: deliveries of webhooks.
    """

    def __init__(
        self,
        address: str,
        key: str | None = None,
        *,
        patience: float = 300,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        """Connect when the first request is sent.

        Args:
            address: address of the service, such as `https://gamma.example`, with the path below
                which it is, if any.
            key: the key; None or "" for a service without keys.
            patience: how long a request is repeated at most, in seconds. 0: never.
            http: client of httpx2 with other settings (proxy, certificates, timeouts); it is closed
                with this one. An answer may take 60 s.

        Raises:
            ValueError: If the key cannot be one.
        """
        super().__init__(
            AsyncConnection(
                address, key, patience, http or httpx2.AsyncClient(timeout=MAX_WAIT + 30)
            )
        )
        self.reviews = AsyncReviews(self._connection)
        self.webhooks = AsyncWebhooks(self._connection)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def detect(
        self,
        picture: Picture | None = None,
        *,
        url: str | None = None,
        ref_id: str | None = None,
        view: View | None = None,
        frames: int | None = None,
        idempotency_key: str | None = None,
        timeout: float = 600,
    ) -> Detection:
        """Upload a picture and wait for its result; arguments and errors as in `submit` and `wait`.

        Returns:
            The record, whose status is `succeeded`.
        """
        submitted = await self.submit(
            picture,
            url=url,
            ref_id=ref_id,
            view=view,
            frames=frames,
            idempotency_key=idempotency_key,
        )
        return await self.wait(submitted.id, timeout=timeout)

    async def submit(
        self,
        picture: Picture | None = None,
        *,
        url: str | None = None,
        ref_id: str | None = None,
        view: View | None = None,
        frames: int | None = None,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> Detection:
        """Upload a picture and return at once.

        Args:
            picture: path of its file, or its bytes.
            url: in place of it the https address of a picture, if the service fetches pictures.
            ref_id: your own reference, up to 200 printable characters.
            view: what the model looks at.
            frames: how many frames of an animation or pages of a TIFF to examine at most, 1 to 8.
            webhook_url: address that receives the record when the detection has ended.
            idempotency_key: your own name of the upload: a repetition returns the same detection.
                By default every call is another upload.

        Returns:
            The record: `queued`, or `succeeded` if the service knows the picture.

        Raises:
            OSError: If the file cannot be read.
        """
        call = one_upload(
            picture,
            url=url,
            key=idempotency_key,
            ref_id=ref_id,
            view=view,
            frames=frames,
            webhook_url=webhook_url,
        )
        return await self._connection.read(call, Detection)

    async def get(self, detection_id: str) -> Detection:
        """Return the current record of a detection, whatever its status."""
        return await self._connection.read(Call(method="GET", path=one(detection_id)), Detection)

    async def wait(self, detection_id: str, *, timeout: float = 600) -> Detection:
        """Wait for the result of a detection.

        Args:
            detection_id: its id.
            timeout: how long, in seconds.

        Returns:
            The record, whose status is `succeeded`.

        Raises:
            DetectionFailedError: If it has failed or expired.
            StillWaitingError: If it has not ended in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            begun = time.monotonic()
            held = max(0, min(MAX_WAIT, round(deadline - begun)))
            call = Call(method="GET", path=one(detection_id), headers={"Prefer": f"wait={held}"})
            detection = await self._connection.read(call, Detection)
            if detection.status == "succeeded":
                return detection
            if detection.status in ENDED:
                raise DetectionFailedError(detection)
            now = time.monotonic()
            if now >= deadline:
                raise StillWaitingError(detection)
            # At least a second between two requests, also if the answer was not held.
            await sleep(max(0, min(deadline, begun + 1) - now))

    async def detections(self, **conditions: Unpack[Conditions]) -> AsyncIterator[Detection]:
        """Iterate over your detections, newest first; the next page is read when it is needed.

        Args:
            **conditions: only those that meet all of them.
        """
        cursor = None
        while True:
            params = {"limit": MAX_IDS, "cursor": cursor, **conditions}
            call = Call(method="GET", path="/v1/detections", params=params)
            page = await self._connection.read(call, DetectionList)
            for detection in page.detections:
                yield detection
            cursor = cursor_of(page.next)
            if cursor is None:
                return

    async def delete(self, detection_id: str, *, purge: bool = False) -> None:
        """Delete a detection: record, picture and masks.

        Args:
            detection_id: its id.
            purge: also erase notes and names in its reviews.
        """
        params = {"purge": purge or None}
        await self._connection.send(Call(method="DELETE", path=one(detection_id), params=params))

    async def delete_many(
        self,
        ids: Sequence[str] | None = None,
        *,
        dry_run: bool = False,
        purge: bool = False,
        **conditions: Unpack[Conditions],
    ) -> Deletions:
        """Delete up to 100 detections: those in `ids`, or those that meet the conditions.

        Args:
            ids: ids of detections.
            dry_run: only say which would be deleted.
            purge: also erase notes and names in their reviews.
            **conditions: in place of ids.

        Returns:
            What was deleted, and whether there is `more`.
        """
        flags = {"dry_run": dry_run or None, "purge": purge or None}
        params = {"ids": ids, **flags, **conditions}
        # By conditions, a repetition deletes the next 100.
        once = ids is None and not dry_run
        call = Call(method="DELETE", path="/v1/detections", params=params, once=once)
        return await self._connection.read(call, Deletions)

    async def image(
        self, detection_id: str, *, size: int | None = None, frame: int | None = None
    ) -> bytes:
        """Return the uploaded file; with `size` a JPEG that fits into so many pixels square.

        Args:
            detection_id: its id.
            size: longest side of the JPEG in pixels.
            frame: with `size`: which of the examined frames; None: the one that the masks are of.
        """
        return await self._bytes(one(detection_id, "image"), size=size, frame=frame)

    async def mask(self, detection_id: str, head: Head, *, size: int | None = None) -> bytes:
        """Return a mask as PNG: 8-bit grey, 255 is a probability of 1.

        Args:
            detection_id: id of a detection that succeeded.
            head: which mask.
            size: longest side in pixels; None: the picture's own size.
        """
        return await self._bytes(one(detection_id, "masks", f"{head}.png"), size=size)

    async def overlay(
        self,
        detection_id: str,
        head: Head,
        *,
        composite: bool = False,
        colormap: str | None = None,
        opacity: float | None = None,
        size: int | None = None,
    ) -> bytes:
        """Return a mask as heat map (PNG).

        Args:
            detection_id: id of a detection that succeeded.
            head: which mask.
            composite: blend it with the picture; else it is transparent, to lay over the picture.
            colormap: `heat` or `viridis`.
            opacity: of what is marked, 0 to 1.
            size: longest side in pixels; None: the picture's own size.
        """
        return await self._bytes(
            one(detection_id, "overlays", f"{head}.png"),
            composite=composite or None,
            colormap=colormap,
            opacity=opacity,
            size=size,
        )

    async def report(self, detection_id: str) -> bytes:
        """Return a self-contained HTML page about a detection, to send or print."""
        return await self._bytes(one(detection_id, "report.html"))

    async def export(
        self,
        target: str | os.PathLike[str],
        *,
        format: Literal["csv", "jsonl"] = "csv",
        **conditions: Unpack[Conditions],
    ) -> None:
        """Save all your detections in a file.

        Args:
            target: path of the file.
            format: `jsonl`: a record in each line.
            **conditions: only those that meet all of them.

        Raises:
            OSError: If the file cannot be written.
        """
        params = {"format": format, **conditions}
        await self._connection.save(
            Call(method="GET", path="/v1/detections/export", params=params), target
        )

    async def archive(
        self, ids: Sequence[str], target: str | os.PathLike[str], *, size: int | None = None
    ) -> None:
        """Save a ZIP file with records, masks and overlays.

        Args:
            ids: ids of up to 100 detections.
            target: path of the file.
            size: longest side of masks and overlays in pixels; None: the pictures' own sizes.

        Raises:
            OSError: If the file cannot be written.
        """
        call = Call(method="GET", path="/v1/detections/archive", params={"ids": ids, "size": size})
        await self._connection.save(call, target)

    async def events(self, after: str | None = None) -> AsyncIterator[DetectionEvent]:
        """Follow the ends of your detections, without end; connections are renewed as needed.

        Args:
            after: `position` of the last event that you know: those after it are first, of the
                latest 1,000 or so. None: begin with the next one.
        """
        async for event in self._connection.events("/v1/events", after):
            yield event_of(event)

    async def model(self) -> ModelFacts:
        """Return facts about the model; read its `notice` before you act on a score."""
        return await self._connection.read(Call(method="GET", path="/v1/model"), ModelFacts)

    async def usage(self) -> Usage:
        """Return what you use of your limits."""
        return await self._connection.read(Call(method="GET", path="/v1/usage"), Usage)

    async def _bytes(self, path: str, **params: object) -> bytes:
        answer = await self._connection.send(Call(method="GET", path=path, params=params))
        return answer.content
