"""Processing of pictures: from the file to crops, and from the model's outputs to the record."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import structlog
import torch

from app.contract.models import Measured, WorkerInfo
from app.contract.schemas import (
    Detection,
    DetectionError,
    ErrorCode,
    FrameInfo,
    Head,
    MaskInfo,
    Masks,
    ModelInfo,
    Status,
    Timings,
    ViewInfo,
    mask_path,
    overlay_path,
)
from app.contract.store import Store
from model.detector import Detector, GlanceError, Part
from model.engine import CropOutputs, GlanceFeatures
from model.findings import Finding, decisive, manipulated
from model.regions import MaskSummary
from model.views import Crops
from pictures import png
from pictures.decoders import Decoders, Frame
from pictures.errors import PictureError
from pictures.findings import Verdict, View
from pictures.origin import Provenance
from worker import metrics, spans
from worker.provenance import FileStatements

_MISSING = "The stored picture is missing or damaged."

log = structlog.get_logger()


@dataclass(frozen=True)
class Outcome:
    """A final record and its masks (PNG)."""

    detection: Detection
    masks: dict[Head, bytes] = field(default_factory=dict)


@dataclass
class ReadyFrame:
    """Crops of a frame, and the features of its glances once they are computed."""

    number: int
    time_ms: int | None
    crops: Crops
    sight: GlanceFeatures | None = None

    @property
    def units(self) -> int:
        """Number of crops to compute, or 1 for a glance alone."""
        return max(1, self.crops.layout.tiles)


@dataclass
class DecodedPicture:
    """The decoded frames of a picture and their outputs so far; times in seconds.

    The crops of its frames follow each other.
    """

    detection: Detection
    frames: list[ReadyFrame]
    queued: float
    decode: float
    forward: float = 0.0
    parts: list[CropOutputs] = field(default_factory=list)

    @property
    def units(self) -> int:
        """Number of crops to compute; a glance alone counts as one."""
        return sum(frame.units for frame in self.frames)

    def within(self, start: int, stop: int) -> Iterator[tuple[ReadyFrame, int, int]]:
        """The frames that have crops from `start` to `stop`, each with the range of its own."""
        for frame in self.frames:
            if start < frame.units and stop > 0:
                yield frame, max(0, start), min(stop, frame.units)
            start, stop = start - frame.units, stop - frame.units

    def drop_pixels(self) -> None:
        """Free the crops, which take most of the memory, once they are computed."""
        empty = torch.empty(0)
        for frame in self.frames:
            frame.crops = frame.crops._replace(tiles=empty, glances=empty)


class Processor:
    """Processes pictures and batches of crops. Errors of one picture are returned, not raised."""

    def __init__(
        self, detector: Detector, info: WorkerInfo, store: Store, decoders: Decoders
    ) -> None:
        self.store = store
        self._detector = detector
        self._decoders = decoders
        self._info = info

    def decode(
        self, record: Detection, picture: bytes | None
    ) -> DecodedPicture | Outcome | Exception | None:
        """Decode a picture and cut it into crops.

        Returns:
            The input of the forward pass; a final record if the picture is invalid, not judged or
            missing; None if it has expired; any other error.
        """
        if picture is None:
            if record.expires_at <= datetime.now(UTC):
                return None
            # It has no effect if the detection was deleted meanwhile.
            missing = DetectionError(code=ErrorCode.PROCESSING_FAILED, detail=_MISSING)
            return Outcome(failed(record, missing))
        queued = max(0.0, time.time() - record.created_at.timestamp())
        try:
            with spans.stage("provenance", [record.id]):
                statements = self._read_statements(picture)
            with spans.stage("decode", [record.id]):
                started = time.perf_counter()
                decoded = self._decoders.frames(picture, record.view.frames)
                statements.pixels = decoded[0].pixels
                reason = self._detector.not_judged(decoded[0].pixels)
                ready = [] if reason else self._cut(decoded, record.view.mode)
                seconds = time.perf_counter() - started
            with spans.stage("watermark", [record.id]):
                record = statements.added_to(record)
        except PictureError as error:
            broken = DetectionError(code=ErrorCode(error.code), detail=error.detail)
            return Outcome(failed(statements.added_to(record), broken))
        except GlanceError as error:
            detail = f"{error}; use another view."
            refused = DetectionError(code=ErrorCode.VIEW_REFUSED, detail=detail)
            return Outcome(failed(statements.added_to(record), refused))
        except Exception as error:  # an unexpected error must not affect other pictures
            return error
        if not ready:
            metrics.count_verdict(self._info.model.version, None, None)
            return Outcome(self._ended(record, queued, seconds, not_judged=reason))
        return DecodedPicture(record, ready, queued, seconds)

    def _cut(self, decoded: Sequence[Frame], view: View) -> list[ReadyFrame]:
        return [
            ReadyFrame(number, time_ms, self._detector.cut(pixels, view, len(decoded)))
            for number, time_ms, pixels in decoded
        ]

    def provenance(self, picture: bytes) -> Provenance:
        """Read the provenance of a picture that cannot be scored."""
        return FileStatements(self._decoders, picture).provenance

    def forward(
        self, work: Sequence[tuple[DecodedPicture, int, int]]
    ) -> tuple[list[CropOutputs], float]:
        """Run the network on crops of pictures; first on the glances of new pictures.

        Args:
            work: Pictures, each with the range (start, stop) of its crops.

        Returns:
            The outputs per picture, and the duration in seconds.

        Raises:
            DeviceError: if the device is unusable.
        """
        limit = self._detector.batch_limit
        started = time.perf_counter()
        try:
            shares = [list(ready.within(start, stop)) for ready, start, stop in work]
            each = [share for some in shares for share in some]
            new = [frame for frame, _, _ in each if frame.sight is None]
            for frame, sight in zip(new, self._look(new), strict=True):
                frame.sight = sight
            parts = [Part(frame.crops, frame.sight, start, stop) for frame, start, stop in each]
            computed = iter(self._detector.forward(parts))
            outputs = [_joined(islice(computed, len(some))) for some in shares]
        finally:
            if self._detector.batch_limit < limit:
                metrics.OUT_OF_MEMORY.inc()
        seconds = time.perf_counter() - started
        crops = sum(len(output.logits) for output in outputs)
        metrics.STAGE_DURATION.labels("forward").observe(seconds)
        metrics.BATCH_SIZE.observe(crops)
        metrics.CROPS.inc(crops)
        metrics.LAST_SUCCESS.set_to_current_time()
        return outputs, seconds

    def check(self) -> None:
        """Run the model's self-check; not concurrently with `forward`.

        Raises:
            ModelSickError: if the model fails it.
            DeviceError: if the device is unusable.
        """
        self._detector.check()

    def _look(self, new: Sequence[ReadyFrame]) -> list[GlanceFeatures | None]:
        return self._detector.look([frame.crops for frame in new])

    def conclude(self, ready: DecodedPicture) -> Outcome | Exception:
        """Merge the outputs of a picture's crops into its record and masks; returns errors."""
        started = time.perf_counter()
        try:
            findings = self._findings(ready)
            finding = findings[decisive(findings)]
            masks = self._encode_masks(finding)
            detection = self._succeeded(ready, findings, time.perf_counter() - started)
        except Exception as error:  # an unexpected error must not affect other pictures
            return error
        version = self._info.model.version
        metrics.SCORE.labels(version).observe(finding.ai_probability)
        metrics.count_verdict(version, Verdict(finding.verdict), detection.manipulated)
        return Outcome(detection, masks)

    def _findings(self, ready: DecodedPicture) -> list[Finding]:
        """Results of the frames; all together they have no more pixels than the largest still."""
        outputs = _joined(ready.parts)
        counts = [frame.crops.layout.tiles for frame in ready.frames]
        split = zip(*(torch.split(rows, counts) for rows in outputs), strict=True)
        return [
            self._detector.conclude(frame.crops.layout, CropOutputs(*rows), frame.sight)
            for frame, rows in zip(ready.frames, split, strict=True)
        ]

    def _read_statements(self, picture: bytes) -> FileStatements:
        return FileStatements(self._decoders, picture)

    def _encode_masks(self, finding: Finding) -> dict[Head, bytes]:
        if finding.masks is None:
            return {}
        return {
            Head.AI: png.encode([finding.masks.ai.values]),
            Head.MANIPULATION: png.encode([finding.masks.manipulation.values]),
        }

    def _succeeded(
        self, ready: DecodedPicture, findings: Sequence[Finding], encode: float
    ) -> Detection:
        detection, place = ready.detection, decisive(findings)
        finding, frame = findings[place], ready.frames[place]
        layouts = [found.layout for found in findings]
        return self._ended(
            detection,
            ready.queued,
            ready.decode,
            ready.forward,
            encode,
            ai_probability=finding.ai_probability,
            verdict=finding.verdict,
            manipulated=manipulated(findings),
            frames=_frames(ready, findings) if detection.view.frames > 1 else None,
            notes=list(finding.notes),
            thresholds=finding.thresholds,
            masks=_masks(detection.id, finding),
            view=ViewInfo(
                mode=detection.view.mode,
                frames=detection.view.frames,
                tiles=sum(layout.tiles for layout in layouts),
                glances=sum(len(layout.glances) for layout in layouts),
                frame=frame.number,
                scale=finding.layout.scale,
            ),
        )

    def _ended(
        self,
        detection: Detection,
        queued: float,
        decode: float,
        forward: float = 0.0,
        encode: float = 0.0,
        **result: Any,
    ) -> Detection:
        """The record of a detection that succeeded; times in seconds."""
        now = datetime.now(UTC)
        total = max(0.0, (now - detection.created_at).total_seconds())
        timings = Timings(queued=queued, decode=decode, forward=forward, encode=encode, total=total)
        metrics.observe(timings)
        ended = {"status": Status.SUCCEEDED, "finished_at": now, "timings": timings}
        return detection.model_copy(update={**ended, "model": self._info.model, **result})


