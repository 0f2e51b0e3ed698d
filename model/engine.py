"""Inference: the frozen network with merged matrices, in the fastest precision."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from traceback import clear_frames
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model import views
from model.glance import Glance
from model.network import GammaModel, MergedHead
from model.views import Crops

logger = logging.getLogger(__name__)


class DeviceError(RuntimeError):
    """The device cannot be used, has failed, or has too little memory for one crop.

    The process should end.
    """


class ModelOutputError(Exception):
    """An output of the network is NaN or infinite."""


class CropOutputs(NamedTuple):
    """Raw outputs for N crops of side S, on the CPU, float32."""

    logits: Tensor
    """Image logits (N,)."""
    ai: Tensor
    """Logits of the AI mask (N, S/4, S/4)."""
    manipulation: Tensor
    """Logits of the manipulation mask (N, S/4, S/4)."""


class GlanceFeatures(NamedTuple):
    """Features of K glances at one picture; the tensors stay on the device."""

    logit: float
    """Image logit of the glances alone: the mean over the glances."""
    vector: Tensor
    """As in `Glance`: the mean over the glances (C_dec,)."""
    patches: Tensor
    """As in `Glance` (K, 14, 14, C_3 + C_4)."""


class CropPosition(NamedTuple):
    """Position of a crop in a glance."""

    sight: GlanceFeatures
    """Features of the glances at its picture."""
    look: int
    """Index of the glance."""
    box: Tensor
    """Left, top, right, bottom in that glance, 0 to 1 (4,), on the CPU."""


class Part(NamedTuple):
    """Crops `start` to `stop` of a picture; by default all."""

    crops: Crops
    sight: GlanceFeatures | None
    """Result of `model.detector.Detector.look` for the picture."""
    start: int = 0
    stop: int | None = None


class InferenceEngine:
    """Runs a GAMMA network over batches of glances and crops. Not thread-safe."""

    def __init__(
        self, model: GammaModel, *, device: str = "auto", dtype: str = "auto", max_batch: int = 8
    ) -> None:
        """Freeze `model` (it is changed in place) and move it to the device.

        Args:
            model: A network with both segmentation heads.
            device: A torch device, or `auto`: CUDA if available, else the CPU.
            dtype: `float32`, `bfloat16`, or `auto`: bfloat16 if the hardware supports it.
            max_batch: Maximum batch size, crops. On a CPU the batch size is always 1: larger
                batches take longer per crop, see the README.

        Raises:
            ValueError: A head is missing, or the dtype is unknown.
            DeviceError: The device does not exist or does not work.
            TowerError: The weights of the prior cannot be loaded.
        """
        if model.config.heads != "both":
            raise ValueError("serving needs both segmentation heads")
        if dtype not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"dtype must be auto, float32 or bfloat16, not {dtype!r}")
        self.device = _open(device)
        self.dtype = getattr(torch, preferred_dtype(self.device) if dtype == "auto" else dtype)
        # Larger maps do not fit into a CPU's caches: B0 takes 1.5 times as long per crop at 8.
        self.batch_limit = 1 if self.device.type == "cpu" else max_batch
        self._crop_size = model.config.crop_size
        model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
        # Merge in float32 first: rounding the products loses less than rounding the factors.
        self._merged = {head: self._freeze(part) for head, part in model.merge().items()}
        self._model: Any = torch.nn.Module.to(model, self.device, self.dtype)
        self.glances = model.glance is not None
        """Whether the network has a prior (`model.glance`)."""
        if model.glance is not None:
            model.glance.load_tower(
                self.device, self.dtype
            )  # fail early if the weights are missing

    def _freeze(self, head: MergedHead) -> MergedHead:
        def to(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, self.dtype).contiguous()

        matrices = {name: to(t) for name, t in head._asdict().items() if isinstance(t, Tensor)}
        return head._replace(stages=tuple(map(to, head.stages)), **matrices)

    def has_finite_weights(self) -> bool:
        """Return whether all weights are finite; not every bad weight shows in an output."""
        return all(bool(torch.isfinite(one).all()) for one in self._model.parameters())

    def warm_up(self) -> None:
        """Compute one batch of every possible size, so that later batches need no set-up.

        Raises:
            DeviceError: The device failed.
            ModelOutputError: An output is not finite.
        """
        size = self._crop_size
        places: list[CropPosition] = []
        for count in range(self.batch_limit, 0, -1):
            if self.glances:
                for height, width in views.GLANCE_SIZES:
                    (sight,) = self.look([torch.zeros(count, height, width, 3, dtype=torch.uint8)])
                places = [CropPosition(sight, 0, torch.tensor([0.0, 0.0, 1.0, 1.0]))] * count
            blank = torch.zeros(count, size, size, 3, dtype=torch.uint8)
            require_finite(*self.forward(blank, places))

    def look(self, pictures: Sequence[Tensor]) -> list[GlanceFeatures]:
        """Compute the features of glances; glances of one size share batches.

        The batch size is halved permanently when memory runs out, as in `forward`.

        Args:
            pictures: Glances at each picture, RGB pixels (K, h, w, 3), uint8, on the CPU.

        Returns:
            Features of each picture.

        Raises:
            DeviceError: The device failed, or one glance does not fit into its memory.
        """
        alike: defaultdict[torch.Size, list[int]] = defaultdict(list)
        for index, glances in enumerate(pictures):
            alike[glances.shape[1:]].append(index)
        sights: dict[int, GlanceFeatures] = {}
        for indices in alike.values():
            glances = torch.cat([pictures[index] for index in indices])
            counts = [len(pictures[index]) for index in indices]
            parts = (torch.split(part, counts) for part in self._in_batches(self._look, glances))
            for index, logits, vectors, patches in zip(indices, *parts, strict=True):
                sights[index] = GlanceFeatures(logits.mean().item(), vectors.mean(0), patches)
        return [sights[index] for index in range(len(pictures))]

    def forward(self, tiles: Tensor, places: Sequence[CropPosition] = ()) -> CropOutputs:
        """Compute the outputs of any number of crops.

        The batch size (`batch_limit`) is halved permanently when memory runs out.

        Args:
            tiles: RGB pixels (N, S, S, 3), uint8, on the CPU.
            places: One per crop if the network has a prior, else empty.

        Returns:
            Outputs in the order of the tiles.

        Raises:
            DeviceError: The device failed, or one crop does not fit into its memory.
        """
        if not len(tiles):
            masks = torch.empty(0, self._crop_size // 4, self._crop_size // 4)
            return CropOutputs(torch.empty(0), masks, masks)
        return CropOutputs(*self._in_batches(self._compute, tiles, places))

    def _in_batches(
        self, compute: Callable[..., tuple[Tensor, ...]], *inputs: Any
    ) -> tuple[Tensor, ...]:
        parts: list[tuple[Tensor, ...]] = []
        start = 0
        while start < len(inputs[0]):
            stop = min(start + self.batch_limit, len(inputs[0]))
            try:
                parts.append(compute(*(rows[start:stop] for rows in inputs)))
            except RuntimeError as error:
                self._shrink_or_fail(error, stop - start)
            else:
                start = stop
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    @torch.inference_mode()
    def _look(self, glances: Tensor) -> tuple[Tensor, ...]:
        glance = self._model.look(self._levels(glances))
        return self._model.classify(glance).float().cpu(), *glance

    @torch.inference_mode()
    def _compute(self, tiles: Tensor, places: Sequence[CropPosition]) -> CropOutputs:
        glance = boxes = None
        if places:
            vectors = [place.sight.vector for place in places]
            patches = [place.sight.patches[place.look] for place in places]
            glance = Glance(torch.stack(vectors), torch.stack(patches))
            boxes = torch.stack([place.box for place in places]).to(self.device)
        output = self._model(self._levels(tiles), merged=self._merged, glance=glance, boxes=boxes)
        return CropOutputs(
            output.logits.float().cpu(), output.ai.float().cpu(), output.manipulation.float().cpu()
        )

    def _levels(self, pixels: Tensor) -> Tensor:
        return to_levels(pixels.to(self.device, non_blocking=True)).to(self.dtype)

    def _shrink_or_fail(self, error: RuntimeError, batch: int) -> None:
        """Halve the batch limit after an out-of-memory error; re-raise other errors."""
        if not _is_out_of_memory(error):
            if self.device.type == "cpu":
                raise error
            raise DeviceError(f"{self.device} failed: {error}") from error
        if batch == 1:
            raise DeviceError(f"one crop does not fit into the memory of {self.device}") from error
        clear_frames(error.__traceback__)  # frees the tensors of the failed pass
        self.batch_limit = batch // 2
        logger.warning("out of memory at %d crops; continuing with %d", batch, self.batch_limit)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _open(name: str) -> torch.device:
    """Return a device after a test copy to it and back."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # the error type depends on the backend
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise DeviceError(f"device {name!r} cannot be used: {reason}") from error
    return device


def require_finite(*outputs: Tensor) -> None:
    """Check that outputs are finite.

    Raises:
        ModelOutputError: A value is NaN or infinite.
    """
    if not all(output.isfinite().all() for output in outputs):
        raise ModelOutputError("the network's output is NaN or infinite")


def to_levels(tiles: Tensor) -> Tensor:
    """Convert RGB pixels (N, h, w, 3), uint8, to the network's input (N, 3, h, w), float32."""
    return tiles.permute(0, 3, 1, 2).float()


def preferred_dtype(device: torch.device) -> str:
    """Return `bfloat16` if the hardware has bfloat16 products, else `float32`."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
            return "bfloat16"
    return "float32"


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator has no error class.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
