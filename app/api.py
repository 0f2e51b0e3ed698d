"""The FastAPI application, put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import ASGIApp

from app import problems
from app.jobs import JobQueue
from app.middleware import Observed
from app.routes import detections, page, system
from app.service import Service
from app.settings import Settings
from app.store import Store, connect
from app.waiting import FinishedEvents


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application of one API process. It keeps no state; Redis does.

    Raises:
        RedisUrlMissingError: no Redis is configured.
    """
    url = settings.required_redis_url
    redis = connect(url)
    store, queue = Store(redis), JobQueue(redis, settings)
    service = Service(settings, store, queue, FinishedEvents(url))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.events.running():
            yield
        redis.close()

    api = FastAPI(
        title="GAMMA",
        summary="Was this picture, or a part of it, made by a neural network?",
        version=version("gamma-detect"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    api.state.service = service
    api.state.keys = settings.api_keys
    problems.install(api)
    for module in (detections, system, page):
        api.include_router(module.router)
    page.mount_static(api)
    return Observed(api)
