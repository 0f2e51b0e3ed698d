"""Commands that are recorded for a script to run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.client import Pipeline


class CommandRecorder(Pipeline):
    """Records Redis commands, as RQ adds them to a pipeline; it never sends them."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis.connection_pool, redis.response_callbacks, True, None)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Not available: a script runs the commands.

        Raises:
            TypeError: always.
        """
        raise TypeError("recorded commands are run by a script")

    def words(self) -> Iterator[Any]:
        """The commands as a script's ARGV: each preceded by its number of words."""
        for command, _ in self.command_stack:
            yield len(command)
            yield from command
