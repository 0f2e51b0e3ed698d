"""Decoder processes: results, resource limits, sandbox and recovery from crashes."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pictures.channel import Channel
from pictures.decoders import Decoders
from pictures.decoding import decode
from pictures.errors import (
    DecodingAbortedError,
    PictureError,
    TooElongatedError,
    TooManyPixelsError,
    TruncatedPictureError,
    UndecodablePictureError,
    UnsupportedFormatError,
)
from pictures.sandbox import landlock_version
from tests.pictures.bombs import BOMBS, MIB
from tests.samples import encoded, every_format, quarters

LIMIT = 4_000_000
MOST_MEMORY = 500  # MiB of a decoder, including its libraries and a file of 50 MB
MOST_SECONDS = 10  # CPU time of a decoder
GOOD = every_format()["PNG"]


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with contextlib.closing(Decoders(1, max_pixels=LIMIT)) as made:
        yield made


def process_of(decoders: Decoders) -> psutil.Process:
    """The only decoder of a new pool, once it is ready."""
    decoders.decode(GOOD)
    # Other tests in this process may have left pools.
    return max(psutil.Process().children(), key=lambda child: child.create_time())


@pytest.mark.parametrize("name", every_format())
def test_results_equal_decoding_in_process(decoders: Decoders, name: str) -> None:
    data = every_format()[name]
    pixels = decoders.decode(data)
    assert (pixels == decode(data, max_pixels=LIMIT)).all()
    assert pixels.flags.writeable
    with Image.open(io.BytesIO(decoders.preview(data, 24))) as preview:
        assert (preview.format, preview.mode, max(preview.size)) == ("JPEG", "RGB", 24)


def test_pixels_are_not_overwritten_by_the_next_picture(decoders: Decoders) -> None:
    first = decoders.decode(encoded(Image.new("RGB", (50, 40), "red"), "PNG"))
    decoders.decode(encoded(Image.new("RGB", (50, 40), "blue"), "PNG"))
    assert (first == (255, 0, 0)).all()


def test_picture_larger_than_the_memory_kept() -> None:
    with contextlib.closing(Decoders(1, max_pixels=10**8)) as decoders:
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
        large = Image.fromarray(noise).resize((6000, 4000), Image.Resampling.NEAREST)
        data = encoded(large, "PNG", compress_level=1)
        for _ in range(2):
            assert (decoders.decode(data) == np.asarray(large)).all()
        assert (decoders.decode(GOOD) == decode(GOOD, max_pixels=LIMIT)).all()


def test_errors_keep_their_class_and_message(decoders: Decoders) -> None:
    before = process_of(decoders).pid
    data = every_format()["PNG"]
    for broken, kind in (
        (b"no picture", UnsupportedFormatError),
        (data[: len(data) // 2], TruncatedPictureError),
        (data[:-80] + bytes(40) + data[-40:], UndecodablePictureError),
        (encoded(Image.new("1", (3000, 3000)), "PNG"), TooManyPixelsError),
        (encoded(Image.new("1", (3000, 10)), "PNG"), TooElongatedError),
    ):
        with pytest.raises(kind) as there:
            decoders.decode(broken)
        with pytest.raises(kind) as here:
            decode(broken, max_pixels=LIMIT)
        assert str(there.value) == str(here.value)
    assert process_of(decoders).pid == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bombs_stay_within_limits() -> None:
    """A good picture can be decoded right after each."""
    with contextlib.closing(Decoders(1, max_pixels=LIMIT)) as decoders:
        for name, make in BOMBS.items():
            data = make()
            child = process_of(decoders)
            used = sum(child.cpu_times()[:2])
            peak = _Peak(child)
            with contextlib.suppress(PictureError), peak:
                decoders.decode(data)
            assert peak.memory < MOST_MEMORY, (name, peak.memory)
            assert peak.seconds - used < MOST_SECONDS, (name, peak.seconds - used)
            del data
            assert (decoders.decode(GOOD) == decode(GOOD, max_pixels=LIMIT)).all(), name


class _Peak:
    """Peak memory (MiB) and CPU time (s) of a process within the context."""

    def __init__(self, process: psutil.Process) -> None:
        self.memory = self.seconds = 0.0
        self._process = process
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not self._over.wait(0.01):
                memory = self._process.memory_info()
                self.memory = max(self.memory, memory.rss / MIB)
                self.seconds = sum(self._process.cpu_times()[:2])

    def __enter__(self) -> None:
        self._watch.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_crash_of_a_decoder_fails_only_its_picture(
    decoders: Decoders, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = process_of(decoders)
    asked = threading.Event()
    receive = Channel.receive

    def receive_later(channel: Channel) -> dict[str, Any]:
        asked.set()
        return receive(channel)

    monkeypatch.setattr(Channel, "receive", receive_later)
    os.kill(child.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as threads:
        victim = threads.submit(decoders.decode, GOOD)
        assert asked.wait(60)
        following = threads.submit(decoders.decode, GOOD)
        os.kill(child.pid, number)
        os.kill(child.pid, signal.SIGCONT)
        with pytest.raises(DecodingAbortedError):
            victim.result()
        assert following.result().shape == (48, 64, 3)
    assert process_of(decoders).pid != child.pid


def test_decoder_that_crashed_while_idle_is_replaced(decoders: Decoders) -> None:
    child = process_of(decoders)
    child.kill()
    child.wait()
    assert decoders.decode(GOOD).shape == (48, 64, 3)


def test_decoder_that_hangs_is_killed(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    child = process_of(decoders)
    monkeypatch.setattr("pictures.limits._WAIT_SECONDS", -15.5)
    child.suspend()
    with pytest.raises(DecodingAbortedError):
        decoders.decode(GOOD)
    assert not psutil.pid_exists(child.pid)
    monkeypatch.undo()
    assert decoders.decode(GOOD).shape == (48, 64, 3)


def test_decoder_inherits_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAMMA_API_KEYS", "caller=canary")
    secret = os.open(tmp_path / "secret", os.O_CREAT)
    os.set_inheritable(secret, True)
    with contextlib.closing(Decoders(1, max_pixels=LIMIT)) as decoders:
        child = process_of(decoders)
        assert set(child.environ()) == {
            "PYTHONPATH",
            "LC_ALL",
            "MALLOC_ARENA_MAX",
            "MALLOC_MMAP_THRESHOLD_",
            "MALLOC_TRIM_THRESHOLD_",
            "OPENBLAS_NUM_THREADS",
        }
        assert "canary" not in str([*child.environ().values(), *child.cmdline()])
        assert [file.path for file in child.open_files()] == [f"/proc/{child.pid}/statm"]
        assert child.net_connections() == []
        assert child.cwd() == "/"
    os.close(secret)


@pytest.mark.skipif(landlock_version() < 4, reason="needs a kernel with Landlock 4")
def test_sandbox_forbids_files_processes_and_network(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempts = (
            f"open({str(tmp_path / 'secret')!r})",
            f"open({str(tmp_path / 'new')!r}, 'w')",
            "open(f'/proc/{os.getppid()}/environ')",
            "os.listdir('/')",
            "os.execv('/bin/true', ['true'])",
            f"socket.create_connection({server.getsockname()!r}, 1)",
        )
        program = "import os, socket\nfrom pictures.sandbox import enter_sandbox\nenter_sandbox()\n"
        for attempt in attempts:
            program += f"try:\n    {attempt}\nexcept PermissionError:\n    os.write(1, b'no ')\n"
        answer = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, timeout=60
        )
    assert answer.stdout.split() == [b"no"] * len(attempts)


def test_decoder_ends_when_its_parent_is_killed() -> None:
    program = (
        "import time, psutil\nfrom pictures.decoders import Decoders\n"
        "decoders = Decoders(1, max_pixels=100)\n"
        "print(psutil.Process().children()[0].pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        child.wait(60)


def test_close_leaves_no_process(decoders: Decoders) -> None:
    child = process_of(decoders)
    decoders.close()
    assert not psutil.pid_exists(child.pid)


def test_threads_share_decoders() -> None:
    files = [encoded(quarters(8 * n, 6 * n), "PNG") for n in range(2, 22)]
    before = len(psutil.Process().children())
    with (
        contextlib.closing(Decoders(2, max_pixels=LIMIT)) as decoders,
        ThreadPoolExecutor(8) as threads,
    ):
        shapes = [pixels.shape for pixels in threads.map(decoders.decode, files)]
        assert len(psutil.Process().children()) == before + 2
    assert shapes == [(6 * n, 8 * n, 3) for n in range(2, 22)]


def test_decoder_with_an_invalid_answer_is_killed(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = process_of(decoders)
    for answer in (
        {"size": 10},
        {"size": -1},
        {"size": 2**60},
        {"size": "all"},
        {"error": "SystemExit", "detail": ""},
        {"error": ["PictureError"], "detail": ""},
        {},
    ):
        with monkeypatch.context() as patched:
            patched.setattr("pictures.channel.Channel.receive", lambda _, answer=answer: answer)
            with pytest.raises(DecodingAbortedError):
                decoders.decode(GOOD)
        assert decoders.decode(GOOD).shape == (48, 64, 3)
    assert not psutil.pid_exists(child.pid)
