"""Inpainting in the latent space of an autoencoder, fast enough for a CPU.

The whole picture is encoded and decoded, as in latent diffusion inpainting; latents inside the
region are replaced by noise or by those of another picture.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.engines import EngineError, Fill, Task, pad
from training.data.labels import Kind

_WIDTH = 64  # channels
_POOL_WIDTH = 256
_POOL_GROUPS = 4
_TAEF2_LATENTS = 32  # channels


class Autoencoder(Protocol):
    """Maps pictures (1, 3, H, W) in [0, 1] to latents (1, C, H/factor, W/factor) and back."""

    factor: int

    def encode(self, picture: Tensor) -> Tensor:
        """Encode a picture whose sides are multiples of the factor."""

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents; values may slightly exceed [0, 1]."""


class _Block(nn.Module):
    """Residual block of three convolutions; `pooled` adds a group-normalised branch before."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(_WIDTH), nn.ReLU(), _conv(_WIDTH), nn.ReLU(), _conv(_WIDTH))
        self.pool = (
            nn.Sequential(
                nn.Conv2d(_WIDTH, _POOL_WIDTH, 1, bias=False),
                nn.GroupNorm(_POOL_GROUPS, _POOL_WIDTH),
                nn.ReLU(),
                nn.Conv2d(_POOL_WIDTH, _WIDTH, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 64, H, W) to the same shape."""
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class _Bounded(nn.Module):
    """Latents softly clipped to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class TinyFlux2(nn.Module):
    """The tiny autoencoder for the latent space of FLUX.2 (TAEF2, 1.3 M weights each way)."""

    factor = 8

    def __init__(self) -> None:
        super().__init__()
        down: list[nn.Module] = [nn.Conv2d(3, _WIDTH, 3, padding=1), _Block()]
        for pooled in (False, False, True):
            down.append(nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1, bias=False))
            down += [_Block(pooled=pooled) for _ in range(3)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(_WIDTH, _TAEF2_LATENTS, 3, padding=1))
        up: list[nn.Module] = [
            _Bounded(),
            nn.Conv2d(_TAEF2_LATENTS, _WIDTH, 3, padding=1),
            nn.ReLU(),
            *(_Block(pooled=True) for _ in range(3)),
        ]
        for blocks in (3, 3, 1):
            up += [nn.Upsample(scale_factor=2), _conv(_WIDTH, bias=False)]
            up += [_Block() for _ in range(blocks)]
        self.decoder = nn.Sequential(*up, nn.Conv2d(_WIDTH, 3, 3, padding=1))

    def encode(self, picture: Tensor) -> Tensor:
        """Encode (B, 3, H, W) in [0, 1] to (B, 32, H/8, W/8)."""
        latents: Tensor = self.encoder(picture)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Decode (B, 32, h, w) to (B, 3, 8h, 8w), approximately in [0, 1]."""
        picture: Tensor = self.decoder(latents)
        return picture


