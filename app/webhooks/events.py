"""Bodies of webhooks, sent as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.contract.schemas import Detection

_Id = Annotated[str, Field(description="id of the message; the same when it is sent again")]


class FinishedEvent(BaseModel):
    """A detection has ended: `succeeded`, `failed` or `expired`."""

    event: Literal["detection.finished"] = "detection.finished"
    id: _Id
    created_at: datetime
    detection: Detection


class TestEvent(BaseModel):
    """Requested by `POST /v1/webhooks/test`."""

    event: Literal["webhook.test"] = "webhook.test"
    id: _Id
    created_at: datetime
