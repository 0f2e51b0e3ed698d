"""During each attack, another caller is served and memory stays bounded.

The API runs with the memory limit of its container. `ATTACK_SECONDS` makes each attack longer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from PIL import Image
from redis import Redis

from app.command.embedded import private_redis
from app.contract.client import connect
from tests.app.replica import Replica, replicas
from tests.attacks import corpus
from tests.attacks.memory import forget_peak, limit_memory, peak_memory
from tests.conftest import encode, photo
from tests.samples import encoded

ROOT = Path(__file__).parents[2]
KEY = "bob-who-is-no-attacker"
AUTHORIZED = {"Authorization": f"Bearer {corpus.ATTACKER}"}
SECONDS = float(os.environ.get("ATTACK_SECONDS", "0.5"))
MOST_GROWTH = 160 * 2**20  # bytes of the API process; it grows by 50 MiB at most
LONGEST = 20.0  # s, of an upload; some milliseconds without attack and other load
_serials = itertools.count()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis"), 2 * 2**30) as (url, _):
        yield url


@pytest.fixture(scope="module")
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(scope="module")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    settings = {
        "GAMMA_API_KEYS": f"mallory={corpus.ATTACKER},bob={KEY}",
        "GAMMA_QUEUE_LIMIT": "1000000",
        "GAMMA_MAX_CONNECTIONS": "200",
    }
    with replicas(redis_url, tmp_path_factory.mktemp("attacks"), 1, **settings) as (one,):
        limit_memory(psutil.Process(one.process.pid), "api")
        yield one


def send(api: Replica, data: bytes) -> httpx2.Response:
    return httpx2.post(
        f"{api.url}/v1/detections", files={"file": ("x", data)}, headers=AUTHORIZED, timeout=60
    )


def upload(api: Replica) -> None:
    """Another caller's small upload, on a new connection, which must be answered."""
    picture = encode(photo(64, 64, next(_serials)))
    request = corpus.upload(picture).replace(corpus.ATTACKER.encode(), KEY.encode())
    with socket.create_connection(("127.0.0.1", api.port), timeout=LONGEST) as connection:
        connection.sendall(request)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 202"), answer


@pytest.fixture(scope="module")
def attacker(api: Replica) -> Iterator[subprocess.Popen[str]]:
    """The attacking process, see `corpus`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.attacks.corpus", str(api.port), str(SECONDS)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.parametrize("name", corpus.names())
def test_attack_does_not_affect_other_callers(
    api: Replica, redis: Redis, attacker: subprocess.Popen[str], name: str
) -> None:
    redis.flushall()
    upload(api)
    process = psutil.Process(api.process.pid)
    before = process.memory_info().rss
    forget_peak(process)
    assert attacker.stdin is not None
    assert attacker.stdout is not None
    attacker.stdin.write(f"{name}\n")
    attacker.stdin.flush()
    assert attacker.stdout.readline() == "ready\n"
    while not select.select([attacker.stdout], [], [], 0.05)[0]:
        upload(api)
    assert attacker.stdout.readline() == "full\n"
    upload(api)  # the attack does not end before
    attacker.stdin.write("\n")
    attacker.stdin.flush()
    assert attacker.stdout.readline() == "done\n"
    assert api.process.poll() is None, "the API has ended"
    growth = peak_memory(process) - before
    assert growth < MOST_GROWTH, f"{growth / 2**20:.0f} MiB"
    assert httpx2.get(f"{api.url}/livez", timeout=60).status_code == 200
    assert api.unexpected_errors() == []


def test_refused_uploads_leak_no_memory(api: Replica) -> None:
    process = psutil.Process(api.process.pid)
    data = corpus.PICTURES["tiff entries"]()
    assert send(api, data).status_code == 422
    before = process.memory_info().rss
    for _ in range(8):
        assert send(api, data).status_code == 422
    growth = process.memory_info().rss - before
    assert growth < 2 * len(data), f"{growth / 2**20:.0f} MiB"


def test_client_that_reads_no_responses_does_not_affect_other_callers(api: Replica) -> None:
    picture = encode(Image.new("RGB", (4000, 3900)), "BMP")
    path = f"{send(api, picture).headers['Location']}/image"
    process = psutil.Process(api.process.pid)
    before = process.memory_info().rss
    forget_peak(process)
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", api.port)))
            connection.sendall(corpus.get(path))
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            upload(api)
        upload(api)
    growth = peak_memory(process) - before
    assert growth < MOST_GROWTH, f"{growth / 2**20:.0f} MiB"
    assert httpx2.get(f"{api.url}{path}", headers=AUTHORIZED, timeout=60).content == picture


def previews(api: Replica) -> int:
    """Number of previews that were answered."""
    found = re.search(r'requests_total\{.*/image",status="200"} (\d+)', api.metrics())
    return int(found.group(1)) if found else 0


def test_many_previews_of_one_caller_do_not_delay_another(api: Replica) -> None:
    data = encoded(Image.new("RGB", (3000, 2500)), "PNG")
    path = f"{send(api, data).headers['Location']}/image?size="
    with api.client(KEY) as bob:
        own = bob.post("/v1/detections", files={"file": data}).headers["Location"]
        before = previews(api)
        for size in range(1000, 1032):  # disconnects without waiting for the response
            api.hang_up_after(corpus.get(f"{path}{size}"))
        assert bob.get(f"{own}/image?size=64", timeout=60).status_code == 200
    assert previews(api) - before < 16