class _DiffusersAutoencoder:
    """`AutoencoderKL` or `AutoencoderTiny`, whose pictures are in [-1, 1]."""

    def __init__(self, model: str, device: str) -> None:
        from diffusers import AutoencoderKL, AutoencoderTiny, AutoModel

        try:
            loaded: Any = AutoModel.from_pretrained(  # type: ignore[no-untyped-call]
                model, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise EngineError(f"{model}: not a usable autoencoder: {error}") from error
        self._is_tiny = isinstance(loaded, AutoencoderTiny)
        if not self._is_tiny and not isinstance(loaded, AutoencoderKL):
            raise EngineError(
                f"{model}: a {type(loaded).__name__}, not AutoencoderKL or AutoencoderTiny"
            )
        self._model = loaded.to(device).eval()
        self.factor = 2 ** (len(self._model.config.block_out_channels) - 1)

    def encode(self, picture: Tensor) -> Tensor:
        encoded = self._model.encode(2 * picture - 1)
        latents: Tensor = encoded.latents if self._is_tiny else encoded.latent_dist.mode()
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        decoded: Tensor = self._model.decode(latents).sample
        return (decoded + 1) / 2


def load(model: str, device: str) -> Autoencoder:
    """Load an autoencoder.

    Args:
        model: Hub id or directory of `AutoencoderKL` or `AutoencoderTiny`, or a directory
            with TAEF2 as `*encoder` and `*decoder`, `.safetensors` or `.pth` (only tensors are
            unpickled).
        device: A torch device.

    Raises:
        EngineError: It cannot be used.
    """
    folder = Path(model)
    if not folder.is_dir() or (folder / "config.json").exists():
        return _DiffusersAutoencoder(model, device)
    tiny = TinyFlux2()
    for part, network in (("encoder", tiny.encoder), ("decoder", tiny.decoder)):
        file = _weights(folder, part)
        try:
            network.load_state_dict(_tensors(file))
        except (RuntimeError, OSError, ValueError, pickle.UnpicklingError) as error:
            raise EngineError(f"{file}: not the weights of TAEF2's {part}: {error}") from error
    # Convolutions on a CPU are twice as fast in this layout.
    tiny.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return tiny.to(device).eval()


class AutoencoderEngine:
    """Replaces the latents of a region and decodes the whole picture."""

    kind = Kind.INPAINT

    def __init__(self, model: str, *, fill: Fill, device: str) -> None:
        """Load the autoencoder.

        Args:
            model: As in `load`.
            fill: Replacement of the latents in the region.
            device: A torch device.

        Raises:
            EngineError: The autoencoder cannot be used.
        """
        self._autoencoder = load(model, device)
        self._device = device
        self.fill = fill.value
        self.settings: dict[str, JsonValue] = {
            "engine": "autoencoder",
            "model": model,
            "fill": fill.value,
        }
        self.wants_donor = fill is Fill.DONOR
        is_taef2 = isinstance(self._autoencoder, TinyFlux2)
        local = Path(model).resolve().name if Path(model).exists() else model
        self.generator = "taef2" if is_taef2 else local

    @torch.inference_mode()
    def repaint(self, task: Task) -> NDArray[np.uint8]:
        """Return the picture decoded after replacing the latents in the region."""
        height, width = task.region.shape
        latents = self._encode(task.picture)  # (1, C, h, w)
        if task.donor is None:
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(task.seed))
            deviation, mean = torch.std_mean(latents, dim=(2, 3), keepdim=True)
            new = mean + deviation * noise.to(self._device)
        else:
            new = self._encode(_crop_to(task.donor, height, width))
        region = torch.from_numpy(pad(task.region.astype(np.uint8), self._autoencoder.factor))
        covered = F.avg_pool2d(region[None, None].float(), self._autoencoder.factor)
        inside = covered >= 0.5  # (1, 1, h, w); a thin region may cover no latent to one half
        inside = inside if inside.any() else covered > 0
        latents = torch.where(inside.to(self._device), new, latents)
        decoded = self._autoencoder.decode(latents)[0, :, :height, :width]
        pixels = decoded.clamp(0, 1).mul(255).round().to(torch.uint8)
        return pixels.permute(1, 2, 0).cpu().numpy()

    def _encode(self, picture: NDArray[np.uint8]) -> Tensor:
        padded = torch.from_numpy(pad(picture, self._autoencoder.factor)).to(self._device)
        return self._autoencoder.encode(padded.permute(2, 0, 1)[None].float() / 255)


def _conv(channels: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=bias)


def _weights(folder: Path, part: str) -> Path:
    for suffix in ("safetensors", "pth"):
        found = sorted(folder.glob(f"*{part}.{suffix}"))
        if len(found) > 1:
            raise EngineError(f"{folder}: more than one *{part}.{suffix}")
        if found:
            return found[0]
    raise EngineError(f"{folder}: neither config.json nor *{part}.safetensors or *{part}.pth")


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict):
        raise EngineError(f"{file}: not a dictionary of tensors")
    return tensors


def _crop_to(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Crop a picture to its centre; a smaller one is padded by reflection."""
    missing = [
        (0, max(0, wanted - length))
        for wanted, length in zip((height, width), picture.shape[:2], strict=True)
    ]
    whole = np.pad(picture, [*missing, (0, 0)], mode="symmetric")
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    return whole[top : top + height, left : left + width]
