"""Pictures in, findings out: the network with everything that serving a picture takes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from model import checkpoint as checkpoints
from model import views
from model.config import GammaConfig, Pooling, Thresholds
from model.engine import CropOutputs, InferenceEngine
from model.network import GammaModel
from model.regions import MaskSummary, summarise
from model.views import Crops, Layout, View
from pictures import decoding

_FULL_CROP = 512  # pixels; the paper's


class Verdict(StrEnum):
    """What a picture is called, by the thresholds of the checkpoint."""

    AUTHENTIC = "authentic"
    UNCERTAIN = "uncertain"
    AI_GENERATED = "ai_generated"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The network that is being served."""

    name: str
    version: str
    trained: bool
    backbone: str
    parameters: int
    """Number of weights."""
    crop_size: int
    """Side of a crop, pixels."""
    device: str
    dtype: str
    thresholds: Thresholds
    checkpoint: str | None
    """Directory or hub id it came from; None for the built-in one."""
    results: dict[str, Any] | None
    """What the checkpoint says of its quality, if anything."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What was found in one picture of H x W pixels."""

    ai_probability: float
    """Calibrated probability that a neural network made the picture or a part of it, 0 to 1."""
    verdict: Verdict
    manipulated: bool
    """Whether the manipulation mask marks a larger part of the picture than is tolerated."""
    ai_mask: NDArray[np.uint8]
    """Probability that a neural network made the pixel, (H, W), 255 means 1."""
    manipulation_mask: NDArray[np.uint8]
    """Probability that the pixel was altered, (H, W), 255 means 1."""
    ai: MaskSummary
    manipulation: MaskSummary
    layout: Layout


