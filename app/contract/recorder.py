"""Recording of Redis commands for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.client import Pipeline


class CommandRecorder(Pipeline):
    """A pipeline that records commands, for example RQ's, without sending them."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis.connection_pool, redis.response_callbacks, True, None)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Not available, because a script runs the commands.

        Raises:
            TypeError: Always.
        """
        raise TypeError("recorded commands are run by a script")

    def words(self) -> Iterator[Any]:
        """The commands as arguments of a script, each preceded by its number of words."""
        for command, _ in self.command_stack:
            yield len(command)
            yield from command
