"""Deliveries of webhooks; `gamma_client.verify_webhook` checks what arrives."""

from __future__ import annotations

from collections.abc import Sequence

from gamma_client._async.connection import AsyncConnection
from gamma_client.calls import Call
from gamma_client.models import Attempt, Attempts, Replayed, Tested


class AsyncWebhooks:
    """Deliveries of webhooks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def test(self, url: str | None = None) -> Tested:
        """Have a signed test event sent once; None: to your default URL."""
        body = {} if url is None else {"url": url}
        call = Call(method="POST", path="/v1/webhooks/test", json=body)
        return await self._connection.read(call, Tested)

    async def attempts(
        self, *, detection_id: str | None = None, limit: int | None = None
    ) -> list[Attempt]:
        """Return your latest attempts, newest first."""
        params = {"detection_id": detection_id, "limit": limit}
        call = Call(method="GET", path="/v1/webhooks/attempts", params=params)
        return (await self._connection.read(call, Attempts)).attempts

    async def replay(self, ids: Sequence[str]) -> Replayed:
        """Have the messages of up to 100 finished detections sent again."""
        call = Call(method="POST", path="/v1/webhooks/replay", json={"ids": list(ids)})
        return await self._connection.read(call, Replayed)
