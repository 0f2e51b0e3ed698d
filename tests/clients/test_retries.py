"""Which requests are repeated, when, and for how long."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gamma_client import Client, DetectionEvent, GammaError, ServiceError

from app.http import examples
from tests.clients.conftest import Answer, Run, Service, answer, record, refuse


class Broken(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body whose connection breaks in the midst of it."""

    def __init__(self, begin: bytes) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[bytes]:
        yield self._begin
        raise httpx2.ReadError("reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._begin
        raise httpx2.ReadError("reset")


def broken(begin: bytes, **headers: str) -> Answer:
    return lambda: httpx2.Response(200, stream=Broken(begin), headers=headers)


FOUND = answer(200, json=examples.MODEL.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 7.7),
        (
            {
                "Retry-After": "Wed, 01 Jan 2025 00:00:20 GMT",
                "Date": "Wed, 01 Jan 2025 00:00:00 GMT",
            },
            20,
            22,
        ),
        ({"Retry-After": "Wed, 01 Jan 2025 00:00:20 GMT"}, 0, 0),  # passed
        ({"Retry-After": "soon"}, 0, 0.5),
        ({"Retry-After": "-5"}, 0, 0.5),
        ({"Retry-After": "²"}, 0, 0.5),
        ({}, 0, 0.5),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_says_when(
    run: Run, pauses: list[float], status: int, headers: dict[str, str], least: float, most: float
) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    service = Service(refuse(status, "busy", encoded), FOUND)
    assert run(service, lambda client: client.model()).name == examples.MODEL.name
    (pause,) = pauses
    assert least <= pause <= most


def test_pauses_grow_without_a_time(run: Run, pauses: list[float]) -> None:
    service = Service(*[refuse(503, "busy")] * 12, FOUND)
    run(service, lambda client: client.model())
    assert len(pauses) == 12
    assert max(pauses[:2]) <= 1
    assert 1 < max(pauses) <= 30


@pytest.mark.parametrize(
    "failure",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("no answer"),
        httpx2.RemoteProtocolError("closed"),
        broken(b'{"name": "m", "ver'),
        answer(502, text="<html>Bad Gateway</html>"),
        answer(504, text=""),
    ],
    ids=["connect", "timeout", "closed", "reset", "502", "504"],
)
def test_broken_connections_are_renewed(
    run: Run, pauses: list[float], failure: Answer | Exception
) -> None:
    service = Service(failure, failure, FOUND)
    assert run(service, lambda client: client.model()).name == examples.MODEL.name
    assert len(service.requests) == 3


def test_patience_ends(run: Run) -> None:
    service = Service(httpx2.ReadTimeout("no answer"))
    with pytest.raises(httpx2.ReadTimeout):
        run(service, lambda client: client.model(), patience=0)
    assert len(service.requests) == 1

    service = Service(refuse(429, "rate_limited", {"Retry-After": "1000"}))
    with pytest.raises(ServiceError) as refused:
        run(service, lambda client: client.model(), patience=300)
    assert len(service.requests) == 1  # a second attempt would come too late
    assert (refused.value.code, refused.value.retry_after) == ("rate_limited", 1000)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 415, 422, 500, 302])
def test_other_refusals_are_final(run: Run, status: int) -> None:
    service = Service(refuse(status, "no", {"Retry-After": "1"}))
    with pytest.raises(ServiceError) as refused:
        run(service, lambda client: client.model())
    assert len(service.requests) == 1
    assert (refused.value.status, refused.value.request_id) == (status, "r-1")


@pytest.mark.parametrize("failure", [refuse(503, "busy"), httpx2.ReadError("reset")])
@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.reviews.decide("a", "ai"),
        lambda client: client.reviews.decide_many(["a"], "ai"),
        lambda client: client.reviews.next(),
        lambda client: client.reviews.withdraw("a"),
        lambda client: client.delete_many(status="failed"),
        lambda client: client.webhooks.replay(["a"]),
        lambda client: client.webhooks.test(),
    ],
)
def test_what_could_happen_twice_is_not_repeated(
    run: Run, failure: Answer | Exception, change: Callable
) -> None:
    service = Service(failure)
    with pytest.raises((ServiceError, httpx2.ReadError)):
        run(service, change)
    assert len(service.requests) == 1


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_an_upload_is_repeated_whole_with_its_key(
    run: Run, pauses: list[float], tmp_path: Path, form: str
) -> None:
    content = bytes(range(256)) * 1000  # more than one piece
    path = tmp_path / "\udcff.png"
    path.write_bytes(content)
    service = Service(refuse(503, "busy"), answer(202, json=record("queued")))
    for _ in range(2):
        run(service, lambda client: client.submit(path if form == "path" else content, ref_id="é"))
    keys = [request.headers["Idempotency-Key"] for request in service.requests]
    assert keys[0] == keys[1] != keys[2]
    assert all(re.fullmatch("[!-~]{16,64}", key) for key in keys)
    for request in service.requests:
        assert content in request.content
        assert "é".encode() in request.content


def test_a_download_begins_again(run: Run, pauses: list[float], tmp_path: Path) -> None:
    target = tmp_path / "all.csv"
    service = Service(broken(b"id,sta"), answer(200, content=b"id,status\r\n"))
    run(service, lambda client: client.export(target))
    assert target.read_bytes() == b"id,status\r\n"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_download_leaves_no_part(run: Run, tmp_path: Path) -> None:
    with pytest.raises(httpx2.ReadError):
        run(
            Service(broken(b"PK")),
            lambda client: client.archive(["a"], tmp_path / "a.zip"),
            patience=0,
        )
    assert list(tmp_path.iterdir()) == []


def follow(client: Any, seen: list[DetectionEvent]) -> Any:
    """Keep the events of a client until an error ends them."""
    if isinstance(client, Client):
        for one in client.events():
            seen.append(one)

    async def asynchronous() -> None:
        async for one in client.events():
            seen.append(one)

    return asynchronous()


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        ("text/html", b"<html>", httpx2.SSEError),
        ("text/event-stream", b"data: []\n\n", GammaError),
        ("text/event-stream", b"data: no\n\n", GammaError),
        ("text/event-stream", b'data: {"id": 1}\n\n', GammaError),
    ],
)
def test_a_page_of_a_proxy_is_no_stream(
    run: Run, kind: str, body: bytes, error: type[Exception]
) -> None:
    service = Service(answer(200, content=body, headers={"Content-Type": kind}))
    with pytest.raises(error):
        run(service, lambda client: follow(client, []))


def test_events_go_on_where_they_broke(run: Run, pauses: list[float]) -> None:
    def event(position: str, name: str) -> bytes:
        data = f'{{"id": "{name}", "status": "succeeded"}}'
        return f"id: {position}\nevent: detection\ndata: {data}\n\n".encode()

    kind = {"Content-Type": "text/event-stream"}
    service = Service(
        broken(b"id: 5-0\nretry: 1000\n\n", **kind),  # no event yet
        broken(event("6-0", "a") + b'id: 7-0\ndata: {"id', **kind),
        refuse(503, "busy", {"Retry-After": "3"}),
        answer(200, content=event("7-0", "b"), headers=kind),
        refuse(401, "key_missing"),
    )
    seen = []
    with pytest.raises(ServiceError):
        run(service, lambda client: follow(client, seen))
    assert [(one.id, one.position) for one in seen] == [("a", "6-0"), ("b", "7-0")]
    sent = [request.headers.get("Last-Event-ID") for request in service.requests]
    assert sent == [None, "5-0", "6-0", "6-0", "7-0"]
