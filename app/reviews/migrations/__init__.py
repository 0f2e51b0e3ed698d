"""Migrations of the database with Alembic; each file in `versions` is one step."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest version, in the connection's transaction."""
    command.upgrade(configuration(connection), "head")


def is_current(connection: Connection) -> bool:
    """Whether the tables have the newest version."""
    newest = ScriptDirectory.from_config(configuration(connection)).get_heads()
    return set(MigrationContext.configure(connection).get_current_heads()) == set(newest)


def configuration(connection: Connection) -> Config:
    """Alembic's configuration, for its commands on this connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
