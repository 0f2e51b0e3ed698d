"""Run by Alembic for each command."""

from __future__ import annotations

from alembic import context

from app.reviews.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
)
context.run_migrations()
