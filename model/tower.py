"""The frozen image tower of the glance: CLIP ViT-B/16, and the packed file that ships its weights.

The weights are OpenAI's (MIT licence). A packed file stores every matrix in a few bits: symmetric
integers with one scale for each group of inputs. Everything else is stored in float16.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

BUILT_IN = Path(__file__).parent / "clip_vit_b16" / "tower.safetensors"
"""The packed weights that come with the package."""
PATCH = 16
"""Side of a patch, pixels."""
WIDTH = 768
"""Channels of a token."""
GRID = 14
"""Patches along each side of a square glance."""
BLOCKS = (8, 9, 10)
"""Blocks whose class tokens are used, counted from 1."""
PATCH_BLOCK = 10
"""Block whose patch tokens are used."""
EMBEDDING = 512
"""Length of the embedding."""
TOKENS = len(BLOCKS) * WIDTH + EMBEDDING
"""Numbers that describe a picture: the class tokens, and the embedding."""

_BITS = 6
_GROUP = 64  # inputs that share a scale
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # as the tower was trained
_STD = (0.26862954, 0.26130258, 0.27577711)


class TowerError(Exception):
    """The weights of the tower cannot be loaded; the message names the file or the hub id."""


class TowerFeatures(NamedTuple):
    """What the tower says of B pictures; of any shape, and yet alike enough to share a batch."""

    tokens: Tensor
    """Class tokens of `BLOCKS` and the embedding, each with mean 0 and variance 1 (B, TOKENS)."""
    patches: Tensor
    """Patch tokens, each likewise, resampled to a square grid (B, GRID, GRID, WIDTH)."""


class Tower(nn.Module):
    """CLIP's image tower, frozen."""

    def __init__(self, clip: CLIPVisionModelWithProjection) -> None:
        """Freeze `clip` (it is changed in place)."""
        super().__init__()
        self.clip = clip.eval().requires_grad_(False)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def forward(self, levels: Tensor) -> TowerFeatures:
        """Look at pictures.

        Args:
            levels: RGB (B, 3, h, w), 0 to 255; h and w are multiples of PATCH. The position
                embeddings are interpolated for sizes other than 224 x 224.

        Returns:
            Features in the precision of the weights.
        """
        weight = self.clip.visual_projection.weight
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
        states = output.hidden_states  # the first is the input of the first block
        tokens = [*(states[block][:, 0] for block in BLOCKS), output.image_embeds]
        patches = _standardise(states[PATCH_BLOCK][:, 1:]).unflatten(1, (height, width))
        if (height, width) != (GRID, GRID):
            maps = F.interpolate(patches.permute(0, 3, 1, 2), (GRID, GRID), mode="bilinear")
            patches = maps.permute(0, 2, 3, 1)
        return TowerFeatures(torch.cat(list(map(_standardise, tokens)), 1), patches)


def _standardise(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def load(source: str = "") -> Tower:
    """Load the tower, in float32 on the CPU.

    Args:
        source: Directory or hub id of a CLIP ViT-B/16; empty for the weights that ship.

    Raises:
        TowerError: There are no such weights, or they are of another network.
    """
    try:
        if source:
            clip = CLIPVisionModelWithProjection.from_pretrained(source, use_safetensors=True)
        else:
            clip = _build(unpack(BUILT_IN))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TowerError(f"{source or BUILT_IN}: {error}") from error
    config = clip.config
    shape = (config.hidden_size, config.num_hidden_layers, config.patch_size, config.projection_dim)
    if shape != (WIDTH, 12, PATCH, EMBEDDING):
        raise TowerError(f"{source}: not a CLIP ViT-B/16")
    return Tower(clip)


def _build(weights: dict[str, Tensor]) -> CLIPVisionModelWithProjection:
    with torch.device("meta"):  # drawing 86 million weights first would take seconds
        clip = CLIPVisionModelWithProjection(
            CLIPVisionConfig(image_size=224, patch_size=PATCH, projection_dim=EMBEDDING)
        )
    embeddings = clip.vision_model.embeddings
    positions = torch.arange(embeddings.num_positions)[None]
    embeddings.register_buffer("position_ids", positions, persistent=False)
    clip.load_state_dict(weights, assign=True)
    return clip


def pack(weights: dict[str, Tensor], file: Path, bits: int = _BITS, group: int = _GROUP) -> None:
    """Write a packed file.

    Args:
        weights: Tensors by name; those of two dimensions and more than 1 M numbers are packed.
        file: Where to write.
        bits: Bits of a packed number.
        group: Inputs that share a scale; the length of the last dimension is a multiple of it.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        matrix = tensor.flatten(1) if tensor.dim() > 1 else tensor
        if matrix.dim() < 2 or matrix.numel() < 100_000 or matrix.shape[1] % group:
            stored[name] = tensor.half().contiguous()
            continue
        groups = matrix.float().unflatten(1, (-1, group))  # (out, n, group)
        largest = 2 ** (bits - 1) - 1
        scale = (groups.abs().amax(2, keepdim=True) / largest).half().float()
        whole = (groups / scale.clamp(min=1e-12)).round().clamp(-largest, largest)
        stored[f"{name}.scale"] = scale.squeeze(2).half()
        stored[f"{name}.packed"] = _to_bits(whole.int().flatten() + largest, bits)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(stored, file, {"bits": str(bits), "group": str(group)})


def unpack(file: Path) -> dict[str, Tensor]:
    """Read a packed file.

    Returns:
        Tensors by name, float32; packed matrices have two dimensions or the shape that the patch
        embedding needs.
    """
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    bits, group = int(metadata["bits"]), int(metadata["group"])
    largest = 2 ** (bits - 1) - 1
    weights: dict[str, Tensor] = {}
    stored = load_file(file)
    for name, tensor in stored.items():
        if name.endswith(".packed"):
            scale = stored[name.removesuffix("packed") + "scale"].float()[..., None]  # (out, n, 1)
            whole = _from_bits(tensor, bits, scale.numel() * group)
            matrix = (whole.view(*scale.shape[:2], group) - largest) * scale
            weights[name.removesuffix(".packed")] = matrix.flatten(1)
        elif not name.endswith(".scale"):
            weights[name] = tensor.float()
    patches = "vision_model.embeddings.patch_embedding.weight"
    if patches in weights:
        weights[patches] = weights[patches].reshape(-1, 3, PATCH, PATCH)
    return weights


def _to_bits(values: Tensor, bits: int) -> Tensor:
    """Pack numbers of `bits` bits, eight of them into `bits` bytes."""
    eights = values.view(-1, 8).long()
    word = (eights << (bits * torch.arange(8))).sum(1)  # at most 56 bits
    return torch.stack([(word >> (8 * i)) & 255 for i in range(bits)], 1).to(torch.uint8).flatten()


def _from_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    parts = packed.view(-1, bits).long()
    word = (parts << (8 * torch.arange(bits))).sum(1)
    numbers = [(word >> (bits * i)) & (2**bits - 1) for i in range(8)]
    return torch.stack(numbers, 1).flatten()[:count].float()
