"""The network made ready to serve: frozen, merged, in the precision that the hardware likes."""

import logging
from traceback import clear_frames
from typing import NamedTuple

import torch
from torch import Tensor

from model.network import GammaModel, MergedHead

logger = logging.getLogger(__name__)


class DeviceError(RuntimeError):
    """The device cannot be used or failed, or not even one crop fits into its memory.

    The process should end.
    """


class CropOutputs(NamedTuple):
    """Raw outputs for N crops of side S, on the CPU, float32."""

    logits: Tensor
    """Image logits (N,)."""
    ai: Tensor
    """Logits of the AI mask (N, S/4, S/4)."""
    manipulation: Tensor
    """Logits of the manipulation mask (N, S/4, S/4)."""


class InferenceEngine:
    """Runs a GAMMA network over batches of crops. Not thread-safe: one thread calls `forward`."""

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
        self._model: torch.nn.Module = torch.nn.Module.to(model, self.device, self.dtype)

    def _freeze(self, head: MergedHead) -> MergedHead:
        def to(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, self.dtype).contiguous()

        matrices = {name: to(t) for name, t in head._asdict().items() if isinstance(t, Tensor)}
        return head._replace(stages=tuple(map(to, head.stages)), **matrices)

    def warm_up(self) -> None:
        """Compute one batch of every size there can be, so that no later one pays for set-up."""
        size = self._crop_size
        for count in range(self.batch_limit, 0, -1):
            self.forward(torch.zeros(count, size, size, 3, dtype=torch.uint8))

    def forward(self, tiles: Tensor) -> CropOutputs:
        """Compute the outputs of any number of crops.

        When memory runs out, batches are halved and stay so (`batch_limit` says how large).

        Args:
            tiles: RGB pixels (N, S, S, 3), uint8, on the CPU.

        Returns:
            Outputs in the order of the tiles.

        Raises:
            DeviceError: The device failed, or a single crop does not fit into its memory.
        """
        parts: list[CropOutputs] = []
        start = 0
        while start < len(tiles):
            batch = tiles[start : start + self.batch_limit]
            try:
                parts.append(self._compute(batch))
            except RuntimeError as error:
                self._shrink_or_fail(error, len(batch))
            else:
                start += len(batch)
        return CropOutputs(*(torch.cat(part) for part in zip(*parts, strict=True)))

    @torch.inference_mode()
    def _compute(self, tiles: Tensor) -> CropOutputs:
        levels = to_levels(tiles.to(self.device, non_blocking=True)).to(self.dtype)
        output = self._model(levels, merged=self._merged)
        return CropOutputs(
            output.logits.float().cpu(), output.ai.float().cpu(), output.manipulation.float().cpu()
        )

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
