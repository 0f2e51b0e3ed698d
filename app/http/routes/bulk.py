"""`/v1/detections`: delete, export and download many detections."""

from __future__ import annotations

import contextlib
import csv
import io
import zipfile
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.contract.schemas import Deletions, Detection, ErrorCode, Head
from app.contract.spreadsheet import as_text
from app.http import examples, guard
from app.http.callers import TheCaller
from app.http.listing import MAX_NAMED, NO_FILTER, Filter, Page, TheFilter, named, newest
from app.http.problems import ServiceError, link_context
from app.http.reviewing import reviewing_of
from app.http.routes.pictures import MaskSize, mask_bytes, mask_work
from app.http.routes.responses import (
    OF_V1,
    LimitedStream,
    answer,
    attachment,
    json_answer,
    problems,
)
from app.http.routes.strict import StrictRoute
from app.http.service import Service, service_of
from pictures import overlays

router = APIRouter(prefix="/v1/detections", tags=["detections"], route_class=StrictRoute)

_PROBLEMS = problems(*OF_V1, ErrorCode.MALFORMED_REQUEST, ErrorCode.TOO_MANY_DOWNLOADS)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_Ids = Annotated[
    list[str],
    Query(description=f"these detections, at most {MAX_NAMED}: `a,b,c`, or repeated"),
]


class Format(StrEnum):
    """Formats of an export."""

    CSV = "csv"
    JSONL = "jsonl"


_MEDIA_TYPES = {Format.CSV: "text/csv", Format.JSONL: "application/jsonl"}


@router.delete(
    "",
    response_model=Deletions,
    responses={
        200: answer("What was deleted", deleted=examples.DELETIONS),
        **problems(
            *OF_V1,
            ErrorCode.MALFORMED_REQUEST,
            ErrorCode.STORAGE_UNAVAILABLE,
            ErrorCode.REVIEWS_UNAVAILABLE,
        ),
    },
)
async def delete_many(
    request: Request,
    caller: TheCaller,
    ids: _Ids = [],  # noqa: B006 - FastAPI copies it
    chosen: TheFilter = NO_FILTER,
    dry_run: Annotated[bool, Query(description="only say which would be deleted")] = False,
    purge: Annotated[
        bool,
        Query(
            description="also erase notes and names in their reviews, and in those of the "
            "`missing`; decisions and the hashes of the pictures stay"
        ),
    ] = False,
) -> Response:
    """Delete the detections in `ids`, or those that meet conditions; up to 100 in a request.

    Reviews stay, as when one is deleted, unless `purge` is given. Repeat the request while `more`
    is true; `dry_run` names the first 100 alone.
    """
    if bool(ids) == bool(chosen):
        raise ServiceError(
            ErrorCode.MALFORMED_REQUEST, "Name either `ids` or a condition, such as `status`."
        )
    service = service_of(request)
    plan = await run_in_threadpool(_to_delete, service, caller.name, ids, chosen)
    if not dry_run:
        if purge:
            names = [*plan.deleted, *plan.missing]
            await reviewing_of(request).reviews.erase(caller.name, names)
        await run_in_threadpool(_discard, service, caller.name, plan.deleted)
    return json_answer(request, plan.model_copy(update={"dry_run": dry_run}))


def _to_delete(service: Service, owner: str, ids: list[str], chosen: Filter) -> Deletions:
    if ids:
        names = named(ids)
        found = service.store.get_owned(names, owner)
        return Deletions(
            dry_run=True,
            deleted=[one.id for one in found if one is not None],
            missing=[name for name, one in zip(names, found, strict=True) if one is None],
            more=False,
        )
    cursor: str | None = None
    while True:  # a page without matches is not the end
        page = newest(service.store, owner, MAX_NAMED, cursor, chosen)
        cursor = page.cursor
        if page.detections or cursor is None:
            names = [one.id for one in page.detections]
            return Deletions(dry_run=True, deleted=names, more=cursor is not None)
        guard.begin()  # a new budget for each page


def _discard(service: Service, owner: str, names: list[str]) -> None:
    for name in names:
        guard.begin()  # a new budget for each
        service.discard(name, owner)


@router.get(
    "/export",
    response_class=Response,
    responses={
        200: {
            "description": "A file",
            "content": {kind: _BINARY for kind in _MEDIA_TYPES.values()},
        },
        **_PROBLEMS,
    },
)
async def export(
    request: Request,
    caller: TheCaller,
    form: Annotated[
        Format, Query(alias="format", description="`jsonl`: a record in each line")
    ] = Format.CSV,
    chosen: TheFilter = NO_FILTER,
) -> Response:
    """Download your detections, newest first, as CSV or JSON lines; of any number.

    If the service fails meanwhile, the connection is closed before the end of the file.
    """
    service = service_of(request)
    pages = _pages(service, caller.name, chosen)
    first = await anext(pages)  # an outage is a problem, not a broken file
    written = _as_csv if form is Format.CSV else _as_jsonl
    return LimitedStream(
        written(request, first, pages),
        service.resources.streams.hold(caller.name, 1),
        _MEDIA_TYPES[form],
        attachment(f"detections.{form}"),
    )