def failed(detection: Detection, error: DetectionError) -> Detection:
    """Return the record with an error as its final status."""
    return detection.model_copy(
        update={"status": Status.FAILED, "error": error, "finished_at": datetime.now(UTC)}
    )


def describe(detector: Detector, name: str) -> WorkerInfo:
    """Describe a worker with this detector."""
    info = detector.info
    return WorkerInfo(
        name=name,
        model=ModelInfo(name=info.name, version=info.version, digest=info.digest),
        trained=info.trained,
        backbone=info.backbone,
        parameters=info.parameters,
        crop_size=info.crop_size,
        min_side=info.min_side,
        thresholds=info.thresholds,
        device=info.device,
        dtype=info.dtype,
        measured=None if info.results is None else Measured.model_validate(info.results),
    )


def _joined(parts: Iterable[CropOutputs]) -> CropOutputs:
    return CropOutputs(*map(torch.cat, zip(*parts, strict=True)))


def _frames(ready: DecodedPicture, findings: Sequence[Finding]) -> list[FrameInfo]:
    return [
        FrameInfo(
            frame=frame.number,
            time_ms=frame.time_ms,
            ai_probability=found.ai_probability,
            verdict=found.verdict,
            manipulated=found.manipulated,
        )
        for frame, found in zip(ready.frames, findings, strict=True)
    ]


def _masks(detection_id: str, finding: Finding) -> Masks | None:
    if finding.masks is None:
        return None
    return Masks(
        ai=_mask_info(detection_id, Head.AI, finding.masks.ai.summary),
        manipulation=_mask_info(
            detection_id, Head.MANIPULATION, finding.masks.manipulation.summary
        ),
    )


def _mask_info(detection_id: str, head: Head, summary: MaskSummary) -> MaskInfo:
    return MaskInfo(
        area_fraction=summary.area_fraction,
        max=summary.max,
        regions=list(summary.regions),
        mask_url=mask_path(detection_id, head),
        overlay_url=overlay_path(detection_id, head),
    )
