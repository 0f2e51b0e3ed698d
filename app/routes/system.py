"""Model facts, liveness and readiness."""

from __future__ import annotations

from fastapi import APIRouter

from app.problems import ServiceError
from app.schemas import ErrorCode, ModelFacts, ServiceStatus, WorkerInfo
from app.service import Service, TheService

router = APIRouter(tags=["system"])

UNTRAINED_NOTICE = (
    "This model is untrained: its weights are random and its scores mean nothing. "
    "They show that the service works, not what a picture is."
)


@router.get("/v1/model")
def model(service: TheService) -> ModelFacts:
    """The model card in short, as the newest live worker tells it."""
    worker = _live(service)[-1]
    return ModelFacts(
        name=worker.model.name,
        version=worker.model.version,
        trained=worker.trained,
        backbone=worker.backbone,
        parameters=worker.parameters,
        crop_size=worker.crop_size,
        thresholds=worker.thresholds,
        notice=None if worker.trained else UNTRAINED_NOTICE,
    )


@router.get("/livez", response_model_exclude_none=True)
async def livez() -> ServiceStatus:
    """Whether this process answers."""
    return ServiceStatus()


@router.get("/readyz")
def readyz(service: TheService) -> ServiceStatus:
    """Whether a POST would be served: Redis answers and a warm worker lives."""
    return ServiceStatus(workers=len(_live(service)))


def _live(service: Service) -> list[WorkerInfo]:
    workers = service.store.live_workers()
    if not workers:
        raise ServiceError(ErrorCode.NO_WORKER, "No warm worker has been heard of lately.")
    return workers
