"""Both databases of reviews."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from app.contract.settings import Settings
from app.reviews.database import Database
from tests.postgres import Postgres

T = TypeVar("T")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with contextlib.closing(Postgres()) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an empty database."""
    if request.param == "sqlite":
        return Settings(data_dir=tmp_path / "data")
    server: Postgres = request.getfixturevalue("postgres")
    return Settings(database_url=server.new_database("reviews"))


def with_database(settings: Settings, use: Callable[[Database], Awaitable[T]]) -> T:
    """Run a coroutine with a database that is ready."""

    async def run() -> T:
        database = Database(settings)
        await asyncio.to_thread(database.migrate)  # takes longer than a call on a busy machine
        async with database.running():
            return await use(database)

    return asyncio.run(run())
