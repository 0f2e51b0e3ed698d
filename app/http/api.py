"""Creation of the FastAPI application."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Lifespan

from app.contract.jobs import JobQueue
from app.contract.settings import Settings
from app.contract.store import Store
from app.http import metrics, problems
from app.http.admission import AdmissionControl
from app.http.aof_rewriter import AofRewriter
from app.http.compression import Compression
from app.http.guard import connect_guarded
from app.http.middleware import RequestMiddleware
from app.http.openapi import RESPONSE_HEADERS, Documented
from app.http.reviewing import Reviewing
from app.http.routes import (
    assignments,
    bulk,
    detections,
    events,
    page,
    pictures,
    reports,
    reviews,
    submissions,
    system,
    webhooks,
)
from app.http.service import Service
from app.http.waiting import FinishedEvents
from app.webhooks.queue import Deliveries

_ROUTERS = [
    *(
        module.router
        for module in (
            submissions,
            bulk,  # its paths must not be taken for ids
            detections,
            events,
            pictures,
            reports,
            reviews,
            assignments,
            webhooks,
            system,
            page,
        )
    ),
    system.probes,
]
_CORS_REQUEST_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "traceparent",
    "X-Request-ID",
]


def create_app(settings: Settings) -> ASGIApp:
    """Create the ASGI application of an API process; all state is in Redis and the database.

    Raises:
        RedisUrlMissingError: If no Redis is configured.
        CallersFileError: If `GAMMA_CALLERS_FILE` is invalid.
        StorageSetupError: If `GAMMA_STORE` is set and the extra `s3` is not installed.
        DatabaseUrlError: If `GAMMA_DATABASE_URL` is invalid.
    """
    url = settings.required_redis_url
    redis = connect_guarded(url)
    store, queue = Store.open(redis, settings), JobQueue(redis, settings)
    deliveries = Deliveries(redis, settings) if settings.may_sign_webhooks else None
    service = Service(settings, store, queue, FinishedEvents(url), deliveries)
    reviewing = Reviewing(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, FinishedEvents]]:
        # Exclude the objects created so far from garbage collection: full passes over them would
        # block requests for tens of milliseconds.
        gc.collect()
        gc.freeze()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(service.events.running())
            if settings.erase_within:
                rewriter = AofRewriter(redis, settings.erase_within)
                await stack.enter_async_context(rewriter.running())
            await stack.enter_async_context(reviewing.running())
            stack.callback(service.decoders.close)  # starts them before the first request
            yield {"events": service.events}
        redis.close()

    root_path = settings.root_path or ""
    api = documented(lifespan, root_path)
    api.state.root_path = root_path
    api.state.service = service
    api.state.reviewing = reviewing
    api.state.directory = service.directory
    api.state.admission = AdmissionControl(settings, redis, service.directory)
    problems.install(api)
    for router in _ROUTERS:
        metrics.start_at_zero(router.routes)
    page.mount_static(api)
    app: ASGIApp = Compression(api)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=list(RESPONSE_HEADERS),
        )
    return RequestMiddleware(app, root_path, settings.log_client)


def documented(lifespan: Lifespan[FastAPI] | None = None, root_path: str = "") -> FastAPI:
    """Create the application with its routes, for its OpenAPI document or to attach a service."""
    api = Documented(
        title="GAMMA",
        summary="Was this picture, or a part of it, made by a neural network?",
        version=version("gamma-detect"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        servers=[{"url": root_path or "/"}],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for router in _ROUTERS:
        api.include_router(router)
    api.webhooks.include_router(webhooks.events)
    return api
