from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.command.embedded import private_redis
from tests.faults.stack import Stack, opened


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis"), 2**28) as (url, _):
        yield url


@pytest.fixture
def stack(redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    with opened(redis_url, tmp_path) as built:
        built.redis.flushall()
        yield built
