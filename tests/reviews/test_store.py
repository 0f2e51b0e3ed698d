"""Reviews and assignments on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, insert, inspect, select, update

from app.command.doctor import storage
from app.command.doctor.findings import State
from app.contract.reviews import Decision, Facts, NewReview
from app.contract.settings import Settings
from app.reviews.assignments import Assignments, TakenError
from app.reviews.database import Database, ReviewsUnavailableError
from app.reviews.migrations import configuration
from app.reviews.reviewer import Reviewer
from app.reviews.store import ConflictError, Filter, Reviews
from app.reviews.tables import assignments, metadata, reviews
from pictures.findings import Thresholds, Verdict
from tests.ports import free_port
from tests.reviews.conftest import with_database

ANNA, BEN = Reviewer("news", "anna", "Anna"), Reviewer("news", "ben")
FACTS = Facts(
    sha256="ab" * 32,
    ai_probability=0.7,
    verdict=Verdict.AI_GENERATED,
    manipulated=False,
    thresholds=Thresholds(uncertain=0.4, ai_generated=0.6, mask=0.5, manipulated_area=0.01),
)


def review(decision: Decision = Decision.AI, note: str = "") -> NewReview:
    return NewReview(decision=decision, note=note)


# -- tables ---------------------------------------------------------------------------------------


def test_migrations_make_the_tables_of_the_code(settings: Settings) -> None:
    async def use(database: Database) -> None:
        def check(connection: Connection) -> None:
            command.check(configuration(connection))  # raises if they differ
            names = set(inspect(connection).get_table_names())
            assert names == {*metadata.tables, "alembic_version"}

        await database.call(check)

    with_database(settings, use)


def test_migrations_can_be_taken_back(settings: Settings) -> None:
    async def use(database: Database) -> None:
        await database.call(lambda connection: command.downgrade(configuration(connection), "base"))
        names = await database.call(lambda connection: inspect(connection).get_table_names())
        assert names == ["alembic_version"]

    with_database(settings, use)


def test_several_processes_migrate_at_the_same_time(settings: Settings) -> None:
    async def run() -> None:
        databases = [Database(settings) for _ in range(4)]
        await asyncio.gather(*(asyncio.to_thread(one.migrate) for one in databases))
        async with databases[0].running():
            assert await Reviews(databases[0]).history("news", "a") == []
        for database in databases[1:]:
            database.close()

    asyncio.run(run())


def test_doctor_knows_the_state_of_the_tables(settings: Settings) -> None:
    assert "created by the API" in _doctor(settings) or "creates or upgrades" in _doctor(settings)
    with_database(settings, lambda database: Reviews(database).history("news", "a"))
    assert "tables are current" in _doctor(settings)


def _doctor(settings: Settings) -> str:
    (finding,) = storage.reviews(settings)
    assert finding.state is State.OK
    return finding.found


def test_doctor_finds_wrong_databases_and_hides_passwords(tmp_path: Path) -> None:
    secret = "the-password"
    for url, told in (
        (f"postgresql://gamma:{secret}@127.0.0.1:{free_port()}/gamma", "PostgreSQL 127.0.0.1"),
        (f"postgresql://gamma:{secret}@127.0.0.1:{secret}/gamma", "not a valid URL"),
    ):
        (finding,) = storage.reviews(Settings(database_url=url))
        assert finding.state is State.WRONG
        assert told in finding.found
        assert secret not in repr(finding)
    (tmp_path / "reviews.db").write_text("no database")
    (finding,) = storage.reviews(Settings(data_dir=tmp_path))
    assert "file is not a database" in finding.found


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new" / "data")
    with_database(settings, lambda database: Reviews(database).history("news", "a"))
    files = list(settings.data_dir.glob("reviews.db*"))
    assert files
    assert all(stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 for file in files)


# -- reviews --------------------------------------------------------------------------------------


def test_a_review_is_read_as_it_was_written(settings: Settings) -> None:
    async def use(database: Database) -> None:
        store = Reviews(database)
        note = "ñ “quoted” 🖼\n\tline"
        results = await store.append(ANNA, {"a": FACTS}, review(note=note))
        (kept,) = await store.history("news", "a")
        assert kept == results["a"].review
        assert (kept.note, kept.thresholds) == (note, FACTS.thresholds)
        assert kept.created_at.tzinfo is not None
        assert abs(kept.created_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert await store.history("sports", "a") == []

    with_database(settings, use)


def test_concurrent_reviewers_of_several_processes_lose_nothing(settings: Settings) -> None:
    """Bulk reviews of the same detections in different orders, from two databases at once."""

    async def use(first: Database) -> None:
        second = Database(settings)
        async with second.running():
            names = [f"{number}" for number in range(5)]
            jobs = [
                Reviews(database).append(
                    ANNA, dict.fromkeys(names[::step], FACTS), review(note=f"{number} {step}")
                )
                for number in range(3)
                for database, step in ((first, 1), (second, -1))
            ]
            await asyncio.gather(*jobs)
        for name in names:
            history = await Reviews(first).history("news", name)
            assert [one.version for one in history] == [6, 5, 4, 3, 2, 1]
            assert len({one.note for one in history}) == 6

    with_database(settings, use)


def test_a_conflict_stores_nothing(settings: Settings) -> None:
    async def use(database: Database) -> None:
        store = Reviews(database)
        await store.append(ANNA, {"b": FACTS}, review(note="first"))
        with pytest.raises(ConflictError) as error:
            await store.append(BEN, {"a": FACTS, "b": FACTS}, review(), lambda last: last is None)
        assert error.value.newest is not None
        assert error.value.newest.note == "first"
        assert await store.history("news", "a") == []

    with_database(settings, use)


def test_pages_with_equal_times_are_complete(settings: Settings) -> None:
    async def use(database: Database) -> None:
        store = Reviews(database)
        await store.append(ANNA, dict.fromkeys("abcde", FACTS), review())
        same = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
        await database.call(
            lambda connection: connection.execute(update(reviews).values(created_at=same))
        )
        found, before = [], None
        while rows := await store.page("news", Filter(since=same, before=before), 2):
            found += [row.review.detection_id for row in rows]
            before = rows[-1].review.created_at, rows[-1].number
        assert sorted(found) == list("abcde")
        later = same + timedelta(microseconds=1)
        assert await store.page("news", Filter(since=later), 2) == []

    with_database(settings, use)


def test_old_entries_are_purged(settings: Settings) -> None:
    async def use(database: Database) -> None:
        store = Reviews(database)
        await store.append(ANNA, {"a": FACTS, "b": FACTS}, review())
        old = datetime.now(UTC) - timedelta(days=401)
        await database.call(
            lambda connection: connection.execute(
                update(reviews).where(reviews.c.detection_id == "a").values(created_at=old)
            )
        )
        assert await store.purge(timedelta(days=402)) == 0
        assert await store.purge(timedelta(days=400)) == 1
        assert await store.history("news", "a") == []
        assert len(await store.history("news", "b")) == 1

    with_database(settings, use)


def test_many_old_entries_are_purged(settings: Settings) -> None:
    async def use(database: Database) -> None:
        row = {"team": "news", "version": 1, "decision": "ai", "sha256": "0" * 64}
        old = datetime(2020, 1, 1, tzinfo=UTC)
        rows = [{**row, "detection_id": str(i), "created_at": old} for i in range(1001)]
        await database.call(lambda connection: connection.execute(insert(reviews), rows))
        assert await Reviews(database).purge(timedelta(days=1)) == 1001

    with_database(settings, use)


def test_erased_notes_are_not_in_the_files(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    secret = "a note about a person"

    async def use(database: Database) -> None:
        store = Reviews(database)
        await store.append(ANNA, {"a": FACTS}, review(note=secret))
        assert _found(tmp_path, secret), "this test looks in the right files"
        assert await store.erase("news", ["a"])
        assert not await store.erase("news", ["b"])
        assert not _found(tmp_path, secret)

    with_database(settings, use)


def _found(folder: Path, words: str) -> bool:
    return any(words.encode() in file.read_bytes() for file in folder.glob("reviews.db*"))


# -- assignments ----------------------------------------------------------------------------------


def test_an_assignment_ends_by_itself(settings: Settings) -> None:
    async def use(database: Database) -> None:
        store = Assignments(database, 60)
        await store.take(ANNA, "a")
        with pytest.raises(TakenError):
            await store.take(BEN, "a")
        past = datetime.now(UTC) - timedelta(seconds=1)
        await database.call(
            lambda connection: connection.execute(update(assignments).values(expires_at=past))
        )
        assert await store.held_by(ANNA) == []
        assert await store.of("news", ["a"]) == []
        assert (await store.take(BEN, "a")).key == "ben"
        await store.purge()
        assert [one.key for one in await store.of("news", ["a"])] == ["ben"]

    with_database(settings, use)


def test_ended_assignments_are_purged(settings: Settings) -> None:
    async def use(database: Database) -> None:
        await Assignments(database, 0).take(ANNA, "a")
        await Assignments(database, 60).take(ANNA, "b")
        await Assignments(database, 60).purge()
        kept = await database.call(
            lambda connection: list(connection.scalars(select(assignments.c.detection_id)))
        )
        assert kept == ["b"]

    with_database(settings, use)


def test_only_one_of_many_gets_a_detection(settings: Settings) -> None:
    async def use(database: Database) -> None:
        store = Assignments(database, 60)
        people = [Reviewer("news", "shared", str(number)) for number in range(8)]
        results = await asyncio.gather(
            *(store.take(person, "a") for person in people), return_exceptions=True
        )
        assert sum(not isinstance(one, BaseException) for one in results) == 1
        assert all(isinstance(one, TakenError) for one in results if isinstance(one, Exception))
        taken = await asyncio.gather(*(store.take(one, "a", takeover=True) for one in people))
        (holder,) = await store.of("news", ["a"])
        assert holder in taken

    with_database(settings, use)


# -- time limits ----------------------------------------------------------------------------------


def test_a_call_that_gets_a_thread_too_late_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it could be stored after its caller was told 503."""
    monkeypatch.setattr("app.reviews.database._BUDGET", 0.05)
    release, done = threading.Event(), []

    async def use(database: Database) -> None:
        threads = database._threads._max_workers
        calls = [database.call(lambda _: release.wait(30)) for _ in range(threads)]
        calls.append(database.call(lambda _: done.append("late")))
        asyncio.get_running_loop().call_later(0.2, release.set)
        *_, late = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(late, ReviewsUnavailableError)
        assert not done

    with_database(Settings(data_dir=tmp_path), use)
