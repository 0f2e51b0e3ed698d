"""Bodies that are sent while they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from app.contract.schemas import ErrorCode
from app.http.problems import ServiceError
from app.http.resources import FairSemaphore
from app.http.routes.responses import LimitedStream, attachment


async def send(semaphore: FairSemaphore, held: list[bool]) -> list[Message]:
    """Send a file; notes in `held` whether its permit is taken meanwhile."""

    async def content() -> AsyncIterator[str]:
        held.append(not semaphore.available("bob", 1))
        yield "line\n"

    sent: list[Message] = []

    async def note(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    file = LimitedStream(content(), semaphore.hold("alice", 1), "text/csv", attachment("file.csv"))
    await file({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, note)
    return sent


def test_a_stream_holds_its_permit_until_it_is_sent() -> None:
    async def run() -> None:
        semaphore, held = FairSemaphore(1, "streams", 0, ErrorCode.TOO_MANY_DOWNLOADS), []
        sent = await send(semaphore, held)
        assert (held, sent[0]["status"]) == ([True], 200)
        assert semaphore.available("bob", 1)
        async with semaphore.hold("bob", 1):
            with pytest.raises(ServiceError) as refused:
                await send(semaphore, held)
        assert refused.value.code is ErrorCode.TOO_MANY_DOWNLOADS

    asyncio.run(run())
