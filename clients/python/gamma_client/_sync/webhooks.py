# Generated from _async/webhooks.py by generate.py.
"""Deliveries of webhooks; `gamma_client.verify_webhook` checks what arrives."""

from __future__ import annotations

from collections.abc import Sequence

from gamma_client._sync.connection import Connection
from gamma_client.calls import Call
from gamma_client.models import Attempt, Attempts, Replayed, Tested


class Webhooks:
    """Deliveries of webhooks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def test(self, url: str | None = None) -> Tested:
        """Have a signed test event sent once; None: to your default URL."""
        body = {} if url is None else {"url": url}
        call = Call(method="POST", path="/v1/webhooks/test", json=body)
        return self._connection.read(call, Tested)

    def attempts(
        self, *, detection_id: str | None = None, limit: int | None = None
    ) -> list[Attempt]:
        """Return your latest attempts, newest first."""
        params = {"detection_id": detection_id, "limit": limit}
        call = Call(method="GET", path="/v1/webhooks/attempts", params=params)
        return (self._connection.read(call, Attempts)).attempts

    def replay(self, ids: Sequence[str]) -> Replayed:
        """Have the messages of up to 100 finished detections sent again."""
        call = Call(method="POST", path="/v1/webhooks/replay", json={"ids": list(ids)})
        return self._connection.read(call, Replayed)
