"""Processes, pictures and helpers shared by all tests."""

from __future__ import annotations

import gc
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
from PIL import Image
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.buckets import Bucket, BucketServer
from tests.forks import Forked, without_settings
from tests.ports import free_port, free_ports

# Also for the processes that tests start: they outnumber the cores, and idle threads spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

gc.disable()  # until all tests are collected: a third of that time

_READY = re.compile(r"GAMMA is ready on (\S+)")
_START_TIMEOUT = 200  # s
_FINAL_TIMEOUT = 200  # s


_SLOW_FOLDERS = ("attacks/", "browser/", "faults/", "training/fitting/")
_SHIPPED_SERVICE = {
    "tests/app/test_concurrency.py",
    "tests/app/test_detections.py",
    "tests/docs/test_readme.py",
}
_SLOW_FIXTURES = {"shipped_service", "small_model"}  # a whole service is started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, or needs a browser, by where it is and what it asks for.

    Files with slow tests come first: a long one at the end would keep one process busy alone.
    """
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        if path.startswith(_SLOW_FOLDERS) or _SLOW_FIXTURES.intersection(item.fixturenames):
            item.add_marker("slow")
        if path.startswith("browser/"):
            item.add_marker("browser")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return _Scheduler(config, log)


class _Scheduler(LoadFileScheduling):
    """Gives the files that share `shipped_service` to one process, which starts it once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "shipped_service" if file in _SHIPPED_SERVICE else file


def require_program(*names: str) -> str:
    """Path of the first program found; without any, skip the test, or fail it on CI."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing = f"{' or '.join(names)} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing}, and tests may not be skipped on CI")
        pytest.skip(missing)
    return found


def photo(width: int = 512, height: int = 512, seed: int = 0) -> Image.Image:
    """A smooth random scene with some grain: compresses like a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 6, scene.shape)
    return Image.fromarray(np.clip(scene + grain, 0, 255).astype(np.uint8))


def encode(picture: Image.Image, image_format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, image_format, **options)
    return stream.getvalue()


def value(metrics: str, name: str, default: float | None = None) -> float:
    """Value of a sample in a metrics exposition, by its name with labels."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    if found is None:
        assert default is not None, f"{name} is not exposed"
        return default
    return float(found.group(1))


class Serve:
    """A `gamma serve` process."""

    def __init__(
        self, data_dir: Path, *arguments: str, forked: bool = True, **environment: str
    ) -> None:
        """Start it, forked with its children or, where the processes count, as new ones."""
        self.data_dir = data_dir
        self.metrics_port = free_ports(3)  # API, worker, webhooks
        self.log = ""
        self.url = ""
        command = [
            *("serve", "--port", str(free_port()), "--data-dir", str(data_dir)),
            *("--metrics-port", str(self.metrics_port), *arguments),
        ]
        complete = {**without_settings(), **environment}
        folder = data_dir.parent
        self._output = folder / f"output-{self.metrics_port}"
        os.mkfifo(self._output)
        self._lines = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.process: Forked | subprocess.Popen[bytes]
        if forked:
            self.process = Forked(command, complete, self._output, self._output, cwd=folder)
            return
        with self._output.open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", *command],
                env=complete,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _read(self) -> None:
        with self._output.open() as output:
            for line in output:
                self.log += line
                found = _READY.search(line)
                if found:
                    self.url = found.group(1)
                    self._lines.set()
        self._lines.set()

    def child(self, name: str) -> psutil.Process:
        """One of its processes: `api`, `worker` or `webhooks`."""
        children = psutil.Process(self.process.pid).children()
        (found,) = (one for one in children if name in (one.name(), one.cmdline()[-1]))
        return found

    def wait_until_ready(self) -> Serve:
        self._lines.wait(_START_TIMEOUT)
        assert self.url, f"not ready:\n{self.log}"
        return self

    def client(self) -> httpx2.Client:
        # Loading the certificates of authorities, which HTTP does not use, takes 40 ms.
        return httpx2.Client(base_url=self.url, timeout=70, verify=False)

    def metrics(self, which: int = 0) -> str:
        """Metrics of the API (0) or of the worker (1)."""
        url = f"http://127.0.0.1:{self.metrics_port + which}/metrics"
        return httpx2.get(url, timeout=60, verify=False).text

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal (0: none), wait for the end and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(10)
        return code


def wait_until_final(client: httpx2.Client, detection_id: str) -> dict:
    """Wait until a detection is final; returns its record."""
    deadline = time.monotonic() + _FINAL_TIMEOUT
    while True:
        record = client.get(f"/v1/detections/{detection_id}").json()
        if record["status"] not in ("queued", "processing"):
            return record
        assert time.monotonic() < deadline, record
        time.sleep(0.1)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a small network: a service with it is ready in a few seconds."""
    from tests.towers import small_checkpoint  # not above: it imports torch

    return small_checkpoint(tmp_path_factory.mktemp("small") / "model")


def _served(data_dir: Path, **environment: str) -> Iterator[Serve]:
    running = Serve(data_dir, **environment)
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Serve]:
    """The whole service with a small network, shared by the tests that do not disturb it."""
    folder = tmp_path_factory.mktemp("service")
    yield from _served(folder / "data", GAMMA_CHECKPOINT=str(small_model))


@pytest.fixture(scope="session")
def shipped_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """The same with the checkpoint that ships: what depends on its speed, size or answers."""
    yield from _served(tmp_path_factory.mktemp("shipped") / "data")


@pytest.fixture
def client(service: Serve) -> Iterator[httpx2.Client]:
    with service.client() as connected:
        yield connected


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[BucketServer]:
    """An S3 server on loopback, configured in the environment of this process."""
    with BucketServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, setting in server.environment.items():
            patch.setenv(name, setting)
        yield server


@pytest.fixture
def bucket(bucket_server: BucketServer) -> Iterator[Bucket]:
    """An empty bucket; the link to it is open again after the test."""
    yield Bucket(bucket_server)
    bucket_server.link.open()
