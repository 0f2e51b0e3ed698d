"""Uploads of folders."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gamma_client import (
    AsyncClient,
    Client,
    DeletedError,
    DetectionFailedError,
    ServiceError,
    files,
    find_pictures,
)
from gamma_client._sync.runtime import Together

from pictures.finding import SUFFIXES
from tests.clients.conftest import ADDRESS, Run, problem, record


class Folder:
    """A service that ends the detections it is asked for, oldest first; `refuses` some pictures."""

    def __init__(self, refuses: Callable[[bytes], httpx2.Response | None] = lambda _: None) -> None:
        self.refuses = refuses
        self.by_key: dict[str, str] = {}
        self.uploads: Counter[str] = Counter()
        self.waiting: list[str] = []
        self.most = 0
        self.numbers = cycle([0, 100, 2])  # of detections that end until the next question
        self.ends: dict[str, str] = {}
        self.deleted: set[str] = set()
        self._guard = threading.Lock()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        with self._guard:
            if request.method == "POST":
                return self.upload(request)
            if "ids" not in request.url.params:  # holds until one has ended
                return httpx2.Response(200, json=record("queued"))
            number = min(next(self.numbers), len(self.waiting))
            ended = [self.waiting.pop(0) for _ in range(number)]
            names = request.url.params["ids"].split(",")
            found = [
                record(self.ends.get(name, "succeeded") if name in ended else "queued", id=name)
                for name in names
                if name not in self.deleted
            ]
            missing = [name for name in names if name in self.deleted]
            return httpx2.Response(200, json={"detections": found, "missing": missing})

    def upload(self, request: httpx2.Request) -> httpx2.Response:
        refusal = self.refuses(request.content)
        if refusal is not None:
            return refusal
        key = request.headers["Idempotency-Key"]
        name = self.by_key.setdefault(key, f"d{len(self.by_key)}")
        self.uploads[name] += 1
        self.waiting.append(name)
        self.most = max(self.most, len(self.waiting))
        return httpx2.Response(202, json=record("queued", id=name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "inner").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "inner/c.webp"):
        (root / name).write_bytes(name.encode())
    return root


def names(folder: Path, found: Any) -> list[str]:
    return [os.fspath(path.relative_to(folder)) for path in found]


def test_pictures_are_found_by_their_names(folder: Path) -> None:
    odd = ["фото 1.png", "-n.png", "a\nb.png", "%2e%2e.png", "\udcff.png", "'; x.png", "x.PnG"]
    for name in [*odd, "notes.txt", "no suffix", ".hidden.png", "png", ".png"]:
        (folder / name).write_bytes(b"1")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "t.png").write_bytes(b"1")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop").symlink_to(folder)
    (folder / "broken.png").symlink_to("nowhere.png")
    (folder / "link.png").symlink_to("b.png")
    found = names(folder, find_pictures(folder))
    assert found == [*sorted(["a.JPG", "b.png", *odd, "link.png"]), "inner/c.webp"]


def test_an_unreadable_folder_is_not_left_out_silently(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(find_pictures(tmp_path / "missing"))


def test_the_suffixes_are_those_of_the_command() -> None:
    assert files.SUFFIXES == SUFFIXES


def test_names_are_read_a_folder_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = []
    scandir = os.scandir

    def spy(path: str) -> Any:
        scanned.append(os.path.basename(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", spy)
    found = find_pictures(folder)
    next(found)
    assert scanned == ["pictures"]


def test_keys_differ_unless_all_is_equal(folder: Path) -> None:
    (folder / "d.png").write_bytes(b"b.png")
    (folder / "e").mkdir()
    paths = [folder / "b.png", folder / "d.png", folder / "a.JPG"]
    plain = files.Options()
    options = [plain, files.Options(view="2"), files.Options(frames=2)]
    variants = [
        *((path, folder, run, given) for path in paths for run in ("", "2") for given in options),
        (folder / "inner/c.webp", folder, "", plain),
        (folder / "inner/c.webp", folder / "inner", "", plain),
    ]
    keys = [files.key_of(*one) for one in variants]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch("[!-~]{16,64}", key) for key in keys)
    before = files.key_of(folder / "b.png", folder, "", plain)
    assert before == keys[0]
    (folder / "b.png").write_bytes(b"other")
    assert files.key_of(folder / "b.png", folder, "", plain) != before


@pytest.mark.parametrize(("uploads", "waiting"), [(8, 100), (1, 1), (3, 2), (2, 3)])
def test_all_pictures_come_through_with_few_at_once(
    run: Run, pauses: list[float], folder: Path, uploads: int, waiting: int
) -> None:
    for number in range(20):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    service = Folder()
    reports = []

    def note(progress: Any) -> None:
        reports.append(progress)

    outcomes = run(
        service,
        lambda client: client.detect_folder(
            folder, uploads=uploads, waiting=waiting, progress=note
        ),
    )
    assert {outcome.path for outcome in outcomes} == set(find_pictures(folder))
    assert len(outcomes) == 23
    assert all(outcome.detection.status == "succeeded" for outcome in outcomes)
    assert set(service.uploads.values()) == {1}
    assert service.most <= waiting
    numbers = [(report.accepted, report.finished) for report in reports]
    assert numbers == sorted(numbers)
    assert numbers[-1] == (23, 23)
    assert {report.total for report in reports} == {23}


def test_each_file_has_an_outcome(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "locked.png").write_bytes(b"locked")
    (folder / "loop.png").symlink_to("b.png")
    (folder / "text.png").write_bytes(b"no picture")

    def refuses(body: bytes) -> httpx2.Response | None:
        if b"no picture" in body:
            return httpx2.Response(415, json=problem(415, "not_an_image"))
        if b"a.JPG" in body:  # a repeated upload of a picture that could not be decoded
            link = "/v1/detections/x"
            return httpx2.Response(500, json=problem(500, "processing_failed", detection=link))
        return None

    service = Folder(refuses)
    progress = []

    def note(count: Any) -> None:
        progress.append((count.succeeded, count.failed))

    def unlocked(path: Path, *mode: str) -> Any:
        if path.name == "locked.png":  # root may read any file
            raise PermissionError("locked")
        return opened(path, *mode)

    opened = Path.open
    monkeypatch.setattr(Path, "open", unlocked)
    service.ends = {"d1": "failed"}
    service.deleted = {"d0"}
    outcomes = run(service, lambda client: client.detect_folder(folder, uploads=1, progress=note))
    found = {outcome.path.name: outcome for outcome in outcomes}
    assert found["a.JPG"].error.code == "processing_failed"
    assert found["text.png"].error.code == "not_an_image"
    assert isinstance(found["b.png"].error, DeletedError)
    assert isinstance(found["locked.png"].error, PermissionError)
    assert isinstance(found["loop.png"].error, DetectionFailedError)
    assert found["loop.png"].detection.status == "failed"
    assert found["c.webp"].error is None
    assert found["c.webp"].result().status == "succeeded"
    with pytest.raises(DetectionFailedError):
        found["loop.png"].result()
    assert progress[-1] == (1, 5)


@pytest.mark.parametrize(
    ("status", "code"), [(403, "key_invalid"), (422, "view_refused"), (400, "malformed_request")]
)
def test_a_refusal_of_everything_ends_the_run(
    run: Run, folder: Path, status: int, code: str
) -> None:
    service = Folder(lambda _: httpx2.Response(status, json=problem(status, code)))
    with pytest.raises(ServiceError) as refused:
        run(service, lambda client: client.detect_folder(folder))
    assert refused.value.code == code


@pytest.mark.parametrize("limits", [{"waiting": 0}, {"waiting": 101}, {"uploads": 0}])
def test_numbers_at_once_have_limits(run: Run, folder: Path, limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        run(Folder(), lambda client: client.detect_folder(folder, **limits))


def test_an_interrupted_run_is_resumed(folder: Path, pauses: list[float]) -> None:
    service = Folder()
    http = httpx2.Client(transport=httpx2.MockTransport(service))
    with Client(ADDRESS, http=http) as client:
        for _ in client.detect_folder(folder, uploads=1):
            break
        assert 0 < len(service.by_key) < 3
        outcomes = list(client.detect_folder(folder))
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert len(service.by_key) == 3
        done = {outcome.path for outcome in outcomes[:2]}
        progress = []
        (left,) = client.detect_folder(folder, run="2", skip=done, progress=progress.append)
        assert left.path == outcomes[2].path
        assert progress[-1].total == 1
        assert len(service.by_key) == 4


def test_a_cancelled_run_leaves_no_upload(folder: Path) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), []

        async def handler(request: httpx2.Request) -> httpx2.Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(request)
            raise AssertionError

        async def follow() -> None:
            async for _ in client.detect_folder(folder):
                pass

        http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
        async with AsyncClient(ADDRESS, http=http) as client:
            task = asyncio.create_task(follow())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert ended

    asyncio.run(main())


def test_an_interrupted_program_does_not_wait_for_uploads() -> None:
    released, ended = threading.Event(), threading.Event()
    waited = []

    def upload(_: int) -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        waited.append(released.wait(30))
        ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), Together(1) as together:
            together.map(upload, [1, 2])
    finally:
        signal.signal(signal.SIGINT, before)
        released.set()
    assert ended.wait(30)
    assert waited == [True]
