# Generated from _async/client.py by generate.py.
"""The client of detections."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Literal, Unpack

import httpx2

from gamma_client._sync.connection import Connection
from gamma_client._sync.folders import Uploads
from gamma_client._sync.reviews import Reviews
from gamma_client._sync.runtime import sleep
from gamma_client._sync.webhooks import Webhooks
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


class Client(Uploads):
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
        http: httpx2.Client | None = None,
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
            Connection(address, key, patience, http or httpx2.Client(timeout=MAX_WAIT + 30))
        )
        self.reviews = Reviews(self._connection)
        self.webhooks = Webhooks(self._connection)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def detect(
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
        submitted = self.submit(
            picture,
            url=url,
            ref_id=ref_id,
            view=view,
            frames=frames,
            idempotency_key=idempotency_key,
        )
        return self.wait(submitted.id, timeout=timeout)

    def submit(
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
        return self._connection.read(call, Detection)

    def get(self, detection_id: str) -> Detection:
        """Return the current record of a detection, whatever its status."""
        return self._connection.read(Call(method="GET", path=one(detection_id)), Detection)

    def wait(self, detection_id: str, *, timeout: float = 600) -> Detection:
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
            detection = self._connection.read(call, Detection)
            if detection.status == "succeeded":
                return detection
            if detection.status in ENDED:
                raise DetectionFailedError(detection)
            now = time.monotonic()
            if now >= deadline:
                raise StillWaitingError(detection)
            # At least a second between two requests, also if the answer was not held.
            sleep(max(0, min(deadline, begun + 1) - now))

    def detections(self, **conditions: Unpack[Conditions]) -> Iterator[Detection]:
        """Iterate over your detections, newest first; the next page is read when it is needed.

        Args:
            **conditions: only those that meet all of them.
        """
        cursor = None
        while True:
            params = {"limit": MAX_IDS, "cursor": cursor, **conditions}
            call = Call(method="GET", path="/v1/detections", params=params)
            page = self._connection.read(call, DetectionList)
            for detection in page.detections:
                yield detection
            cursor = cursor_of(page.next)
            if cursor is None:
                return

    def delete(self, detection_id: str, *, purge: bool = False) -> None:
        """Delete a detection: record, picture and masks.

        Args:
            detection_id: its id.
            purge: also erase notes and names in its reviews.
        """
        params = {"purge": purge or None}
        self._connection.send(Call(method="DELETE", path=one(detection_id), params=params))

    def delete_many(
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
        return self._connection.read(call, Deletions)

    def image(
        self, detection_id: str, *, size: int | None = None, frame: int | None = None
    ) -> bytes:
        """Return the uploaded file; with `size` a JPEG that fits into so many pixels square.

        Args:
            detection_id: its id.
            size: longest side of the JPEG in pixels.
            frame: with `size`: which of the examined frames; None: the one that the masks are of.
        """
        return self._bytes(one(detection_id, "image"), size=size, frame=frame)

    def mask(self, detection_id: str, head: Head, *, size: int | None = None) -> bytes:
        """Return a mask as PNG: 8-bit grey, 255 is a probability of 1.

        Args:
            detection_id: id of a detection that succeeded.
            head: which mask.
            size: longest side in pixels; None: the picture's own size.
        """
        return self._bytes(one(detection_id, "masks", f"{head}.png"), size=size)

    def overlay(
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
        return self._bytes(
            one(detection_id, "overlays", f"{head}.png"),
            composite=composite or None,
            colormap=colormap,
            opacity=opacity,
            size=size,
        )

    def report(self, detection_id: str) -> bytes:
        """Return a self-contained HTML page about a detection, to send or print."""
        return self._bytes(one(detection_id, "report.html"))

    def export(
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
        self._connection.save(
            Call(method="GET", path="/v1/detections/export", params=params), target
        )

    def archive(
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
        self._connection.save(call, target)

    def events(self, after: str | None = None) -> Iterator[DetectionEvent]:
        """Follow the ends of your detections, without end; connections are renewed as needed.

        Args:
            after: `position` of the last event that you know: those after it are first, of the
                latest 1,000 or so. None: begin with the next one.
        """
        for event in self._connection.events("/v1/events", after):
            yield event_of(event)

    def model(self) -> ModelFacts:
        """Return facts about the model; read its `notice` before you act on a score."""
        return self._connection.read(Call(method="GET", path="/v1/model"), ModelFacts)

    def usage(self) -> Usage:
        """Return what you use of your limits."""
        return self._connection.read(Call(method="GET", path="/v1/usage"), Usage)

    def _bytes(self, path: str, **params: object) -> bytes:
        answer = self._connection.send(Call(method="GET", path=path, params=params))
        return answer.content
