"""The database of reviews: connections, time limits and migrations.

A database that is down or does not answer must not affect detections. Its calls therefore run in
threads of their own, a few at a time, and each ends within `TIMEOUT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from app.contract.settings import Settings
from app.reviews.metrics import DATABASE_ERRORS, DATABASE_UP

TIMEOUT = 2.4
"""Maximum duration of a call in seconds, with the wait for a free thread."""

_BUDGET = 2.2  # s, until the last statement of a call ends, so that none does after its timeout
_STATEMENT_TIMEOUT = 1500  # ms, in the server, so that it also stops working
_IDLE_TIMEOUT = 5000  # ms; ends the transaction of a process that hangs, with its locks
_CONNECT_TIMEOUT = 2  # s; libpq's minimum
_CONNECTIONS = 4  # per process; each has its thread
_FIRST_ATTEMPT = 5.0  # s; start-up does not wait longer
_RETRY_PAUSE = 2.0  # s, between attempts to migrate
_PROBE_PAUSE = 15.0  # s, between questions whether it is up again
_MIGRATION_LOCK = 0x67616D6D61  # any number that no other program of the database uses
_SQLITE = "sqlite"

T = TypeVar("T")

log = structlog.get_logger()
_thread = threading.local()


class ReviewsUnavailableError(Exception):
    """The database is down, did not answer in time, or refused a statement."""


class DatabaseUrlError(ValueError):
    """`GAMMA_DATABASE_URL` is invalid; the message does not contain it."""


class _Connection(psycopg.Connection[Any]):
    """A connection to PostgreSQL that gives up when the time of the call is used up."""

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """As psycopg's; a connection without an answer is closed.

        Raises:
            psycopg.OperationalError: If the server did not answer in time.
        """
        ends = getattr(_thread, "ends", None)
        if ends is None:  # a migration
            return super().wait(gen, *args, **options)
        left = max(0.001, ends - time.monotonic())
        try:
            return super().wait(gen, *args, **{**options, "timeout": left})
        except psycopg.errors._WaitTimeout:
            self.pgconn.finish()
            raise psycopg.OperationalError("the server did not answer in time") from None


class Database:
    """Runs functions on connections, in threads."""

    def __init__(self, settings: Settings) -> None:
        self.url = database_url(settings)
        self._engine = _engine(self.url)
        self._threads = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="reviews")
        self._tried, self._migrated, self._down = (asyncio.Event() for _ in range(3))

    @property
    def place(self) -> str:
        """Where the database is, without user and password."""
        if self.url.get_backend_name() == _SQLITE:
            return f"SQLite {self.url.database}"
        host = self.url.host or self.url.query.get("host", "localhost")
        return f"PostgreSQL {host}/{self.url.database}"

    async def call(self, work: Callable[[Connection], T]) -> T:
        """Run a function in a transaction, without blocking the event loop.

        Args:
            work: called in a thread; the transaction is committed when it returns.

        Raises:
            ReviewsUnavailableError: If the database is unavailable; the transaction may have been
                committed all the same.
            IntegrityError: If the transaction violates a constraint; it is rolled back.
        """
        ends = time.monotonic() + _BUDGET
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._migrated.wait()
                result = await self._in_thread(partial(self._run, work, ends))
        except TimeoutError:
            raise self._failed(f"no answer within {TIMEOUT} s") from None
        except (SQLAlchemyError, OSError) as error:
            if isinstance(error, IntegrityError):
                raise
            raise self._failed(self.described(error)) from None
        DATABASE_UP.set(1)
        self._down.clear()
        return result

    async def compact(self) -> None:
        """Remove overwritten data from SQLite's log, where it would stay readable.

        Raises:
            ReviewsUnavailableError: If the database is unavailable.
        """
        if self.url.get_backend_name() == _SQLITE:
            await self.call(_truncate_log)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Migrate and watch the database in the background; close connections at the end.

        Waits for the first attempt to migrate, but not long.
        """
        task = asyncio.create_task(self._watch())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_ATTEMPT):
                    await self._tried.wait()
            yield
        finally:
            task.cancel()
            self.close()

    def close(self) -> None:
        """Close all connections, without waiting for calls in progress."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    def migrate(self) -> None:
        """Create or upgrade the tables; several processes may do so at the same time.

        Raises:
            SQLAlchemyError: If the database is unavailable.
            OSError: If the file of SQLite cannot be created.
        """
        from app.reviews.migrations import upgrade  # not above: Alembic loads slowly

        if self.url.database and self.url.get_backend_name() == _SQLITE:
            _create_file(Path(self.url.database))
        with self._engine.begin() as connection:
            if connection.dialect.name == _SQLITE:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            upgrade(connection)

    def is_current(self) -> bool:
        """Whether the tables exist in the newest version.

        Raises:
            SQLAlchemyError: If the database is unavailable.
        """
        from app.reviews.migrations import is_current  # not above: Alembic loads slowly

        return self._run(is_current, time.monotonic() + _BUDGET)

    async def _watch(self) -> None:
        """Migrate until it succeeds; then, after each failed call, ask until there is an answer."""
        logged = None
        while not self._migrated.is_set():
            try:
                await self._in_thread(self.migrate)
            except (SQLAlchemyError, OSError) as error:
                reason = self.described(error)
                if reason != logged:
                    self._failed(reason)
                logged = reason
                self._tried.set()
                await asyncio.sleep(_RETRY_PAUSE)
            else:
                self._migrated.set()
                self._tried.set()
                DATABASE_UP.set(1)
        while True:
            await self._down.wait()
            await asyncio.sleep(_PROBE_PAUSE)
            with contextlib.suppress(ReviewsUnavailableError):
                await self.call(lambda connection: connection.execute(select(1)))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        context = copy_context()  # ids of the request, for the log
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)

    def _run(self, work: Callable[[Connection], T], ends: float) -> T:
        if time.monotonic() >= ends:
            raise TimeoutError  # it has waited too long for a thread
        _thread.ends = ends
        try:
            with self._engine.begin() as connection:
                return work(connection)
        finally:
            _thread.ends = None

    def _failed(self, reason: str) -> ReviewsUnavailableError:
        DATABASE_ERRORS.inc()
        DATABASE_UP.set(0)
        self._down.set()
        log.error("reviews_unavailable", error=reason)
        return ReviewsUnavailableError(reason)

    def described(self, error: Exception) -> str:
        """First line of an error, without the password."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        line = (str(cause).splitlines() or [""])[0]
        hidden = line.replace(self.url.password, "***") if self.url.password else line
        return f"{type(cause).__name__}: {hidden}"


