"""Clients of a service that a test plays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from gamma_client import AsyncClient, Client

from app.http import examples

Run = Callable[..., Any]
ADDRESS = "https://gamma.example/below"


@pytest.fixture(params=["synchronous", "asynchronous"])
def run(request: pytest.FixtureRequest) -> Run:
    """Calls a function with a client whose requests a handler answers; returns the result.

    Iterators are turned into lists.
    """

    def synchronous(handler: Callable, use: Callable, **options: object) -> Any:
        http = httpx2.Client(transport=httpx2.MockTransport(handler))
        with Client(ADDRESS, "secret", http=http, **options) as client:
            found = use(client)
            return list(found) if hasattr(found, "__next__") else found

    def asynchronous(handler: Callable, use: Callable, **options: object) -> Any:
        async def main() -> Any:
            http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
            async with AsyncClient(ADDRESS, "secret", http=http, **options) as client:
                found = use(client)
                if hasattr(found, "__anext__"):
                    return [one async for one in found]
                return await found

        return asyncio.run(main())

    return synchronous if request.param == "synchronous" else asynchronous


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of both clients, which take no time."""
    taken: list[float] = []
    here, really_sleep = threading.get_ident(), asyncio.sleep

    async def sleep(seconds: float, *_: object) -> None:
        if threading.get_ident() != here:  # a server of other tests
            await really_sleep(seconds)
        else:
            taken.append(seconds)

    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=taken.append))
    for module in ("client", "connection", "folders"):
        monkeypatch.setattr(f"gamma_client._sync.{module}.sleep", taken.append)
        monkeypatch.setattr(f"gamma_client._async.{module}.sleep", sleep)
    monkeypatch.setattr("asyncio.sleep", sleep)
    return taken


def record(status: str = "succeeded", **changes: object) -> dict[str, Any]:
    """A record as the service sends it."""
    example = {
        "queued": examples.QUEUED,
        "succeeded": examples.SUCCEEDED,
        "failed": examples.FAILED,
        "expired": examples.EXPIRED,
    }[status]
    return {**example.model_dump(mode="json"), **changes}


def problem(status: int, code: str, **more: object) -> dict[str, Any]:
    made = {"type": "about:blank", "title": code, "status": status, "detail": "why", "code": code}
    return {**made, "request_id": "r-1", **more}


Answer = Callable[[], httpx2.Response]


def answer(status: int, **content: Any) -> Answer:
    """Makes responses, each of which can be read once."""
    return lambda: httpx2.Response(status, **content)


def refuse(status: int, code: str, /, headers: dict[str, Any] | None = None) -> Answer:
    return answer(status, json=problem(status, code), headers=headers)


class Service:
    """Gives these answers one after the other, the last one again and again; keeps the requests."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer()