@router.get(
    "/archive",
    response_class=Response,
    responses={
        200: {"description": "A file", "content": {"application/zip": _BINARY}},
        **_PROBLEMS,
    },
)
async def archive(
    request: Request, caller: TheCaller, ids: _Ids, size: MaskSize = None
) -> Response:
    """Download records, masks and overlays of detections as a ZIP file.

    Each detection has a folder with its id: `record.json`, `masks/` and `overlays/`. Those without
    masks have the record alone; `missing.txt` lists ids that do not exist.
    """
    service, names = service_of(request), named(ids)
    found = await run_in_threadpool(service.store.get_owned, names, caller.name)
    detections = [one for one in found if one is not None]
    missing = [name for name, one in zip(names, found, strict=True) if one is None]
    return LimitedStream(
        _zipped(request, service, caller.name, detections, missing, size),
        _archive_permit(service, caller.name, detections),
        "application/zip",
        attachment("detections.zip"),
    )


@contextlib.asynccontextmanager
async def _archive_permit(
    service: Service, owner: str, detections: list[Detection]
) -> AsyncIterator[None]:
    """Hold a stream, and memory for the largest mask and its overlay, which is as large."""
    masks = [mask_bytes(one.image) for one in detections if one.masks is not None]
    memory, resources = 2 * max(masks, default=0), service.resources
    async with resources.streams.hold(owner, 1), resources.downloads.hold(owner, memory):
        yield


async def _pages(service: Service, owner: str, chosen: Filter) -> AsyncIterator[list[Detection]]:
    """All detections that meet the conditions, in pages, at least one."""
    cursor: str | None = None
    while True:
        guard.begin()  # a new budget for each page
        page: Page = await run_in_threadpool(
            newest, service.store, owner, MAX_NAMED, cursor, chosen
        )
        yield page.detections
        cursor = page.cursor
        if cursor is None:
            return


async def _as_jsonl(
    request: Request, first: list[Detection], others: AsyncIterator[list[Detection]]
) -> AsyncIterator[str]:
    context = link_context(request)

    def lines(page: list[Detection]) -> str:
        return "".join(f"{one.model_dump_json(context=context)}\n" for one in page)

    yield lines(first)
    async for page in others:
        yield lines(page)


async def _as_csv(
    request: Request, first: list[Detection], others: AsyncIterator[list[Detection]]
) -> AsyncIterator[str]:
    yield _rows([list(_COLUMNS)])
    yield _rows(map(_cells, first))
    async for page in others:
        yield _rows(map(_cells, page))


def _rows(rows: Any) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


_COLUMNS = (
    *("id", "ref_id", "status", "created_at", "finished_at", "expires_at", "ai_probability"),
    *("verdict", "manipulated", "not_judged", "notes", "thresholds.uncertain"),
    *("thresholds.ai_generated", "masks.ai.area_fraction", "masks.manipulation.area_fraction"),
    *("image.format", "image.width", "image.height", "image.frames", "image.bytes"),
    *("image.sha256", "view.mode", "view.frames", "view.frame", "view.scale"),
    *("model.name", "model.version", "model.digest"),
    *("provenance.summary.says", "provenance.summary.by", "provenance.summary.confidence"),
    *("cached", "error.code", "error.detail"),
)


def _cells(detection: Detection) -> list[Any]:
    record = detection.model_dump(mode="json")
    cells = []
    for column in _COLUMNS:
        value: Any = record
        for name in column.split("."):
            value = None if value is None else value.get(name)
        value = " ".join(value) if isinstance(value, list) else value
        cells.append(as_text(value) if isinstance(value, str) else value)
    return cells


class _Pipe(io.RawIOBase):
    """A file that is only written; `drain` returns what was written since."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def drain(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


async def _zipped(
    request: Request,
    service: Service,
    owner: str,
    detections: list[Detection],
    missing: list[str],
    size: int | None,
) -> AsyncIterator[bytes]:
    """A ZIP file; masks are compressed already, so that files are stored as they are."""
    pipe, context = _Pipe(), link_context(request)
    with zipfile.ZipFile(pipe, "w") as file:
        for detection in detections:
            record = detection.model_dump_json(indent=2, context=context)
            file.writestr(f"{detection.id}/record.json", record)
            yield pipe.drain()
            for head in Head if detection.masks is not None else ():
                guard.begin()  # a new budget for each
                mask = await _mask(service, owner, detection, head, size)
                if mask is None:
                    break
                overlay = await run_in_threadpool(overlays.render, mask)
                file.writestr(f"{detection.id}/masks/{head}.png", mask)
                file.writestr(f"{detection.id}/overlays/{head}.png", overlay)
                del mask, overlay  # a slow client must not hold them twice
                yield pipe.drain()
        if missing:
            file.writestr("missing.txt", "".join(f"{name}\n" for name in missing))
    yield pipe.drain()


async def _mask(
    service: Service, owner: str, detection: Detection, head: Head, size: int | None
) -> bytes | None:
    """A mask that fits into `size` pixels; None if it was deleted meanwhile."""
    _, made, limiter, slot = mask_work(service, owner, detection, head, size)
    try:
        async with slot:
            return await run_sync(made, limiter=limiter)
    except ServiceError as error:
        if error.code is ErrorCode.DETECTION_EXPIRED:
            return None
        raise