def database_url(settings: Settings) -> URL:
    """URL of the database that the settings describe.

    Raises:
        DatabaseUrlError: If `GAMMA_DATABASE_URL` is invalid.
    """
    if settings.database_url is None:
        return URL.create(_SQLITE, database=str(settings.data_dir.resolve() / "reviews.db"))
    try:
        url = make_url(settings.database_url.get_secret_value())
    except (SQLAlchemyError, ValueError):
        raise DatabaseUrlError("GAMMA_DATABASE_URL is not a valid URL") from None
    return url.set(drivername="postgresql+psycopg")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == _SQLITE:
        engine = create_engine(
            url, pool_size=_CONNECTIONS, connect_args={"timeout": _STATEMENT_TIMEOUT / 1000}
        )
        event.listen(engine, "connect", _set_up_sqlite)
        return engine
    limits = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "tcp_user_timeout": _IDLE_TIMEOUT,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "application_name": "gamma",
        "options": f"-c statement_timeout={_STATEMENT_TIMEOUT} -c lock_timeout={_STATEMENT_TIMEOUT}"
        f" -c idle_in_transaction_session_timeout={_IDLE_TIMEOUT}",
    }
    engine = create_engine(url, pool_size=_CONNECTIONS, max_overflow=0, pool_pre_ping=True)

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, args: Any, given: dict[str, Any]) -> _Connection:
        return _Connection.connect(*args, **{**limits, **given})

    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power failure
    connection.execute("PRAGMA secure_delete = ON")  # erased notes are overwritten


def _truncate_log(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _create_file(path: Path) -> None:
    """Create the file of SQLite, which only its owner may read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
