"""Speed and memory of the API: uploads, waiting requests, heat maps, comparison with LitServe.

    python -m benchmarks.api                 # all five parts; litserve needs the extra `bench`
    python -m benchmarks.api submit overlay  # some of: submit, wait, litserve, overlay, memory

Redis, API and worker run as separate processes as in production; the client is this process.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import uvloop
from fastapi import FastAPI, Request

from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.ports import ask
from benchmarks.support import encode, free_port, photo

SUBMIT_BAR = 400  # uploads/s
WAIT_BAR = 20  # ms in addition to the model, p50
LITSERVE_BAR = 0.8  # relative to its requests/s
FIRST_BAR, CACHED_BAR = 60, 5  # ms, p95
CONNECTIONS = 16
MODEL_SECONDS = 0.1  # of the simulated model
_BOUNDARY = "benchmark"
_START_TIMEOUT = 120  # s


# -- processes ------------------------------------------------------------------------------------


def plain() -> FastAPI:
    """Return an API that only reads the body."""
    api = FastAPI()

    @api.post("/v1/detections")
    async def read(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    return api


def worker(url: str, seconds: float) -> None:
    """Run a batch worker with a simulated model; with 0 seconds it does not decode either."""
    import torch

    from benchmarks.worker import NoModel, SlowModel, batch_worker
    from model.engine import CropOutputs
    from worker.processing import Processor

    class Patchy(SlowModel):
        """Model with random, non-empty masks."""

        def forward(self, parts):
            found = super().forward(parts)
            return [CropOutputs(some.logits, *[self._draw(len(some.logits))] * 2) for some in found]

        def _draw(self, count):
            masks = torch.randn(count, 1, 16, 16).mul(3)
            return torch.nn.functional.interpolate(masks, size=(128, 128), mode="bicubic")[:, 0]

    made = batch_worker(url, Processor if seconds else NoModel, Patchy(seconds), 32)
    made.work(logging_level="ERROR")


@contextlib.contextmanager
def python(*arguments: str, **environment: str) -> Iterator[int]:
    """Run another Python process; yields its process id. Its child processes end with it."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        yield process.pid
    finally:
        started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
        for left in psutil.wait_procs(started, 5)[1]:
            left.kill()


@dataclass(frozen=True)
class Api:
    """A running API process."""

    port: int
    pid: int


@contextlib.contextmanager
def service(seconds: float | None = None) -> Iterator[tuple[Api, str]]:
    """Run Redis and an API, and a worker if the time of its model is given; yields API and URL.

    The memory limit of Redis is high, because memory is reserved for the results of waiting jobs.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        url, _ = stack.enter_context(private_redis(Path(name), 2**36))
        port = free_port()
        settings = {
            "GAMMA_REDIS_URL": url,
            "GAMMA_PORT": str(port),
            "GAMMA_METRICS_PORT": str(free_port()),
            "GAMMA_CACHE": "false",
            "GAMMA_QUEUE_LIMIT": "1000000",
        }
        api = Api(port, stack.enter_context(python("-m", "app", "api", **settings)))
        until(port, "/livez")
        if seconds is not None:
            code = f"from benchmarks.api import worker; worker({url!r}, {seconds})"
            stack.enter_context(python("-c", code))
            until(api.port, "/readyz")
        yield api, url


def until(port: int, path: str) -> None:
    """Wait until a process has started."""
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        with contextlib.suppress(OSError):
            if ask("127.0.0.1", port, path)[0] == 200:
                return
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


# -- the caller -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """Result of many requests: answers per second, and latency (ms) and body of each."""

    rate: float
    answers: list[tuple[float, bytes]]

    def at(self, share: float) -> float:
        """Return a quantile of the latencies."""
        return quantile([latency for latency, _ in self.answers], share)

    def __str__(self) -> str:
        return f"{self.rate:7.0f}/s   p50 {self.at(0.5):6.1f} ms   p99 {self.at(0.99):6.1f} ms"


def quantile(values: list[float], share: float) -> float:
    """Return the value that the given share of values does not exceed."""
    return sorted(values)[int((len(values) - 1) * share)]


def upload(picture: bytes, serial: int, *headers: str, path: str = "/v1/detections") -> bytes:
    """Make a POST of a unique picture: its serial number follows the end of the file."""
    body = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    body += picture + serial.to_bytes(8, "big") + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return post(path, f"multipart/form-data; boundary={_BOUNDARY}", body, *headers)


def post(path: str, content_type: str, body: bytes, *headers: str) -> bytes:
    """Make a raw HTTP request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def load(port: int, requests: Iterable[bytes], connections: int = CONNECTIONS) -> Load:
    """Send all requests; each connection sends one after the other."""
    return uvloop.run(_load(port, iter(requests), connections))


