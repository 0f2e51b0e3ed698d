"""The detector: from picture files to verdicts and masks."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from model import canary as canaries
from model import checkpoint as checkpoints
from model import views
from model.canary import Canary, ModelSickError
from model.config import GammaConfig
from model.engine import (
    CropOutputs,
    CropPosition,
    GlanceFeatures,
    InferenceEngine,
    ModelOutputError,
    require_finite,
)
from model.engine import Part as Part
from model.findings import DetectorInfo, Finding, Mask, Masks
from model.network import GammaModel
from model.pooling import combine, either, pool
from model.regions import summarise
from model.text import mostly_text
from model.tower import TowerError
from model.views import Crops, Layout
from pictures import decoding
from pictures.findings import Note, NotJudged, Thresholds, Verdict, View

_FULL_CROP = 512  # pixels; the paper's
_CPU_BUDGET = 12  # tiles of `View.AUTO`: 1.1 s of two cores in bfloat16, 1.7 s in float32
_MARKED = 0.001  # minimum share of AI-marked pixels of `Note.MARKS_CONTRADICT_SCORE`


class GlanceError(ValueError):
    """The view `glance` is not possible: the network has no prior."""


class Detector:
    """Detects AI-generated and manipulated content in pictures.

    `decode`, `cut` and `conclude` are thread-safe; `look` and `forward` are not, and must not run
    at the same time.
    """

    def __init__(
        self,
        model: GammaModel,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_batch: int = 8,
        max_pixels: int,
        max_tiles: int,
        tile_budget: int | None = None,
        checkpoint: str | None = None,
        results: dict[str, Any] | None = None,
        digest: str | None = None,
        canary: Canary | None = None,
    ) -> None:
        """Prepare a network for serving (it is frozen in place).

        Args:
            model: A network with both segmentation heads.
            device: A torch device, or `auto`: CUDA if available, else the CPU.
            dtype: `float32`, `bfloat16`, or `auto`: the fastest on the hardware.
            max_batch: Maximum batch size, crops (on a CPU always 1).
            max_pixels: Largest width times height of a picture.
            max_tiles: Maximum number of tiles of a picture, of 512 x 512 pixels or the same area in
                smaller tiles.
            tile_budget: The same for the view `auto`; None: depends on the device.
            checkpoint: Directory or hub id of the checkpoint, for `info`.
            results: Evaluation results, for `info`.
            digest: Digest of weights and config, for `info`.
            canary: Reference outputs for `check`.

        Raises:
            ValueError: The network lacks a head, or the dtype is unknown.
            DeviceError: The device cannot be used.
            TowerError: The weights of the network's prior cannot be loaded.
        """
        config: GammaConfig = model.config
        self._max_pixels = max_pixels
        self._config = config
        self._canary = canary
        parameters = sum(p.numel() for p in model.parameters())
        self._engine = InferenceEngine(model, device=device, dtype=dtype, max_batch=max_batch)
        budget = tile_budget
        if budget is None:
            budget = _CPU_BUDGET if self._engine.device.type == "cpu" else max_tiles
        smaller = max(1, _FULL_CROP // config.crop_size) ** 2  # crops for each of the paper's
        self._max_tiles = max_tiles * smaller
        self._tile_budget = min(budget, max_tiles) * smaller
        self.info = DetectorInfo(
            name=config.name,
            version=config.version,
            trained=config.trained,
            backbone=config.backbone,
            parameters=parameters,
            crop_size=config.crop_size,
            device=str(self._engine.device),
            dtype=str(self._engine.dtype).removeprefix("torch."),
            thresholds=Thresholds(**config.thresholds),
            glance_thresholds=Thresholds(**config.glance_thresholds),
            min_side=config.min_side,
            glances=self._engine.glances,
            checkpoint=checkpoint,
            results=results,
            digest=digest,
        )

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_batch: int = 8,
        max_pixels: int,
        max_tiles: int,
        tile_budget: int | None = None,
    ) -> "Detector":
        """Load a checkpoint for serving.

        Args:
            checkpoint: Directory or hub id; None for the built-in one, `checkpoint.BUILT_IN`.
            device: As in the constructor.
            dtype: As in the constructor.
            max_batch: As in the constructor.
            max_pixels: As in the constructor.
            max_tiles: As in the constructor.
            tile_budget: As in the constructor.

        Returns:
            A detector that has not been warmed up.

        Raises:
            CheckpointError: The checkpoint or its prior cannot be used.
            DeviceError: The device cannot be used.
        """
        source = checkpoints.BUILT_IN if checkpoint is None else checkpoint
        model = checkpoints.load(source)
        if model.config.heads != "both":
            raise checkpoints.CheckpointError(
                f"{source}: heads: serving needs both segmentation heads"
            )
        try:
            return cls(
                model,
                device=device,
                dtype=dtype,
                max_batch=max_batch,
                max_pixels=max_pixels,
                max_tiles=max_tiles,
                tile_budget=tile_budget,
                checkpoint=checkpoint,
                results=checkpoints.load_results(source),
                digest=checkpoints.digest(source),
                canary=checkpoints.load_canary(source),
            )
        except TowerError as error:
            raise checkpoints.CheckpointError(f"{source}: tower: {error}") from error

    @property
    def batch_limit(self) -> int:
        """Current maximum batch size, crops; halved when memory runs out."""
        return self._engine.batch_limit

    @property
    def _name(self) -> str:
        return f"{self.info.name} {self.info.version} on {self.info.device}"

    def warm_up(self) -> None:
        """Compute one batch of every possible size, so that later batches need no set-up.

        Raises:
            ModelSickError: An output is not finite, or `check` fails.
            DeviceError: The device failed.
        """
        try:
            self._engine.warm_up()
        except ModelOutputError as error:
            raise ModelSickError(f"NaN model: {self._name}, at warm-up: {error}") from error
        self.check()

    def check(self) -> None:
        """Check that the network's outputs for the canary are those of its export.

        Must not run at the same time as `look` or `forward`.

        Raises:
            ModelSickError: They differ, or weights or outputs are not finite.
            DeviceError: The device failed.
        """
        if not self._engine.has_finite_weights():
            raise ModelSickError(f"NaN model: {self._name} has weights that are not finite")
        canaries.check(self, self._canary)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Decode a picture file to RGB pixels (H, W, 3).

        Raises:
            PictureError: The picture cannot be read.
        """
        return decoding.decode(data, max_pixels=self._max_pixels)

    def not_judged(self, picture: NDArray[np.uint8]) -> NotJudged | None:
        """Why a picture (H, W, 3) must get no score and no verdict; None if it may.

        Callers that show results check this before `cut`; measurements score such pictures too.
        """
        return NotJudged.TOO_SMALL if min(picture.shape[:2]) < self.info.min_side else None

    def cut(self, picture: NDArray[np.uint8], view: View, frames: int = 1) -> Crops:
        """Cut a picture (H, W, 3) into the crops of a view.

        Args:
            picture: RGB pixels (H, W, 3).
            view: Part of the picture to cut.
            frames: Number of frames that share the maximum number of tiles; each gets at least one.

        Raises:
            GlanceError: The view is `glance`, and the network has no prior.
        """
        if view is View.GLANCE and not self.info.glances:
            raise GlanceError(
                f"{self.info.name} {self.info.version} has no prior for the view `glance`"
            )
        most = self._tile_budget if view is View.AUTO else self._max_tiles
        most = max(1, most // frames)
        crops = views.cut(picture, view, self.info.crop_size, most, glances=self.info.glances)
        return crops._replace(layout=replace(crops.layout, mostly_text=mostly_text(picture)))

    def look(self, pictures: Sequence[Crops]) -> list[GlanceFeatures | None]:
        """Compute the features of the glances at pictures; None for each without a prior.

        Raises:
            DeviceError: The device failed; the process should end.
        """
        if not self.info.glances:
            return [None] * len(pictures)
        return list(self._engine.look([crops.glances for crops in pictures]))

    def forward(self, parts: Sequence[Part]) -> list[CropOutputs]:
        """Compute the outputs of crops of any number of pictures.

        Args:
            parts: Crops with the results of `look` for their pictures.

        Raises:
            DeviceError: The device failed; the process should end.
        """
        tiles = [part.crops.tiles[part.start : part.stop] for part in parts]
        places = [
            CropPosition(part.sight, look, box)
            for part in parts
            if part.sight is not None
            for look, box in zip(
                part.crops.looks[part.start : part.stop].tolist(),
                part.crops.boxes[part.start : part.stop],
                strict=True,
            )
        ]
        outputs = self._engine.forward(torch.cat(tiles), places)
        counts = [len(some) for some in tiles]
        split = (torch.split(output, counts) for output in outputs)
        return [CropOutputs(*rows) for rows in zip(*split, strict=True)]

    def conclude(
        self, layout: Layout, outputs: CropOutputs, sight: GlanceFeatures | None
    ) -> Finding:
        """Compute verdict and masks of one picture from the network's outputs.

        Args:
            layout: As `cut` returned it.
            outputs: Outputs of its N tiles, in order.
            sight: Result of `look`; if N is 0 the verdict comes from the glance.

        Returns:
            The detection, with masks at the picture's resolution.

        Raises:
            ModelOutputError: An output is not finite.
        """
        require_finite(*outputs, torch.tensor([] if sight is None else [sight.logit]))
        if sight is not None and not layout.tiles:
            return self._judge(sight.logit / self._config.glance_temperature, layout, None)
        config = self._config
        glance = None if sight is None else sight.logit
        logit = pool(outputs.logits, config.pooling)
        if glance is not None:
            logit = combine(logit, logit.new_tensor(glance), config.part_offset)
        # Both masks are computed at the same time to shorten the answer.
        shifted = outputs.manipulation + config.mask_offsets.get("manipulation", 0.0)
        other = self._beside.submit(self._read_mask, layout, shifted)
        ai = self._read_mask(layout, self._ai_logits(outputs, glance))
        masks = Masks(ai, other.result())
        return self._judge(logit.item() / config.temperature, layout, masks)

    def detect(self, data: bytes, view: View) -> Finding:
        """Decode, cut, compute and conclude for one picture file.

        Raises:
            PictureError: The picture cannot be read.
            GlanceError: The view is `glance`, and the network has no prior.
            DeviceError: The device failed.
            ModelOutputError: An output is not finite.
        """
        return self.examine(self.decode(data), view)

    def examine(self, picture: NDArray[np.uint8], view: View, frames: int = 1) -> Finding:
        """Cut, compute and conclude for one decoded picture (H, W, 3); arguments as for `cut`.

        Raises:
            GlanceError: The view is `glance`, and the network has no prior.
            DeviceError: The device failed.
            ModelOutputError: An output is not finite.
        """
        crops = self.cut(picture, view, frames)
        (sight,) = self.look([crops])
        (outputs,) = self.forward([Part(crops, sight)])
        return self.conclude(crops.layout, outputs, sight)

    def _ai_logits(self, outputs: CropOutputs, glance: float | None) -> torch.Tensor:
        config = self._config
        logits = outputs.ai + config.mask_offsets.get("ai", 0.0)
        if glance is None:
            return logits
        logits = logits + config.part_gain * (outputs.logits - glance)[:, None, None]
        if config.whole_offset is None:
            return logits
        return either(logits, logits.new_tensor(glance + config.whole_offset))

    def _judge(self, logit: float, layout: Layout, masks: Masks | None) -> Finding:
        thresholds = self.info.glance_thresholds if masks is None else self.info.thresholds
        probability = torch.sigmoid(torch.tensor(logit)).item()
        manipulated = None
        if masks is not None:
            manipulated = masks.manipulation.summary.area_fraction > thresholds.manipulated_area
        verdict = _verdict(probability, thresholds)
        return Finding(
            ai_probability=probability,
            verdict=verdict,
            thresholds=thresholds,
            manipulated=manipulated,
            masks=masks,
            layout=layout,
            notes=tuple(_notes(verdict, masks, layout)),
        )

    @cached_property
    def _beside(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(thread_name_prefix="mask")

    def _read_mask(self, layout: Layout, logits: torch.Tensor) -> Mask:
        values = self._merge_masks(layout, logits)
        return Mask(values, summarise(values, self.info.thresholds.mask))

    @torch.inference_mode()
    def _merge_masks(self, layout: Layout, logits: torch.Tensor) -> NDArray[np.uint8]:
        size = self.info.crop_size
        tiles = F.interpolate(logits[:, None], (size, size), mode="bilinear")  # equation 4
        probabilities = tiles[:, 0].sigmoid_().numpy()  # (N, S, S)
        blended = views.blend(layout, probabilities) * 255
        # Rounding before resizing: a fifth of the time at 48 megapixels, with an error up to 1.
        return views.enlarge(layout, np.rint(blended, out=blended).astype(np.uint8))


def _notes(verdict: Verdict, masks: Masks | None, layout: Layout) -> Iterator[Note]:
    marked = masks is not None and masks.ai.summary.area_fraction >= _MARKED
    if marked and verdict is Verdict.AUTHENTIC:
        yield Note.MARKS_CONTRADICT_SCORE
    if layout.mostly_text:
        yield Note.MOSTLY_TEXT


def _verdict(probability: float, thresholds: Thresholds) -> Verdict:
    if probability >= thresholds.ai_generated:
        return Verdict.AI_GENERATED
    if probability >= thresholds.uncertain:
        return Verdict.UNCERTAIN
    return Verdict.AUTHENTIC
