"""What both clients send: requests, and when they may be repeated."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO, TypedDict
from urllib.parse import quote

import httpx2
from pydantic import BaseModel
from tenacity import RetryCallState, retry_if_exception, stop_before_delay, wait_random_exponential

from gamma_client.errors import GammaError, ServiceError, parse
from gamma_client.models import ReviewState, Says, Status, Verdict

Picture = str | os.PathLike[str] | bytes
"""Path of a file, or the bytes of one."""

Field = str | int | list[str]

MAX_WAIT = 60  # s, of one request; the service's own limit
MAX_IDS = 100  # of one request
ENDED = frozenset(("succeeded", "failed", "expired"))

INTERRUPTIONS = (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError)
"""How a connection breaks in the midst of an answer."""

_BUSY = frozenset((429, 502, 503, 504))
_REPEATABLE = frozenset(("GET", "HEAD", "PUT", "DELETE"))
_backoff = wait_random_exponential(multiplier=0.5, max=30)  # s, if the service names no time


class Conditions(TypedDict, total=False):
    """Conditions of a list of detections; all that are given must be met."""

    status: Status
    verdict: Verdict
    manipulated: bool
    min_probability: float
    ref_id: str
    says: Says
    created_after: datetime
    created_before: datetime


class DetectionEvent(BaseModel):
    """The end of a detection."""

    id: str
    """id of the detection; `get` returns its record"""
    status: Status
    """`succeeded` or `failed`"""
    position: str
    """for `events(after=…)`"""


class SeenReview(ReviewState):
    """The decision about a detection, as you have seen it."""

    etag: str = ""
    """changes with each decision; see `reviews.decide`"""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request.

    Attributes:
        method: HTTP method.
        path: path below the address of the service.
        params: query; entries of None are left out.
        headers: further header fields.
        json: the body, if it is JSON.
        pictures: or the pictures of a form.
        part: name of their parts.
        fields: the other parts of the form.
        once: a repetition could do more than the first attempt, whatever the method.
    """

    method: str
    path: str
    params: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    pictures: Sequence[Picture] = ()
    part: str = "file"
    fields: Mapping[str, Field] = field(default_factory=dict)
    once: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether a repetition does nothing that the first attempt has not done."""
        return not self.once and (self.method in _REPEATABLE or "Idempotency-Key" in self.headers)

    @contextlib.contextmanager
    def arguments(self) -> Iterator[dict[str, Any]]:
        """Arguments of httpx2's `request`; files are open, and read from disk as they are sent.

        Raises:
            OSError: If a file cannot be opened.
        """
        with contextlib.ExitStack() as opened:
            made: dict[str, Any] = {"params": _query(self.params), "headers": dict(self.headers)}
            if self.json is not None:
                made["json"] = self.json
            if self.pictures:
                # Without its own name, which may hold any bytes.
                made["files"] = [
                    (self.part, ("picture", _open(one, opened))) for one in self.pictures
                ]
                made["data"] = dict(self.fields)
            yield made


def retrying(call: Call, patience: float) -> dict[str, Any]:
    """Arguments of tenacity: which failures of a call are repeated, when, and for how long.

    Args:
        call: the request.
        patience: no attempt begins later than this after the first one, s.
    """
    return {
        "retry": retry_if_exception(lambda error: call.repeatable and _passes(error)),
        "wait": _pause,
        "stop": stop_before_delay(patience),
        "reraise": True,
    }


def _passes(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, ServiceError):
        return error.status in _BUSY
    return isinstance(error, (*INTERRUPTIONS, httpx2.ProxyError, httpx2.DecodingError))


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: `Retry-After` and up to 10 % more, so that clients spread."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, ServiceError) and error.retry_after is not None:
        return error.retry_after * random.uniform(1, 1.1)  # noqa: S311, nothing secret
    return _backoff(state)


def _open(picture: Picture, opened: contextlib.ExitStack) -> bytes | BinaryIO:
    if isinstance(picture, bytes):
        return picture
    return opened.enter_context(open(picture, "rb"))


def _query(params: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in params.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs a time zone")
        return value.isoformat()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)


def one_upload(
    picture: Picture | None,
    *,
    url: str | None,
    key: str | None,
    **fields: str | int | None,
) -> Call:
    """Upload of one picture, or of the address of one.

    Raises:
        ValueError: If there is neither a picture nor an address, or both.
    """
    if (picture is None) == (url is None):
        raise ValueError("give a picture or the url of one")
    headers = {"Idempotency-Key": key or str(uuid.uuid4())}
    given = {name: value for name, value in fields.items() if value is not None}
    path = "/v1/detections"
    if picture is None:
        return Call(method="POST", path=path, headers=headers, json={"url": url, **given})
    return Call(method="POST", path=path, headers=headers, pictures=[picture], fields=given)


def several_uploads(
    pictures: Sequence[Picture],
    ref_ids: Sequence[str] | None,
    *,
    key: str | None,
    **fields: str | int | None,
) -> Call:
    """Upload of several pictures.

    Raises:
        ValueError: If there are not as many references as pictures.
    """
    if ref_ids is not None and len(ref_ids) != len(pictures):
        raise ValueError("give a ref_id for each picture")
    given: dict[str, Field] = {name: value for name, value in fields.items() if value is not None}
    if ref_ids is not None:
        given["ref_id"] = list(ref_ids)
    return Call(
        method="POST",
        path="/v1/detections/batch",
        headers={"Idempotency-Key": key or str(uuid.uuid4())},
        pictures=pictures,
        part="files",
        fields=given,
    )


def one(detection_id: str, *rest: str) -> str:
    """Path of a detection, or of what belongs to it."""
    return "/".join(["/v1/detections", quote(detection_id, safe=""), *rest])


def cursor_of(link: str | None) -> str | None:
    """The cursor in the link to the next page; None on the last one."""
    return None if link is None else httpx2.URL(link).params.get("cursor")


def seen_review(response: httpx2.Response) -> SeenReview:
    """The answer, with its `ETag`."""
    state = parse(response, SeenReview)
    return state.model_copy(update={"etag": response.headers.get("ETag", "")})


def event_of(sent: httpx2.ServerSentEvent) -> DetectionEvent:
    """The event in a message of the stream.

    Raises:
        GammaError: If there is none.
    """
    try:
        return DetectionEvent.model_validate({**json.loads(sent.data), "position": sent.id})
    except (ValueError, TypeError):
        raise GammaError("unexpected message in the stream of events") from None


def bearer(key: str) -> str:
    """`Authorization` with a key.

    Raises:
        ValueError: If the key cannot be sent; the message does not contain it.
    """
    if not re.fullmatch("[!-~]+", key):
        raise ValueError("the key holds spaces, line breaks or characters that are not ASCII")
    return f"Bearer {key}"


def agent() -> str:
    """`User-Agent` of the client."""
    try:
        return f"gamma-client/{version('gamma-client')}"
    except PackageNotFoundError:  # not installed, but in the path
        return "gamma-client"
