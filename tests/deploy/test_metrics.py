"""What the processes expose is what docs/metrics.md says, whatever is asked of them."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpx2
import pytest
from prometheus_client import Metric
from redis import Redis
from redis.client import Pipeline

from app.command.embedded import private_redis
from app.contract.jobs import JobQueue
from app.contract.schemas import ErrorCode
from app.contract.settings import Settings
from app.http import metrics
from app.http.problems import STATUS
from tests.conftest import Serve, encode, photo
from tests.deploy import live
from tests.deploy.promql import Documented, documented

ODD_REQUESTS = 2000
CONNECTIONS = 16
TABLE = {row.name: row for row in documented()}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
BROKEN = encode(photo(64, 64))[:200]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("metrics")
    running = live.serve(folder, small_model, forked=False)  # each exposes what it imports
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


def expected(process: str) -> set[str]:
    return {row.name for row in TABLE.values() if row.process in ("all", process)}


def full_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


@cache
def routes(url: str) -> frozenset[str]:
    """Templates of all routes, as the API's own documentation lists them."""
    paths = set(httpx2.get(f"{url}/openapi.json", timeout=30).json()["paths"])
    pages = {"/", "/docs", "/openapi.json", "/static", "/swagger-ui", "unmatched"}
    return frozenset((paths | pages) - metrics.UNCOUNTED)


def fits(row: Documented, label: str, given: str, url: str) -> bool:
    """Whether the table lists this value of a label."""
    values = row.labels[label]
    if isinstance(values, frozenset):
        return given in values
    kinds = {
        "method": METHODS,
        "route": routes(url),
        "code": set(ErrorCode),
        "status": {str(status) for status, _ in STATUS.values()}
        | {"200", "201", "202", "204", "207", "304", "405"},
        "version": {"small"},
        "name": {"gamma"},
        "backbone": {"mit_b0"},
        "device": {"cpu"},
    }
    return values == "text" or given in kinds[values]


def check_against_table(families: list[Metric], url: str) -> int:
    """Every series is one the table allows; returns how many there are."""
    count = 0
    for family in families:
        row = TABLE[full_name(family)]
        assert row.type == family.type, family.name
        assert family.documentation, family.name
        for sample in family.samples:
            count += 1
            for label, given in sample.labels.items():
                assert label == "le" or fits(row, label, given, url), (family.name, label, given)
            assert set(sample.labels) - {"le"} == set(row.labels), family.name
    return count


@pytest.mark.parametrize("process", live.PROCESSES)
def test_documented_metrics_equal_exposed_ones(stack: Serve, process: str) -> None:
    families = live.scrape(stack, process)
    check_against_table(families, stack.url)
    assert {full_name(family) for family in families if family.samples} == expected(process)


def test_documented_units_and_processes_are_valid() -> None:
    assert len(TABLE) == len(documented())
    for row in TABLE.values():
        assert row.process in ("all", "worker (CUDA)", *live.PROCESSES)
        assert row.name.startswith(("gamma_", "process_", "python_"))
        for unit in ("seconds", "bytes", "pixels"):
            if f"_{unit}" in row.name and "timestamp" not in row.name:
                assert row.unit.startswith(unit), row.name


def test_labelled_counters_start_at_zero(stack: Serve) -> None:
    for process in live.PROCESSES:
        for family in live.scrape(stack, process):
            row = TABLE[full_name(family)]
            for label, values in row.labels.items():
                listed = set(ErrorCode) if values == "code" else values
                if not isinstance(listed, str) and row.type in ("counter", "histogram"):
                    found = {sample.labels[label] for sample in family.samples}
                    assert found == set(listed), (family.name, label)