class Detector:
    """Detects in pictures. Its methods share no changing state except within `forward`.

    So `decode`, `cut` and `conclude` may run in any threads, and `forward` in one at a time.
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
        checkpoint: str | None = None,
        results: dict[str, Any] | None = None,
    ) -> None:
        """Prepare a network for serving (it is frozen in place).

        Args:
            model: A network with both segmentation heads.
            device: A torch device, or `auto`: CUDA if there is any, else the CPU.
            dtype: `float32`, `bfloat16`, or `auto`: what the hardware is fastest in.
            max_batch: Most crops to compute at once (a CPU computes them one by one).
            max_pixels: Largest width times height of a picture.
            max_tiles: Most tiles of a picture, of 512 x 512 pixels or as much in smaller ones.
            checkpoint: Where the network came from, for `info`.
            results: How good it is, for `info`.

        Raises:
            ValueError: The network lacks a head, or the dtype is unknown.
            DeviceError: The device cannot be used.
        """
        config: GammaConfig = model.config
        self._max_pixels = max_pixels
        self._max_tiles = max_tiles * max(1, _FULL_CROP // config.crop_size) ** 2
        self._pooling = config.pooling
        self._temperature = config.temperature
        parameters = sum(p.numel() for p in model.parameters())
        self._engine = InferenceEngine(model, device=device, dtype=dtype, max_batch=max_batch)
        self.info = ModelInfo(
            name=config.name,
            version=config.version,
            trained=config.trained,
            backbone=config.backbone,
            parameters=parameters,
            crop_size=config.crop_size,
            device=str(self._engine.device),
            dtype=str(self._engine.dtype).removeprefix("torch."),
            thresholds=Thresholds(**config.thresholds),
            checkpoint=checkpoint,
            results=results,
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
    ) -> "Detector":
        """Load a checkpoint for serving; the settings are those of the constructor.

        Args:
            checkpoint: Directory or hub id; None for the built-in one, `checkpoint.BUILT_IN`.
            device: As in the constructor.
            dtype: As in the constructor.
            max_batch: As in the constructor.
            max_pixels: As in the constructor.
            max_tiles: As in the constructor.

        Returns:
            A detector that has not been warmed up.

        Raises:
            CheckpointError: The checkpoint cannot be used.
            DeviceError: The device cannot be used.
        """
        source = checkpoints.BUILT_IN if checkpoint is None else checkpoint
        model = checkpoints.load(source)
        if model.config.heads != "both":
            raise checkpoints.CheckpointError(
                f"{source}: heads: serving needs both segmentation heads"
            )
        return cls(
            model,
            device=device,
            dtype=dtype,
            max_batch=max_batch,
            max_pixels=max_pixels,
            max_tiles=max_tiles,
            checkpoint=checkpoint,
            results=checkpoints.load_results(source),
        )

    @property
    def batch_limit(self) -> int:
        """Most crops that are computed at once; halved whenever memory runs out."""
        return self._engine.batch_limit

    def warm_up(self) -> None:
        """Compute one batch of every size there can be, so that no later one pays for set-up."""
        self._engine.warm_up()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Decode a picture file to RGB pixels (H, W, 3).

        Raises:
            PictureError: The picture cannot be read.
        """
        return decoding.decode(data, max_pixels=self._max_pixels)

    def cut(self, picture: NDArray[np.uint8], view: View) -> Crops:
        """Cut a picture (H, W, 3) into as many crops as `max_tiles` allows."""
        return views.cut(picture, view, self.info.crop_size, self._max_tiles)

    def forward(self, tiles: torch.Tensor) -> CropOutputs:
        """Compute the outputs of crops (N, S, S, 3) of any number of pictures.

        Raises:
            DeviceError: The device failed; the process should end.
        """
        return self._engine.forward(tiles)

    def conclude(self, layout: Layout, outputs: CropOutputs) -> Detection:
        """Turn the outputs of one picture's crops into findings.

        Args:
            layout: As `cut` returned it.
            outputs: Outputs of its N tiles, in their order.

        Returns:
            The findings, masks at the picture's resolution.
        """
        thresholds = self.info.thresholds
        pooled = pool(outputs.logits, self._pooling)
        probability = torch.sigmoid(pooled / self._temperature).item()
        # A caller may be waiting, with nothing else to do: the masks are made side by side.
        other = self._beside.submit(self._read_mask, layout, outputs.manipulation)
        ai_mask, ai = self._read_mask(layout, outputs.ai)
        manipulation_mask, manipulation = other.result()
        return Detection(
            ai_probability=probability,
            verdict=_judge(probability, thresholds),
            manipulated=manipulation.area_fraction > thresholds.manipulated_area,
            ai_mask=ai_mask,
            manipulation_mask=manipulation_mask,
            ai=ai,
            manipulation=manipulation,
            layout=layout,
        )

    def detect(self, data: bytes, view: View) -> Detection:
        """Decode, cut, compute and conclude for one picture file.

        Raises:
            PictureError: The picture cannot be read.
            DeviceError: The device failed.
        """
        crops = self.cut(self.decode(data), view)
        return self.conclude(crops.layout, self.forward(crops.tiles))

    @cached_property
    def _beside(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(thread_name_prefix="mask")

    def _read_mask(
        self, layout: Layout, logits: torch.Tensor
    ) -> tuple[NDArray[np.uint8], MaskSummary]:
        mask = self._merge_masks(layout, logits)
        return mask, summarise(mask, self.info.thresholds.mask)

    @torch.inference_mode()
    def _merge_masks(self, layout: Layout, logits: torch.Tensor) -> NDArray[np.uint8]:
        size = self.info.crop_size
        tiles = F.interpolate(logits[:, None], (size, size), mode="bilinear")  # equation 4
        probabilities = tiles[:, 0].sigmoid_().numpy()  # (N, S, S)
        # In place: of a large picture each copy of the map takes 4 bytes a pixel.
        merged = views.merge(layout, probabilities)
        del tiles, probabilities
        merged *= 255
        return np.rint(merged, out=merged).astype(np.uint8)


def pool(logits: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Make one logit of those of a picture's tiles.

    Args:
        logits: Image logits of the tiles (N,).
        pooling: As in `GammaConfig`.

    Returns:
        A scalar.
    """
    if pooling == "max":
        return logits.max()
    if pooling == "top3":
        return logits.topk(min(3, len(logits))).values.mean()
    return logits.mean()


def _judge(probability: float, thresholds: Thresholds) -> Verdict:
    if probability >= thresholds.ai_generated:
        return Verdict.AI_GENERATED
    if probability >= thresholds.uncertain:
        return Verdict.UNCERTAIN
    return Verdict.AUTHENTIC
