"""Errors of the client."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from gamma_client.models import Detection, Problem

Model = TypeVar("Model", bound=BaseModel)

_OF_REQUEST = ("view_refused", "webhook_refused")
_SHOWN = 200  # characters of an answer that is no problem document


class GammaError(Exception):
    """Any error that this package raises, except those of the connection (`httpx2.HTTPError`)."""


class ServiceError(GammaError):
    """The service, or a proxy in front of it, refused a request.

    Attributes:
        status: HTTP status.
        code: stable error code, such as `not_an_image`; "" if the answer does not come from GAMMA.
        detail: explanation for people.
        request_id: id of the request in the service's log, if there is one.
        retry_after: seconds after which the request may succeed, if the service says so.
        problem: the whole problem document; a `review_conflict` has the current `review`.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], retry_after: float | None = None
    ) -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code") or "")
        self.detail = str(problem.get("detail") or "")
        self.request_id: str | None = problem.get("request_id")
        self.retry_after = retry_after
        super().__init__(f"{status} {self.code}: {self.detail}")

    @classmethod
    def of(cls, problem: Problem) -> ServiceError:
        """The error of one entry of a batch."""
        return cls(problem.status, problem.model_dump(mode="json"), problem.retry_after)

    @property
    def of_picture(self) -> bool:
        """Whether the picture is the cause: another picture could be accepted now."""
        if self.problem.get("detection") is not None:
            return True
        return self.code == "file_empty" or (
            self.status in (413, 415, 422) and self.code not in _OF_REQUEST
        )


class DetectionFailedError(GammaError):
    """A detection ended without a result.

    Do not treat the picture as if it had passed: it was not examined.

    Attributes:
        detection: its record, with the status `failed` or `expired` and, mostly, an `error`.
    """

    def __init__(self, detection: Detection) -> None:
        self.detection = detection
        error = detection.error
        reason = f" ({error.code}): {error.detail}" if error else ""
        super().__init__(f"detection {detection.id} {detection.status}{reason}")


class StillWaitingError(GammaError):
    """A detection did not end within the time given to `wait` or `detect`; it goes on.

    Attributes:
        detection: its latest record.
    """

    def __init__(self, detection: Detection) -> None:
        self.detection = detection
        super().__init__(f"detection {detection.id} is {detection.status}")


class DeletedError(GammaError):
    """A detection was deleted before its result was read."""

    def __init__(self, detection_id: str) -> None:
        super().__init__(f"detection {detection_id} was deleted")


class WebhookError(GammaError):
    """A webhook request is not genuine, or too old."""


def check(response: httpx2.Response) -> None:
    """Raise ServiceError unless the status is 2xx. The body must have been read."""
    if response.is_success:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": response.text[:_SHOWN] or response.reason_phrase}
    raise ServiceError(response.status_code, problem, retry_after(response.headers))


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds of `Retry-After`, which is a number or a date; None without a valid one."""
    given = headers.get("Retry-After", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    until = _date(given)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)  # by the clock of the service
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def parse(response: httpx2.Response, model: type[Model]) -> Model:
    """The answer as `model`.

    Raises:
        GammaError: If it is something else, such as the page of a proxy.
    """
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise GammaError(f"unexpected answer of {response.url.path}: {error}") from None
