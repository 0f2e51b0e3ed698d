"""A worker processes every bomb that the API accepts, and good pictures between them.

It runs with the memory limit of its container; its network computes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.command.embedded import private_redis
from app.contract.schemas import ErrorCode, Status
from app.contract.settings import Settings
from app.http.pictures import inspect
from app.http.problems import ServiceError
from tests.attacks.corpus import PICTURES
from tests.attacks.memory import forget_peak, limit_memory, peak_memory
from tests.conftest import encode, photo
from tests.faults.stack import Stack, opened

MOST_GROWTH = 512 * 2**20
"""Bytes of the worker's own process: up to 192 MiB of files fetched ahead, and copies of them."""
OUTCOMES = {  # of a bomb; None: it is decoded
    None,
    ErrorCode.IMAGE_TRUNCATED,
    ErrorCode.IMAGE_UNDECODABLE,
    ErrorCode.DECODING_ABORTED,
}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with private_redis(tmp_path / "redis", 2**34) as (url, _), opened(url, tmp_path) as built:
        yield built


def accepted() -> dict[str, bytes]:
    """The bombs that the API accepts because their headers are valid."""
    found = {}
    for name, make in PICTURES.items():
        data = make()
        with contextlib.suppress(ServiceError):
            inspect(data, Settings().max_pixels)
            found[name] = data
    return found


@pytest.mark.timeout(600)
def test_bombs_do_not_affect_other_pictures(stack: Stack) -> None:
    bombs = accepted()
    good = [encode(photo(64, 64, number)) for number in range(len(bombs))]
    options = stack.worker(decoders=2)
    stack.wait(stack.store.workers.live)
    worker = psutil.Process(stack.process(options).pid)
    for process in (worker, *worker.children()):  # decoders started later inherit the limit
        limit_memory(process, "worker")
    before = worker.memory_info().rss
    forget_peak(worker)

    pairs = zip(bombs.values(), good, strict=True)
    names = stack.submit(*itertools.chain.from_iterable(pairs))
    stack.wait(
        lambda: (
            not stack.process(options).is_alive()
            or all(stack.record(name).status.finished for name in names)
        )
    )
    assert stack.process(options).is_alive(), stack.process(options).exitcode
    growth = peak_memory(worker) - before
    assert growth < MOST_GROWTH, f"{growth / 2**20:.0f} MiB"
    assert stack.end(options) == 0

    records = [stack.record(name) for name in names]
    assert {record.status for record in records[1::2]} == {Status.SUCCEEDED}
    codes = {
        name: record.error and record.error.code
        for name, record in zip(bombs, records[::2], strict=True)
    }
    assert set(codes.values()) <= OUTCOMES, codes
    assert ErrorCode.DECODING_ABORTED in codes.values(), codes
    assert stack.count(options) == len(names)  # all by this process at the first attempt
    assert stack.results(names) == {1: len(names)}
    assert stack.retries_left(names) == {2}
    stack.assert_queue_empty()
    print(f"\n{len(bombs)} bombs: {Counter(codes.values())}; grew by {growth / 2**20:.0f} MiB")
