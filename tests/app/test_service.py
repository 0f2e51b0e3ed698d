"""Requests of an API process do not affect each other: errors, outages and memory."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx2
import psutil
import pytest
from PIL import Image

from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.jobs import JobQueue
from app.contract.schemas import Detection, ErrorCode, ImageInfo
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Submission
from app.http import service as service_module
from app.http.api import create_app
from app.http.problems import ServiceError
from app.http.routes import system
from app.http.service import Service
from app.http.waiting import FinishedEvents
from pictures.findings import View
from tests.app.conftest import StandIn, new_picture
from tests.app.replica import Replica, assert_problem, replicas
from tests.conftest import encode, photo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),  # tens of seconds of work; a busy machine is not a hang
]


def test_unexpected_error_of_one_upload_does_not_affect_others(
    pair_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = new_picture()
    inspect = service_module.inspect

    def surprised(data: bytes, max_pixels: int) -> ImageInfo:
        if data == bad:
            raise RuntimeError("a surprise")
        return inspect(data, max_pixels)

    monkeypatch.setattr(service_module, "inspect", surprised)
    settings = Settings(redis_url=pair_redis_url)
    with connect(pair_redis_url) as redis:
        events = FinishedEvents(pair_redis_url)
        service = Service(settings, Store(redis), JobQueue(redis, settings), events)
        pictures = (new_picture(), bad, new_picture())
        submissions = [Submission("alice", picture, View.CENTER) for picture in pictures]
        first, second, third = service.submit_all(submissions)
    assert isinstance(first, Detection)
    assert isinstance(second, ServiceError)
    assert second.code is ErrorCode.INTERNAL_ERROR
    assert isinstance(third, Detection)


@pytest.mark.parametrize("refusal", ["min-replicas-to-write", "replica"])
def test_refused_writes_are_reported_as_an_outage(tmp_path: Path, refusal: str) -> None:
    with (
        private_redis(tmp_path / "redis", 2**28) as (url, _),
        replicas(url, tmp_path, 1) as (api,),
        api.client() as client,
        connect(url) as redis,
    ):
        known = new_picture()
        first = client.post("/v1/detections", files={"file": known}).json()["id"]
        standin = StandIn(redis)
        assert standin.finish(first)
        if refusal == "replica":
            redis.replicaof("127.0.0.1", 1)
        else:
            redis.config_set(refusal, 1)
        answer = client.post("/v1/detections", files={"file": new_picture()})
        assert_problem(answer, 503, "redis_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        answer = client.post("/v1/detections", files={"file": known})
        assert_problem(answer, 503, "redis_unavailable")
        files = [("files", new_picture())] * 2
        batch = client.post("/v1/detections/batch", files=files)
        assert_problem(batch, 503, "redis_unavailable")
        ready = client.get("/readyz")
        assert ready.status_code == 503
        redis.replicaof("NO", "ONE")
        redis.config_set("min-replicas-to-write", 0)
        assert client.post("/v1/detections", files={"file": new_picture()}).status_code == 202


def test_readiness_is_answered_while_its_check_hangs(
    pair_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def hang(_: Service) -> list[object]:
        answered.wait(60)
        return []

    monkeypatch.setattr(system, "_live", hang)
    monkeypatch.setattr(system, "_READY_TIMEOUT", 0.1)
    api = httpx2.ASGITransport(create_app(Settings(redis_url=pair_redis_url)))

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=api, base_url="http://localhost") as client:
            answer = await client.get("/readyz")
            answered.set()
            return answer

    assert_problem(asyncio.run(ask()), 503, "redis_unavailable")


# -- memory ---------------------------------------------------------------------------------------


def upload_many(api: Replica, picture: bytes, numbers: range, connections: int = 4) -> None:
    """Upload a different picture for each number, over several connections."""

    def upload(mine: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
        for number in mine:
            body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            body += picture + number.to_bytes(8, "big") + b"\r\n--x--\r\n"
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            connection.request("POST", "/v1/detections", body, headers)
            answer = connection.getresponse()
            assert answer.status == 202, answer.read()
            answer.read()
        connection.close()

    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(upload, [numbers[start::connections] for start in range(connections)]))


LEAK = 2048  # bytes an upload; what the allocator keeps varies by some MiB in all


def test_ten_thousand_uploads_leave_nothing_behind(tmp_path: Path) -> None:
    first, more = 2000, 8000  # the first ones fill caches and pools
    uploads = first + more
    with (
        private_redis(tmp_path / "redis", 2**29) as (url, _),
        replicas(url, tmp_path, 1, GAMMA_CACHE="false", GAMMA_QUEUE_LIMIT=str(uploads)) as (api,),
    ):
        process = psutil.Process(api.process.pid)
        picture = encode(photo(32, 32))
        upload_many(api, picture, range(first))
        before = process.memory_info().rss
        upload_many(api, picture, range(first, uploads))
        assert process.memory_info().rss - before < more * LEAK
        with connect(url) as redis:
            assert redis.llen("rq:queue:gamma") == uploads


def peak(api: Replica) -> int:
    """Most memory that the process has ever held, bytes."""
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize(("side", "at_once"), [(1000, True), (5000, False)])
def test_large_previews_are_decoded_one_at_a_time(
    pair_redis_url: str, monkeypatch: pytest.MonkeyPatch, side: int, at_once: bool
) -> None:
    met = []
    both = threading.Barrier(2)

    def preview(*_: object) -> bytes:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(60 if at_once else 0.5)
            met.append(True)
        return b"a preview"

    monkeypatch.setattr(Service, "decoders", SimpleNamespace(preview=preview))
    api = httpx2.ASGITransport(create_app(Settings(redis_url=pair_redis_url)))

    async def show() -> list[int]:
        async with httpx2.AsyncClient(transport=api, base_url="http://localhost") as client:
            picture = {"file": encode(Image.new("1", (side, side)), "PNG")}
            record = (await client.post("/v1/detections", files=picture)).json()
            path = f"/v1/detections/{record['id']}/image"
            asked = (client.get(path, params={"size": size}) for size in (64, 65))
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(show()) == [200, 200]
    assert bool(met) is at_once


def test_large_uploads_in_memory_are_limited(tmp_path: Path) -> None:
    uploads, size = 6, 40_000_000
    picture = encode(photo(64, 64)) + bytes(size)
    with (
        private_redis(tmp_path / "redis", 4 * 2**30) as (url, _),
        replicas(url, tmp_path, 1, GAMMA_CACHE="false") as (api,),
        api.client() as client,
        ThreadPoolExecutor(uploads) as pool,
    ):
        client.timeout = 120
        before = peak(api)
        sent = [
            pool.submit(client.post, "/v1/detections", files={"file": picture})
            for _ in range(uploads)
        ]
        assert {answer.result().status_code for answer in sent} == {202}
        assert peak(api) - before < uploads * size * 0.9