def test_odd_requests_add_no_series(stack: Serve) -> None:
    chance = random.Random(0)
    answers = asyncio.run(_send_odd_requests(stack.url, chance))
    assert answers == ODD_REQUESTS
    families = live.scrape(stack, "api")
    assert check_against_table(families, stack.url) < 2500  # half of what a scrape may bring
    with stack.client() as client:  # it still serves
        picture = {"file": encode(photo(64, 64))}
        answer = client.post("/v1/detections", files=picture, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text


async def _send_odd_requests(url: str, chance: random.Random) -> int:
    """Send them over a few connections; returns how many were answered."""
    address = httpx2.URL(url)
    requests = iter([_odd_request(chance) for _ in range(ODD_REQUESTS)])
    answered = 0

    async def send() -> None:
        nonlocal answered
        connection = await asyncio.open_connection(address.host, address.port)
        for request in requests:
            while not await _answer(*connection, request):  # closed since the last one
                connection[1].close()
                connection = await asyncio.open_connection(address.host, address.port)
            answered += 1
        connection[1].close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(send())
    return answered


async def _answer(reader: StreamReader, writer: StreamWriter, request: bytes) -> bool:
    """Send a request and read all of its answer; False if there is none."""
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length and not request.startswith(b"HEAD "):
            await reader.readexactly(int(length.group(1)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    if b"connection: close" in head:
        writer.close()
    return True


def _odd_request(chance: random.Random) -> bytes:
    noise = f"{chance.getrandbits(64):x}"
    method = chance.choice(
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", f"M{noise}"]
    )
    path = chance.choice(
        [
            f"/{noise}",
            f"/v1/detections/{noise}",
            f"/v1/detections/{noise}/image",
            f"/v1/detections/{noise}/masks/{noise}.png",
            f"/v1/detections/{noise}/overlays/ai.png?colormap={noise}&opacity={noise}",
            f"/v1/detections?limit={noise}&cursor={noise}",
            f"/v1/detections?ids={noise},{noise}",
            "/v1/detections",
            "/v1/detections/batch",
            f"/v1/detections/%2e%2e/{noise}",
            f"/static/{noise}.js",
            f"/static/../{noise}",
            f"//{noise}//",
            f"/docs?{noise}",
            "/",
            "/v1/model",
            "/openapi.json",
            "/metrics",
        ]
    )
    boundary = noise
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{noise}"\r\n'
    body = chance.choice(
        [
            b"",
            noise.encode(),
            f"{part}\r\n".encode() + chance.randbytes(20) + f"\r\n--{boundary}--\r\n".encode(),
            f"{part}\r\n".encode() + BROKEN + f"\r\n--{boundary}--\r\n".encode(),
        ]
    )
    headers = {
        "Host": noise,
        "User-Agent": noise,
        "X-Request-ID": noise,
        "Content-Type": chance.choice(
            [f"multipart/form-data; boundary={boundary}", f"image/{noise}", noise]
        ),
        "Prefer": f"wait={noise}",
        "Idempotency-Key": noise,
        "Authorization": f"Bearer {noise}",
        "traceparent": noise,
    }
    headers["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_scrape_takes_one_round_trip_and_reads_no_registries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with private_redis(tmp_path / "redis", 2**26) as (url, _), Redis.from_url(url) as redis:
        settings = Settings(redis_url=url)
        queue = JobQueue(redis, settings)
        with redis.pipeline() as pipeline:
            queue.enqueue(pipeline, "one")
            pipeline.execute()
        abandoned = f"rq:wip:{settings.queue}"
        redis.zadd(abandoned, {"one:execution": 1})  # long over: a clean-up would remove it
        trips = []
        execute = Pipeline.execute

        def counted(pipeline: Pipeline, *args: object) -> object:
            trips.append([command[0][0] for command in pipeline.command_stack])
            return execute(pipeline, *args)

        list(metrics._QueueCollector(settings).collect())  # the first one loads scripts
        monkeypatch.setattr(Pipeline, "execute", counted)
        found = {family.name: family for family in metrics._QueueCollector(settings).collect()}
        assert len(trips) == 1
        assert found["gamma_queue_depth"].samples[0].value == 1
        assert found["gamma_queue_limit"].samples[0].value == settings.queue_limit
        assert found["gamma_redis_up"].samples[0].value == 1
        assert found["gamma_redis_append_only"].samples[0].value == 1
        assert redis.zcard(abandoned) == 1


def test_scrape_works_without_redis() -> None:
    families = list(metrics._QueueCollector(Settings(redis_url="redis://127.0.0.1:1")).collect())
    found = {family.name: family.samples[0].value for family in families}
    assert found == {"gamma_queue_limit": Settings().queue_limit, "gamma_redis_up": 0}


def test_scrape_works_while_redis_hangs() -> None:
    """A Redis that takes connections and says nothing."""
    ended = threading.Event()

    def say_nothing() -> None:
        connection, _ = silent.accept()
        with connection:
            ended.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        thread = threading.Thread(target=say_nothing)
        thread.start()
        families = metrics._QueueCollector(
            Settings(redis_url=f"redis://127.0.0.1:{port}")
        ).collect()
        found = {family.name: family.samples[0].value for family in families}
        ended.set()
        thread.join()
    assert found["gamma_redis_up"] == 0
