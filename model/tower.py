"""The frozen image tower of the glance: CLIP ViT-B/16 up to its tenth block, and its weights.

The weights are OpenAI's (MIT licence). The file in the package stores the matrices of the blocks as
8-bit integers, symmetric, with one scale per row; the network computes in floating point.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

BUILT_IN = Path(__file__).parent / "clip_vit_b16" / "tower.safetensors"
"""Weights in the package."""
PATCH = 16
"""Side of a patch, pixels."""
GRID = 14
"""Patches along each side of a square glance."""
WIDTH = 768
"""Channels of a token."""
BLOCKS = (8, 9, 10)
"""Blocks whose class tokens are used, counted from 1."""
DEPTH = max(BLOCKS)
"""Number of blocks computed; the patch tokens come from the last."""
TOKENS = len(BLOCKS) * WIDTH
"""Length of the concatenated class tokens."""

_SCALE = ".scale"
_LARGEST = 127  # integer
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # normalisation of the tower's training
_STD = (0.26862954, 0.26130258, 0.27577711)


class TowerError(Exception):
    """The weights of the tower cannot be loaded; the message names the file or the hub id."""


class TowerFeatures(NamedTuple):
    """Features of B pictures; the shapes do not depend on the pictures' sizes."""

    tokens: Tensor
    """Class tokens of `BLOCKS`, each with mean 0 and variance 1 (B, TOKENS)."""
    patches: Tensor
    """Patch tokens, each likewise, resampled to a square grid (B, GRID, GRID, WIDTH)."""


class Tower(nn.Module):
    """CLIP's image tower, frozen."""

    def __init__(self, clip: CLIPVisionModel) -> None:
        """Freeze `clip` (it is changed in place)."""
        super().__init__()
        self.clip = clip.eval().requires_grad_(False)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def forward(self, levels: Tensor) -> TowerFeatures:
        """Compute the features of pictures.

        Args:
            levels: RGB (B, 3, h, w), 0 to 255; h and w are multiples of PATCH. The position
                embeddings are interpolated for sizes other than 224 x 224.

        Returns:
            Features in the precision of the weights.
        """
        weight = self.clip.embeddings.patch_embedding.weight
        mean, std = (
            levels.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (_MEAN, _STD)
        )
        pixels = ((levels.float() / 255 - mean) / std).to(weight.dtype)
        height, width = (side // PATCH for side in levels.shape[2:])
        output = self.clip(
            pixels,
            output_hidden_states=True,
            interpolate_pos_encoding=(height, width) != (GRID, GRID),
        )
        states = output.hidden_states  # states[0] is the input of block 1
        tokens = [_standardise(states[block][:, 0]) for block in BLOCKS]
        patches = _standardise(states[DEPTH][:, 1:]).reshape(len(levels), height, width, WIDTH)
        if (height, width) != (GRID, GRID):
            maps = F.interpolate(patches.permute(0, 3, 1, 2), (GRID, GRID), mode="bilinear")
            patches = maps.permute(0, 2, 3, 1)
        return TowerFeatures(torch.cat(tokens, 1), patches)


def _standardise(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def load(source: str = "") -> Tower:
    """Load the tower, in float32 on the CPU.

    Args:
        source: Directory or hub id of a CLIP ViT-B/16; empty: the weights in the package.

    Raises:
        TowerError: The weights are missing, damaged, or of another network.
    """
    try:
        if source:
            loaded: Any = CLIPVisionModel.from_pretrained(
                source, num_hidden_layers=DEPTH, use_safetensors=True, output_loading_info=True
            )
            clip, found = loaded
            if found["missing_keys"]:
                raise TowerError(f"{source}: not a CLIP ViT-B/16")
        else:
            clip = _build(read(BUILT_IN))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TowerError(f"{source or BUILT_IN}: {error}") from error
    config = clip.config
    if (config.hidden_size, config.num_hidden_layers, config.patch_size) != (WIDTH, DEPTH, PATCH):
        raise TowerError(f"{source}: not a CLIP ViT-B/16")
    return Tower(clip)


def files(source: str = "") -> list[Path]:
    """Return the weight files that `load` reads.

    Args:
        source: As in `load`.

    Raises:
        TowerError: They cannot be found or downloaded.
    """
    if not source:
        return [BUILT_IN]
    folder = Path(source)
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(source, allow_patterns=["*.safetensors"]))
        return sorted(folder.glob("*.safetensors"))
    except (OSError, ValueError) as error:
        raise TowerError(f"{source}: {error}") from error


def _build(weights: dict[str, Tensor]) -> CLIPVisionModel:
    with torch.device("meta"):  # random initialisation would take seconds
        clip = CLIPVisionModel(
            CLIPVisionConfig(image_size=224, patch_size=PATCH, num_hidden_layers=DEPTH)
        )
    embeddings = clip.embeddings
    positions = torch.arange(embeddings.num_positions)[None]
    embeddings.register_buffer("position_ids", positions, persistent=False)
    clip.load_state_dict(weights, assign=True)
    return clip


def write(weights: dict[str, Tensor], file: Path) -> None:
    """Write weights in the 8-bit format of the package.

    Args:
        weights: Tensors by name, floating point.
        file: Where to write.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.dim() < 2 or name.startswith("embeddings."):
            stored[name] = tensor.half().contiguous()
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / _LARGEST
        stored[name] = (rows / scale).round().to(torch.int8).view(tensor.shape)
        stored[f"{name}{_SCALE}"] = scale.squeeze(1)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(stored, file)


def read(file: Path) -> dict[str, Tensor]:
    """Read a file that `write` wrote; returns float32 tensors by name."""
    stored = load_file(file)
    weights: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            scale = stored[f"{name}{_SCALE}"]
            weights[name] = (tensor.flatten(1) * scale[:, None]).view(tensor.shape)
        elif not name.endswith(_SCALE):
            weights[name] = tensor.float()
    return weights
