"""From the bytes of a picture to its crops, and from the outputs of the crops to its record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import structlog
import torch

from app.schemas import (
    Detection,
    DetectionError,
    ErrorCode,
    Head,
    MaskInfo,
    Masks,
    Measured,
    ModelInfo,
    Region,
    Status,
    Thresholds,
    Timings,
    Verdict,
    ViewInfo,
    WorkerInfo,
    mask_path,
    overlay_path,
)
from app.store import Store
from model.detector import Detection as Finding
from model.detector import Detector
from model.engine import CropOutputs, DeviceError
from model.regions import MaskSummary
from model.views import Layout, View
from pictures import png
from pictures.decoders import Decoders
from pictures.errors import (
    DecodingAbortedError,
    PictureError,
    TooElongatedError,
    TooManyPixelsError,
    TruncatedPictureError,
    UnsupportedFormatError,
)
from worker import metrics

_PICTURE_ERRORS: tuple[tuple[type[PictureError], ErrorCode], ...] = (
    (UnsupportedFormatError, ErrorCode.FORMAT_UNSUPPORTED),
    (TooManyPixelsError, ErrorCode.TOO_MANY_PIXELS),
    (TooElongatedError, ErrorCode.TOO_ELONGATED),
    (TruncatedPictureError, ErrorCode.IMAGE_TRUNCATED),
    (DecodingAbortedError, ErrorCode.DECODING_ABORTED),
    (PictureError, ErrorCode.IMAGE_UNDECODABLE),
)

log = structlog.get_logger()


@dataclass(frozen=True)
class Outcome:
    """A final record and the masks (PNG) that belong to it."""

    detection: Detection
    masks: dict[Head, bytes] = field(default_factory=dict)


@dataclass
class Ready:
    """A decoded picture on its way through the forward pass; times in seconds."""

    detection: Detection
    layout: Layout
    tiles: torch.Tensor  # (N, S, S, 3)
    queued: float
    decode: float
    forward: float = 0.0

    def drop_tiles(self) -> None:
        """Free the crops once they are computed: they are the largest part of what is in hand."""
        self.tiles = torch.empty(0)


class Processor:
    """What is done to one picture, and to one batch of crops. No method raises for a picture."""

    def __init__(
        self, detector: Detector, info: WorkerInfo, store: Store, decoders: Decoders
    ) -> None:
        self.store = store
        self._detector = detector
        self._decoders = decoders
        self._info = info

    def decode(
        self, record: Detection, picture: bytes | None
    ) -> Ready | Outcome | Exception | None:
        """Decode and cut a picture.

        Returns:
            What the forward pass needs; a failed record if the picture is at fault; None if its
            bytes have expired; whatever else went wrong.
        """
        if picture is None:
            return None
        started = time.perf_counter()
        queued = max(0.0, time.time() - record.created_at.timestamp())
        try:
            crops = self._detector.cut(self._decoders.decode(picture), View(record.view.mode))
        except PictureError as error:
            code = next(code for kind, code in _PICTURE_ERRORS if isinstance(error, kind))
            return Outcome(failed(record, DetectionError(code=code, detail=str(error))))
        except Exception as error:  # one picture's surprise must not end the others
            return error
        seconds = time.perf_counter() - started
        return Ready(record, crops.layout, crops.tiles, queued, seconds)

    def forward(self, tiles: torch.Tensor) -> tuple[CropOutputs, float]:
        """Run the network over crops (N, S, S, 3) of any pictures.

        Returns:
            The outputs and the seconds it took.

        Raises:
            DeviceError: the device is unusable.
        """
        limit = self._detector.batch_limit
        started = time.perf_counter()
        try:
            outputs = self._detector.forward(tiles)
        except DeviceError:
            metrics.DEVICE_ERRORS.inc()
            raise
        finally:
            if self._detector.batch_limit < limit:
                metrics.OUT_OF_MEMORY.inc()
        seconds = time.perf_counter() - started
        metrics.STAGE_DURATION.labels("forward").observe(seconds)
        metrics.BATCH_SIZE.observe(len(tiles))
        metrics.CROPS.inc(len(tiles))
        metrics.LAST_SUCCESS.set_to_current_time()
        return outputs, seconds

    def conclude(self, ready: Ready, parts: Sequence[CropOutputs]) -> Outcome | Exception:
        """Merge the outputs of a picture's crops, in their order, into its record and masks."""
        started = time.perf_counter()
        try:
            outputs = CropOutputs(*map(torch.cat, zip(*parts, strict=True)))
            finding = self._detector.conclude(ready.layout, outputs)
            masks = {
                Head.AI: png.encode([finding.ai_mask]),
                Head.MANIPULATION: png.encode([finding.manipulation_mask]),
            }
            detection = self._succeeded(ready, finding, time.perf_counter() - started)
        except Exception as error:  # as in decode
            return error
        version = self._info.model.version
        metrics.SCORE.labels(version).observe(finding.ai_probability)
        metrics.count_verdict(version, Verdict(finding.verdict), finding.manipulated)
        return Outcome(detection, masks)

    def _succeeded(self, ready: Ready, finding: Finding, encode: float) -> Detection:
        detection = ready.detection
        now = datetime.now(UTC)
        timings = Timings(
            queued=ready.queued,
            decode=ready.decode,
            forward=ready.forward,
            encode=encode,
            total=max(0.0, (now - detection.created_at).total_seconds()),
        )
        metrics.observe(timings)
        return detection.model_copy(
            update={
                "status": Status.SUCCEEDED,
                "ai_probability": finding.ai_probability,
                "verdict": Verdict(finding.verdict),
                "manipulated": finding.manipulated,
                "thresholds": self._info.thresholds,
                "masks": Masks(
                    ai=_mask_info(detection.id, Head.AI, finding.ai),
                    manipulation=_mask_info(detection.id, Head.MANIPULATION, finding.manipulation),
                ),
                "view": ViewInfo(
                    mode=detection.view.mode,
                    tiles=finding.layout.tiles,
                    scale=finding.layout.scale,
                ),
                "model": self._info.model,
                "timings": timings,
                "finished_at": now,
            }
        )


def failed(detection: Detection, error: DetectionError) -> Detection:
    """The record of a detection that ended with an error."""
    return detection.model_copy(
        update={"status": Status.FAILED, "error": error, "finished_at": datetime.now(UTC)}
    )


def describe(detector: Detector, name: str) -> WorkerInfo:
    """What a worker with this detector says of itself."""
    info = detector.info
    return WorkerInfo(
        name=name,
        model=ModelInfo(name=info.name, version=info.version),
        trained=info.trained,
        backbone=info.backbone,
        parameters=info.parameters,
        crop_size=info.crop_size,
        thresholds=Thresholds(**asdict(info.thresholds)),
        device=info.device,
        dtype=info.dtype,
        measured=None if info.results is None else Measured.model_validate(info.results),
    )


def _mask_info(detection_id: str, head: Head, summary: MaskSummary) -> MaskInfo:
    return MaskInfo(
        area_fraction=summary.area_fraction,
        max=summary.max,
        regions=[
            Region(box=region.box, area=region.area, score=region.score)
            for region in summary.regions
        ],
        mask_url=mask_path(detection_id, head),
        overlay_url=overlay_path(detection_id, head),
    )