async def _load(port: int, requests: Iterator[bytes], connections: int) -> Load:
    answers: list[tuple[float, bytes]] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests:
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            body = await reader.readexactly(int(length))
            answers.append(((time.perf_counter() - started) * 1e3, body))
            if head[9:10] != b"2":
                raise RuntimeError(head.decode())
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return Load(len(answers) / (time.perf_counter() - started), answers)


def uploads(picture: bytes, count: int, *headers: str, **path: str) -> Iterator[bytes]:
    """Yield `count` uploads, made on demand."""
    first = next(_serials) * 10**9
    return (upload(picture, first + number, *headers, **path) for number in range(count))


_serials = itertools.count()


def picture_of(size: int) -> bytes:
    """Make a JPEG of about `size` bytes."""
    sides = range(64, 4096, 16)
    return next(data for side in sides if len(data := encode(photo(side, side))) >= size)


# -- the parts ------------------------------------------------------------------------------------


def submit(options: argparse.Namespace) -> None:
    """Measure uploads/s of one API process and of a plain one; then with a long queue."""
    picture = picture_of(100_000)
    port = free_port()
    uvicorn = ("-m", "uvicorn", "--factory", "benchmarks.api:plain", "--log-level", "error")
    with service() as (api, url), python(*uvicorn, "--port", str(port)):
        until(port, "/docs")
        for each in (port, api.port):
            load(each, uploads(picture, options.uploads // 10))
        reads, ours = [], []
        for _ in range(options.turns):
            reads.append(load(port, uploads(picture, options.uploads)))
            ours.append(load(api.port, uploads(picture, options.uploads)))
        small = encode(photo(16, 16))
        redis = connect(url)
        redis.flushall()
        empty = load(api.port, uploads(picture, options.uploads // 2))
        load(api.port, uploads(small, options.queued))
        waiting = redis.llen("rq:queue:gamma")
        full = load(api.port, uploads(picture, options.uploads // 2))
    best, read = (max(found, key=lambda one: one.rate) for found in (ours, reads))
    print(f"\nsubmit: JPEGs of {len(picture)} bytes, {CONNECTIONS} connections, one API process")
    print(f"  plain FastAPI, reads the body  {read}")
    print(f"  GAMMA, stores and queues       {best}   ratio {best.rate / read.rate:.2f}")
    print(f"  target {SUBMIT_BAR} uploads/s: {met(best.rate >= SUBMIT_BAR)}")
    print(f"  with few queued                {empty}")
    print(f"  with {waiting:6} queued            {full}")


def wait(options: argparse.Namespace) -> None:
    """Measure the time of a waiting POST in addition to the model, at low load."""
    picture = encode(photo(512, 512))
    over: list[float] = []
    parts = defaultdict(list)
    with service(MODEL_SECONDS) as (api, _):
        requests = uploads(picture, options.waits, "Prefer: wait=30")
        for latency, answer in load(api.port, requests, connections=1).answers:
            timings = json.loads(answer)["timings"]
            over.append(latency - timings["forward"] * 1e3)
            for name in ("queued", "decode", "encode"):
                parts[name].append(timings[name] * 1e3)
    p50, p95 = statistics.median(over), quantile(over, 0.95)
    shown = ", ".join(f"{name} {statistics.median(ms):.1f}" for name, ms in parts.items())
    print(f"\nwait: one caller, 512 x 512, a model that takes {MODEL_SECONDS * 1e3:.0f} ms")
    print(f"  in addition to the model: p50 {p50:.1f} ms, p95 {p95:.1f} ms; of this {shown} ms")
    print(f"  target {WAIT_BAR} ms: {met(p50 <= WAIT_BAR)}")


def against_litserve(options: argparse.Namespace) -> None:
    """Compare waiting POSTs with an empty model with LitServe.

    LitServe receives a number (its cheapest request) and then the same pictures.
    """
    port = free_port()
    small = encode(photo(32, 32))
    number = post("/predict", "application/json", json.dumps({"input": 1.0}).encode())
    count = options.requests
    runs = defaultdict(list)
    with service(0) as (api, _), python("-m", "benchmarks.empty_litserve", str(port)):
        until(port, "/health")
        for _ in range(options.turns):
            runs["number"].append(load(port, itertools.repeat(number, count)))
            runs["picture"].append(load(port, uploads(small, count, path="/predict")))
            runs["ours"].append(load(api.port, uploads(small, count, "Prefer: wait=30")))
    best = {name: max(found, key=lambda one: one.rate) for name, found in runs.items()}
    ratio, same = (best["ours"].rate / best[name].rate for name in ("number", "picture"))
    print(f"\nlitserve: an empty model, {CONNECTIONS} connections")
    print(f"  LitServe, a number in JSON     {best['number']}")
    print(f"  LitServe, a picture in a form  {best['picture']}")
    print(f"  GAMMA, a picture, durable      {best['ours']}")
    print(f"  ratio {ratio:.2f}, to LitServe with a picture {same:.2f}")
    print(f"  target {LITSERVE_BAR}: {met(ratio >= LITSERVE_BAR)}")


def overlay(options: argparse.Namespace) -> None:
    """Measure heat maps of one megapixel: first, not modified, and blended with the picture."""
    tags = {"first": [], "cached": [], "composite": []}
    with (
        service(0.01) as (api, _),
        httpx2.Client(base_url=f"http://127.0.0.1:{api.port}", timeout=30) as client,
    ):
        path = client.post(
            "/v1/detections",
            files={"file": encode(photo(1000, 1000))},
            headers={"Prefer": "wait=60"},
        ).json()["masks"]["ai"]["overlay_url"]
        for number in range(options.overlays + 5):
            query = {"opacity": 0.2 + number / 1000}

            def ask(kind, status, headers=None, query=query, **more):
                started = time.perf_counter()
                answer = client.get(path, params={**query, **more}, headers=headers)
                tags[kind].append((time.perf_counter() - started) * 1e3)
                assert answer.status_code == status, answer.text
                return answer

            tag = ask("first", 200).headers["etag"]
            ask("cached", 304, {"If-None-Match": tag})
            ask("composite", 200, composite="true")
    print(f"\noverlay: 1000 x 1000, {options.overlays} times each")
    p95 = {}
    for kind, times in tags.items():
        times = times[5:]
        p95[kind] = quantile(times, 0.95)
        print(f"  {kind:10} p50 {statistics.median(times):6.1f} ms   p95 {p95[kind]:6.1f} ms")
    print(f"  target {FIRST_BAR} ms first: {met(p95['first'] <= FIRST_BAR)}", end=", ")
    print(f"{CACHED_BAR} ms cached: {met(p95['cached'] <= CACHED_BAR)}")


def memory(options: argparse.Namespace) -> None:
    """Measure the resident memory of the API over many uploads; Redis is emptied in between."""
    picture = picture_of(100_000)
    with service() as (api, url):
        process = psutil.Process(api.pid)
        redis = connect(url)
        seen = [process.memory_info().rss / 2**20]
        for _ in range(10):
            load(api.port, uploads(picture, options.memory // 10))
            seen.append(process.memory_info().rss / 2**20)
            redis.flushall()
    growth = seen[-1] - seen[2]
    print(f"\nmemory: MiB of the API, at first and after each tenth of {options.memory} uploads")
    print("  " + ", ".join(f"{one:.0f}" for one in seen), end="; ")
    print(f"from the second tenth to the last {growth:+.1f}")


def met(fine: bool) -> str:
    """Return the text for a target that is met or missed."""
    return "met" if fine else "MISSED"


def main() -> None:
    """Run the benchmark."""
    parts = {
        "submit": submit,
        "wait": wait,
        "litserve": against_litserve,
        "overlay": overlay,
        "memory": memory,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*parts, []])
    parser.add_argument("--turns", type=int, default=3, help="number of turns; the best counts")
    parser.add_argument("--uploads", type=int, default=2000, help="per turn (submit)")
    parser.add_argument("--queued", type=int, default=10_000, help="queued uploads (submit)")
    parser.add_argument("--waits", type=int, default=100, help="requests (wait)")
    parser.add_argument("--requests", type=int, default=2000, help="per turn (litserve)")
    parser.add_argument("--overlays", type=int, default=100, help="requests per kind (overlay)")
    parser.add_argument("--memory", type=int, default=10_000, help="uploads (memory)")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}"
    )
    for part in options.parts or parts:
        parts[part](options)


if __name__ == "__main__":
    main()
