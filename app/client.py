"""redis-py's client, fit for commands that carry whole pictures."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.client import Pipeline


class Client(Redis):
    """As redis-py's, but an error in a pipeline tells the command and its key only.

    redis-py puts the arguments into the message, word by word: a picture would be in the logs, and
    a refused upload of 20 MB would take half a minute of a core.
    """

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """As redis-py's."""
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Pipeline(Pipeline):
    def annotate_exception(self, exception: Exception, number: int, command: Any) -> None:
        reason, *others = exception.args
        name = " ".join(word for word in command[:2] if isinstance(word, str) and len(word) < 100)
        exception.args = (f"command {number} of a pipeline ({name}): {reason}", *others)
