"""`POST /v1/detections`: one picture, or a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response, status
from fastapi.concurrency import run_in_threadpool

from app.contract.schemas import (
    BatchEntry,
    BatchResults,
    Detection,
    ErrorCode,
    Status,
    detection_path,
)
from app.contract.submission import Submission
from app.http import examples
from app.http.admission import admit, take
from app.http.callers import TheCaller
from app.http.forms import Form, FormRules, Upload
from app.http.metrics import REJECTIONS
from app.http.openapi import headers
from app.http.problems import OUTAGES, ServiceError, document, link, of_outage, without_traceback
from app.http.routes.request_bodies import (
    FIELD_NAMES,
    MAX_FILES,
    MAX_KEY,
    MAX_REF_ID,
    one_picture,
    several_pictures,
)
from app.http.routes.responses import OF_V1, Answers, answer, json_answer, problems
from app.http.routes.strict import StrictRoute
from app.http.service import Service, service_of
from app.http.uploads import open_upload
from app.http.waiting import preferred_wait
from pictures.findings import MAX_FRAMES, View

router = APIRouter(prefix="/v1/detections", tags=["detections"], route_class=StrictRoute)

_GROUP_BYTES = 16 * 2**20  # of a batch's files are sent to Redis together
_BEFORE_ADMISSION = (401, 403)
_FRAMES = tuple(map(str, range(1, MAX_FRAMES + 1)))
_RETRY_AFTER = "1"  # s, for queued detections
_REQUEST_PROBLEMS = (
    *OF_V1,
    ErrorCode.MALFORMED_REQUEST,
    ErrorCode.FILE_MISSING,
    ErrorCode.UPLOAD_TOO_LARGE,
    ErrorCode.TOO_MANY_UPLOADS,
    ErrorCode.RATE_LIMITED,
    ErrorCode.QUEUE_SHARE_FULL,
    ErrorCode.QUEUE_FULL,
    ErrorCode.QUEUE_SLOW,
    ErrorCode.STORAGE_SHARE_FULL,
    ErrorCode.STORAGE_FULL,
    ErrorCode.STORAGE_UNAVAILABLE,
)
_FILE_PROBLEMS = (
    ErrorCode.FILE_EMPTY,
    ErrorCode.TOO_MANY_PIXELS,
    ErrorCode.TOO_ELONGATED,
    ErrorCode.NOT_AN_IMAGE,
    ErrorCode.FORMAT_UNSUPPORTED,
    ErrorCode.CAMERA_RAW,
    ErrorCode.IMAGE_TRUNCATED,
    ErrorCode.IMAGE_UNDECODABLE,
    ErrorCode.DECODING_ABORTED,
    ErrorCode.VIEW_REFUSED,
    ErrorCode.IDEMPOTENCY_MISMATCH,
    ErrorCode.WEBHOOK_REFUSED,
    ErrorCode.PROCESSING_FAILED,
    ErrorCode.MODEL_OUTPUT_INVALID,
    ErrorCode.DETECTION_EXPIRED,
    ErrorCode.QUEUE_TIMEOUT,
    ErrorCode.NOT_FOUND,
)


def _with_rate_limit(answers: Answers) -> Answers:
    """Add the rate-limit header fields to the responses that are sent after admission."""
    for http_status, entry in answers.items():
        if http_status not in _BEFORE_ADMISSION:
            entry["headers"].update(headers("RateLimit", "RateLimit-Policy"))
    return answers


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=Detection,
    responses=_with_rate_limit(
        {
            200: {
                "model": Detection,
                **answer(
                    "Finished: within the time of `Prefer: wait`, or known before",
                    "Location",
                    "Server-Timing",
                    "Preference-Applied",
                    succeeded=examples.SUCCEEDED,
                    known=examples.SUCCEEDED.model_copy(update={"cached": True}),
                ),
            },
            202: answer(
                "Accepted: poll the record, or wait for the webhook",
                "Location",
                "Retry-After",
                "Preference-Applied",
                queued=examples.QUEUED,
                processing=examples.PROCESSING,
            ),
            **problems(
                *_REQUEST_PROBLEMS,
                *_FILE_PROBLEMS,
                ErrorCode.FETCH_REFUSED,
                ErrorCode.FETCH_FAILED,
            ),
        }
    ),
    openapi_extra=one_picture(),
)
async def create(request: Request, caller: TheCaller) -> Response:
    """Upload one picture.

    As a form; as a body that is the picture alone, with fields in the query; as JSON with the
    picture in base64; or as the `url` of a picture.
    """
    service = service_of(request)
    async with service.resources.connections.hold(caller.name, 1):
        await admit(request, caller)
        most = int(service.settings.max_upload)
        rules = FormRules("file", (*FIELD_NAMES, "url"), max_files=1, max_bytes=most)
        async with open_upload(
            request, rules, service.resources, caller.name, service.fetcher
        ) as form:
            options = _options(request, form, service)
            (file,) = form.files
            ref_id = _ref_id(form.field("ref_id"))
            async with service.resources.large.hold(caller.name, file.size if file.large else 0):
                submission = Submission(
                    owner=caller.name,
                    picture=await file.read(most),
                    view=options.view,
                    frames=options.frames,
                    ref_id=ref_id,
                    idempotency_key=options.idempotency_key,
                    webhook_url=options.webhook_url,
                )
                detection = await service.submit_request(submission)
                del submission
        del form, file  # free memory before waiting
        request.state.detection_id = detection.id
        headers = {"Location": link(request, detection_path(detection.id))}
        if options.wait is not None:
            headers["Preference-Applied"] = f"wait={options.wait}"
            waited = await service.wait(
                [detection], caller.name, options.wait, request.is_disconnected
            )
            final = waited[detection.id]
            if isinstance(final, ServiceError):
                raise final
            detection = final
        failure = _failure(detection)
        if failure is not None:
            raise failure
        code = _status(detection)
        if code == status.HTTP_202_ACCEPTED:
            headers["Retry-After"] = _RETRY_AFTER
        return json_answer(request, detection, code, headers)


@router.post(
    "/batch",
    status_code=status.HTTP_207_MULTI_STATUS,
    response_model=BatchResults,
    responses=_with_rate_limit(
        {
            207: answer(
                "Result of each file; `Retry-After` if some are refused temporarily",
                "Preference-Applied",
                "Retry-After",
                accepted_and_refused=examples.BATCH,
            ),
            **problems(*_REQUEST_PROBLEMS),
        }
    ),
    openapi_extra=several_pictures(),
)
async def create_batch(request: Request, caller: TheCaller) -> Response:
    """Upload up to 64 pictures; each is accepted or refused separately.

    `Prefer: wait` holds the answer until all of them have ended. An `Idempotency-Key` counts for
    each file at its place.
    """
    service = service_of(request)
    async with service.resources.connections.hold(caller.name, 1):
        await admit(request, caller)
        most = int(service.settings.max_batch_upload)
        rules = FormRules("files", FIELD_NAMES, max_files=MAX_FILES, max_bytes=most)
        async with open_upload(
            request, rules, service.resources, caller.name, service.fetcher
        ) as form:
            options = _options(request, form, service)
            ref_ids = _ref_ids(form)
            admitted, refusal = 1, None
            if len(form.files) > admitted:
                admission = await take(request, caller, len(form.files) - admitted)
                admitted, refusal = admitted + admission.taken, admission.refusal
            batch = _Batch(service, len(form.files))
            size = sum(file.size for file in form.files if file.large)
            at_once = _GROUP_BYTES + int(service.settings.max_upload)
            async with service.resources.large.hold(caller.name, min(size, at_once)):
                for place, (file, ref_id) in enumerate(zip(form.files, ref_ids, strict=True)):
                    if refusal is not None and place >= admitted:
                        batch.results[place] = refusal
                    else:
                        await batch.add(place, file, caller.name, options, ref_id)
                await batch.flush()
        results = batch.results
        del form, file  # free the pictures before waiting
        headers = {}
        if options.wait is not None:
            headers["Preference-Applied"] = f"wait={options.wait}"
            accepted = [result for result in results if isinstance(result, Detection)]
            waited = await service.wait(
                accepted, caller.name, options.wait, request.is_disconnected
            )
            results = [
                waited[result.id] if isinstance(result, Detection) else result for result in results
            ]
        entries = [_entry(request, result) for result in results]
        pauses = [entry.problem.retry_after or 0 for entry in entries if entry.problem]
        if any(pauses):
            headers["Retry-After"] = str(max(pauses))
        return json_answer(
            request, BatchResults(results=entries), status.HTTP_207_MULTI_STATUS, headers
        )


@dataclass(frozen=True)
class _Options:
    """Options of a request for all of its files."""

    view: View
    frames: int
    idempotency_key: str | None
    webhook_url: str | None
    wait: int | None


def _options(request: Request, form: Form, service: Service) -> _Options:
    view = form.field("view") or service.settings.default_view
    if view not in list(View):
        raise _malformed(f"`view` must be one of {', '.join(View)}.")
    frames = form.field("frames") or "1"
    if frames not in _FRAMES:
        raise _malformed(f"`frames` must be an integer from 1 to {MAX_FRAMES}.")
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1:
        raise _malformed("`Idempotency-Key` is given more than once.")
    key = keys[0] if keys else None
    if key is not None:
        key = key.strip('"')  # quoted as in the IETF draft (RFC 9651), or unquoted
        if not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
            raise _malformed(f"`Idempotency-Key` must have 1 to {MAX_KEY} ASCII characters.")
    wait = preferred_wait(request.headers.getlist("prefer"))
    return _Options(View(view), int(frames), key, form.field("webhook_url") or None, wait)


def _ref_id(given: str | None) -> str | None:
    if given is not None and not (0 < len(given) <= MAX_REF_ID and given.isprintable()):
        raise _malformed(f"`ref_id` must have 1 to {MAX_REF_ID} printable characters.")
    return given


def _ref_ids(form: Form) -> list[str | None]:
    given = form.fields.get("ref_id", [""] * len(form.files))
    if len(given) != len(form.files):
        raise _malformed(f"There are {len(form.files)} files and {len(given)} `ref_id`.")
    return [_ref_id(one or None) for one in given]


def _malformed(detail: str) -> ServiceError:
    return ServiceError(ErrorCode.MALFORMED_REQUEST, detail)


@dataclass
class _Batch:
    """The files of a batch, sent to Redis in groups, and their results by position."""

    service: Service
    files: int
    results: list[Detection | ServiceError] = field(init=False)
    _group: dict[int, Submission] = field(default_factory=dict)
    _size: int = 0

    def __post_init__(self) -> None:
        self.results = [ServiceError(ErrorCode.NOT_FOUND)] * self.files

    async def add(
        self, place: int, file: Upload, owner: str, options: _Options, ref_id: str | None
    ) -> None:
        """Add a file; send the group if it is large enough."""
        try:
            picture = await file.read(int(self.service.settings.max_upload))
        except ServiceError as error:
            self.results[place] = without_traceback(error)
            return
        key = options.idempotency_key
        self._group[place] = Submission(
            owner=owner,
            picture=picture,
            view=options.view,
            frames=options.frames,
            ref_id=ref_id,
            idempotency_key=None
            if key is None
            else f"{place}\n{key}",  # cannot collide with a caller's key
            webhook_url=options.webhook_url,
        )
        self._size += len(picture)
        if self._size >= _GROUP_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Send the group.

        Raises:
            Exception: If it is one of `OUTAGES` and no file was accepted before.
        """
        group = list(self._group.values())
        results: Sequence[Detection | ServiceError]
        try:
            results = await run_in_threadpool(self.service.submit_all, group)
        except OUTAGES as error:
            if not any(isinstance(result, Detection) for result in self.results):
                raise
            results = [of_outage(without_traceback(error))] * len(group)
        for place, result in zip(self._group, results, strict=True):
            self.results[place] = result
        self._group, self._size = {}, 0


def _entry(request: Request, result: Detection | ServiceError) -> BatchEntry:
    if isinstance(result, Detection):
        result = _failure(result) or result
    if isinstance(result, ServiceError):
        REJECTIONS.labels(result.code).inc()
        problem = document(request, result)
        return BatchEntry(status=problem.status, problem=problem)
    return BatchEntry(status=_status(result), detection=result)


def _failure(detection: Detection) -> ServiceError | None:
    """The error of a detection that has no result."""
    error, path = detection.error, detection_path(detection.id)
    return None if error is None else ServiceError(error.code, error.detail, detection=path)


def _status(detection: Detection) -> int:
    finished = detection.status is Status.SUCCEEDED
    return status.HTTP_200_OK if finished else status.HTTP_202_ACCEPTED
