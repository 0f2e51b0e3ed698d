"""Client of GAMMA, a service that detects AI-generated pictures."""

from gamma_client._async.client import AsyncClient
from gamma_client._sync.client import Client
from gamma_client.calls import DetectionEvent, SeenReview
from gamma_client.errors import (
    DeletedError,
    DetectionFailedError,
    GammaError,
    ServiceError,
    StillWaitingError,
    WebhookError,
)
from gamma_client.files import Outcome, Progress, find_pictures
from gamma_client.models import Detection, FinishedEvent, Review, TestEvent
from gamma_client.signatures import verify_webhook

__all__ = [
    "AsyncClient",
    "Client",
    "DeletedError",
    "Detection",
    "DetectionEvent",
    "DetectionFailedError",
    "FinishedEvent",
    "GammaError",
    "Outcome",
    "Progress",
    "Review",
    "SeenReview",
    "ServiceError",
    "StillWaitingError",
    "TestEvent",
    "WebhookError",
    "find_pictures",
    "verify_webhook",
]
