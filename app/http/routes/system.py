"""Model card, usage, liveness and readiness."""

from __future__ import annotations

import asyncio
from typing import cast

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.contract.blobs import StorageUnavailableError
from app.contract.models import ModelFacts, WorkerInfo
from app.contract.schemas import ErrorCode, ServiceStatus, Usage
from app.http import examples, guard
from app.http.admission import AdmissionControl
from app.http.callers import TheCaller
from app.http.notice import notice
from app.http.problems import ServiceError
from app.http.routes.responses import OF_V1, answer, problems
from app.http.routes.strict import StrictRoute
from app.http.service import Service, service_of

router = APIRouter(tags=["system"], route_class=StrictRoute)
probes = APIRouter(tags=["system"])  # not strict: probes may add query parameters

_READY_TIMEOUT = 1.8  # s; probes of orchestrators time out after a few seconds
_READY_BUDGET = 1.0  # s, for Redis; the rest is for the bucket
_CHECKS = CapacityLimiter(2)  # separate threads, so that other requests do not delay probes


@router.get(
    "/v1/model",
    responses={
        200: answer("Facts about the model", model=examples.MODEL),
        **problems(*OF_V1, ErrorCode.MALFORMED_REQUEST, ErrorCode.NO_WORKER),
    },
)
def model(request: Request, caller: TheCaller) -> ModelFacts:
    """Return facts about the model of the newest live worker."""
    service = service_of(request)
    worker = _live(service)[-1]
    return ModelFacts(
        name=worker.model.name,
        version=worker.model.version,
        digest=worker.model.digest,
        trained=worker.trained,
        backbone=worker.backbone,
        parameters=worker.parameters,
        crop_size=worker.crop_size,
        min_side=worker.min_side,
        fetch=service.settings.fetch,
        search_links=service.directory.now.settings_of(caller.name).search_links,
        thresholds=worker.thresholds,
        notice=notice(trained=worker.trained, measured=worker.measured),
        measured=worker.measured,
    )


@probes.get(
    "/livez",
    response_model_exclude_none=True,
    responses={200: answer("Alive", alive=examples.ALIVE)},
)
async def livez() -> ServiceStatus:
    """Check that this process answers."""
    return ServiceStatus()


@probes.get(
    "/readyz",
    responses={
        200: answer("Ready to accept uploads", ready=examples.READY),
        **problems(
            ErrorCode.NO_WORKER,
            ErrorCode.REDIS_UNAVAILABLE,
            ErrorCode.STORAGE_UNAVAILABLE,
            ErrorCode.INTERNAL_ERROR,
        ),
    },
)
async def readyz(request: Request) -> ServiceStatus:
    """Check that uploads get results: Redis accepts writes, bucket and worker are alive."""
    service = service_of(request)

    def check() -> ServiceStatus:
        workers = len(_live(service))
        service.store.check()
        return ServiceStatus(workers=workers, suspended=service.store.workers.are_suspended())

    guard.begin(_READY_BUDGET)
    try:
        async with asyncio.timeout(_READY_TIMEOUT):
            return await run_sync(check, limiter=_CHECKS, abandon_on_cancel=True)
    except TimeoutError:
        if service.settings.store is None:
            raise RedisTimeoutError(f"no answer from Redis within {_READY_TIMEOUT} s") from None
        raise StorageUnavailableError(f"no answer within {_READY_TIMEOUT} s") from None


@router.get(
    "/v1/usage",
    responses={
        200: answer("Usage and limits", usage=examples.USAGE),
        **problems(*OF_V1, ErrorCode.MALFORMED_REQUEST),
    },
)
def usage(request: Request, caller: TheCaller) -> Usage:
    """Return your usage and your limits."""
    return cast(AdmissionControl, request.app.state.admission).usage(caller.name)


def _live(service: Service) -> list[WorkerInfo]:
    workers = service.store.workers.live()
    if not workers:
        raise ServiceError(ErrorCode.NO_WORKER)
    return workers
