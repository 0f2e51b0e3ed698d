"""The network made ready to serve: frozen, merged, in the precision that the hardware likes."""

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
    """The device cannot be used or failed, or not even one crop fits into its memory.

    The process should end.
    """


class ModelOutputError(Exception):
    """The network answered with NaN or infinity, which says nothing of a picture."""


class CropOutputs(NamedTuple):
    """Raw outputs for N crops of side S, on the CPU, float32."""

    logits: Tensor
    """Image logits (N,)."""
    ai: Tensor
    """Logits of the AI mask (N, S/4, S/4)."""
    manipulation: Tensor
    """Logits of the manipulation mask (N, S/4, S/4)."""


class Sight(NamedTuple):
    """What the network has of K glances at one picture; the tensors stay on the device."""

    logit: float
    """Image logit of the glances alone, their mean."""
    vector: Tensor
    """As in `Glance`, the mean of the glances (C_dec,)."""
    patches: Tensor
    """As in `Glance` (K, 14, 14, C_3 + C_4)."""


class Place(NamedTuple):
    """Where a crop lies in what was glanced at."""

    sight: Sight
    """That of its picture."""
    look: int
    """Which of the glances."""
    box: Tensor
    """Left, top, right, bottom as shares of that glance (4,), on the CPU."""


class Part(NamedTuple):
    """Some of the crops of a picture: `start` to `stop`, by default all."""

    crops: Crops
    sight: Sight | None
    """What `model.detector.Detector.look` returned of the picture."""
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
            device: A torch device, or `auto`: CUDA if there is any, else the CPU.
            dtype: `float32`, `bfloat16`, or `auto`: bfloat16 where the hardware computes in it.
            max_batch: Most crops to compute at once. A CPU computes them one by one whatever
                this says: a larger batch costs it more per crop, see the README.

        Raises:
            ValueError: A head is missing, or the dtype is not one of those named.
            DeviceError: There is no such device, or it does not work.
            TowerError: The weights of the prior cannot be loaded.
        """
        if model.config.heads != "both":
            raise ValueError("serving needs both segmentation heads")
        if dtype not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"dtype must be auto, float32 or bfloat16, not {dtype!r}")
        self.device = _open(device)
        self.dtype = getattr(torch, preferred_dtype(self.device) if dtype == "auto" else dtype)
        # Larger maps leave a CPU's caches: B0 takes 1.5 times as long per crop at 8 as at 1.
        self.batch_limit = 1 if self.device.type == "cpu" else max_batch
        self._crop_size = model.config.crop_size
        model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
        # Merged in float32 first: rounding the products loses less than rounding the factors.
        self._merged = {head: self._freeze(part) for head, part in model.merge().items()}
        self._model: Any = torch.nn.Module.to(model, self.device, self.dtype)
        self.glances = model.glance is not None
        """Whether the network has a prior, which glances at the whole picture."""
        if model.glance is not None:
            model.glance.load_tower(self.device, self.dtype)  # what is wrong with it shows here

    def _freeze(self, head: MergedHead) -> MergedHead:
        def to(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, self.dtype).contiguous()

        matrices = {name: to(t) for name, t in head._asdict().items() if isinstance(t, Tensor)}
        return head._replace(stages=tuple(map(to, head.stages)), **matrices)

    def has_finite_weights(self) -> bool:
        """Whether no weight is NaN or infinite; some of these no picture would show."""
        return all(bool(torch.isfinite(one).all()) for one in self._model.parameters())

    def warm_up(self) -> None:
        """Compute one batch of every size there can be, so that no later one pays for set-up.

        Raises:
            DeviceError: The device failed.
            ModelOutputError: An output is not finite.
        """
        size = self._crop_size
        places: list[Place] = []
        for count in range(self.batch_limit, 0, -1):
            if self.glances:
                for height, width in views.GLANCE_SIZES:
                    (sight,) = self.look([torch.zeros(count, height, width, 3, dtype=torch.uint8)])
                places = [Place(sight, 0, torch.tensor([0.0, 0.0, 1.0, 1.0]))] * count
            blank = torch.zeros(count, size, size, 3, dtype=torch.uint8)
            require_finite(*self.forward(blank, places))

    def look(self, pictures: Sequence[Tensor]) -> list[Sight]:
        """Glance at any number of pictures; those of one size are computed together.

        When memory runs out, batches are halved and stay so, as in `forward`.

        Args:
            pictures: The glances at each, RGB pixels (K, h, w, 3), uint8, on the CPU.

        Returns:
            What was seen of each.

        Raises:
            DeviceError: The device failed, or a single glance does not fit into its memory.
        """
        alike: defaultdict[torch.Size, list[int]] = defaultdict(list)
        for index, glances in enumerate(pictures):
            alike[glances.shape[1:]].append(index)
        sights: dict[int, Sight] = {}
        for indices in alike.values():
            glances = torch.cat([pictures[index] for index in indices])
            counts = [len(pictures[index]) for index in indices]
            parts = (torch.split(part, counts) for part in self._in_batches(self._look, glances))
            for index, logits, vectors, patches in zip(indices, *parts, strict=True):
                sights[index] = Sight(logits.mean().item(), vectors.mean(0), patches)
        return [sights[index] for index in range(len(pictures))]

    def forward(self, tiles: Tensor, places: Sequence[Place] = ()) -> CropOutputs:
        """Compute the outputs of any number of crops.

        When memory runs out, batches are halved and stay so (`batch_limit` says how large).

        Args:
            tiles: RGB pixels (N, S, S, 3), uint8, on the CPU.
            places: One a crop if the network has a prior, else none.

        Returns:
            Outputs in the order of the tiles.

        Raises:
            DeviceError: The device failed, or a single crop does not fit into its memory.
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
    def _compute(self, tiles: Tensor, places: Sequence[Place]) -> CropOutputs:
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
        """Halve the batch limit after an out-of-memory error; raise anything else."""
        if not _is_out_of_memory(error):
            if self.device.type == "cpu":
                raise error
            raise DeviceError(f"{self.device} failed: {error}") from error
        if batch == 1:
            raise DeviceError(f"one crop does not fit into the memory of {self.device}") from error
        clear_frames(error.__traceback__)  # they hold what the failed pass had computed
        self.batch_limit = batch // 2
        logger.warning("out of memory at %d crops; going on with %d", batch, self.batch_limit)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _open(name: str) -> torch.device:
    """Return the device of that name once a number has been there and back."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # each of torch's backends has its own way of not being there
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise DeviceError(f"device {name!r} cannot be used: {reason}") from error
    return device


def require_finite(*outputs: Tensor) -> None:
    """See that numbers are numbers.

    Raises:
        ModelOutputError: One of them is NaN or infinite.
    """
    if not all(output.isfinite().all() for output in outputs):
        raise ModelOutputError("the network answers with NaN or infinity")


def to_levels(tiles: Tensor) -> Tensor:
    """Turn RGB pixels (N, h, w, 3), uint8, into what the network takes: (N, 3, h, w), float32."""
    return tiles.permute(0, 3, 1, 2).float()


def preferred_dtype(device: torch.device) -> str:
    """Return bfloat16 where the hardware multiplies in it, float32 elsewhere."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
            return "bfloat16"
    return "float32"


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no error class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
