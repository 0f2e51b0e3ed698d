"""Tables of the database; the migrations create them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A time with a zone. SQLite has no zones, so the time is stored in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Add the zone where the database has none."""
        if value is None:
            return None
        read: datetime = value
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


metadata = MetaData()

reviews = Table(
    "reviews",
    metadata,
    Column(
        "id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("team", String(64), nullable=False),
    Column("detection_id", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("note", Text),
    Column("reviewer", Text),
    Column("key", String(64)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("erased_at", UtcDateTime),
    Column("sha256", String(64), nullable=False),
    Column("ai_probability", Float),
    Column("verdict", String(16)),
    Column("manipulated", Boolean),
    Column("thresholds", JSON(none_as_null=True)),
    Column("model", JSON(none_as_null=True)),
    # Two reviewers who both saw version n cannot both write version n + 1.
    UniqueConstraint("team", "detection_id", "version", name="one_entry_per_version"),
    Index("reviews_by_time", "team", "created_at", "id"),
    Index("reviews_by_age", "created_at"),
)
"""All decisions, append-only; the entry with the highest version is the current one."""

assignments = Table(
    "assignments",
    metadata,
    Column("team", String(64), nullable=False),
    Column("detection_id", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("team", "detection_id", name="one_assignment_per_detection"),
    Index("assignments_by_expiry", "expires_at"),
)
"""Who has which detection open; `reviewer` is empty if no name was given."""
