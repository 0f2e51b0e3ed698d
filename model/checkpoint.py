"""Saving and loading checkpoints (Hugging Face directories) and pretrained encoder weights.

A checkpoint consists of `config.json`, `model.safetensors` and `README.md` (the model card). An
exported one also has a canary and, if it was evaluated, `results.json`. Pickles are never read:
they can run code.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NoReturn

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import tower
from model.canary import Canary
from model.config import FORMAT_VERSION, GammaConfig
from model.network import GammaModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
RESULTS_FILE = "results.json"
"""Evaluation results in machine-readable form; optional."""
CANARY_FILE = "canary.safetensors"
"""Pictures with known outputs; optional."""
BUILT_IN = Path(__file__).parent / "pretrained"
"""The checkpoint in the package."""

_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}

# Key names of other versions -> key names of `SegformerModel`, applied in this order: first those
# of Hugging Face before version 5, then those of the original MiT repository, whose stages count
# from 1 (see `_current_entries`).
_RENAMES = (
    (r"^encoder\.patch_embeddings\.(\d+)\.", r"stages.\1.patch_embeddings."),
    (r"^encoder\.block\.(\d+)\.", r"stages.\1.blocks."),
    (r"^encoder\.layer_norm\.(\d+)\.", r"stages.\1.layer_norm."),
    (r"\.attention\.self\.(query|key|value)\.", lambda m: f".attention.{m[1][0]}_proj."),
    (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.layer_norm_1\.", ".layernorm_before."),
    (r"\.layer_norm_2\.", ".layernorm_after."),
    (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
    (r"^patch_embed(\d)\.norm\.", r"stages.\1.patch_embeddings.layer_norm."),
    (r"^patch_embed(\d)\.", r"stages.\1.patch_embeddings."),
    (r"^block(\d)\.(\d+)\.norm1\.", r"stages.\1.blocks.\2.layernorm_before."),
    (r"^block(\d)\.(\d+)\.norm2\.", r"stages.\1.blocks.\2.layernorm_after."),
    (r"^block(\d)\.", r"stages.\1.blocks."),
    (r"^norm(\d)\.", r"stages.\1.layer_norm."),
    (r"\.attn\.q\.", ".attention.q_proj."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attn\.norm\.", ".attention.sequence_reduction.layer_norm."),
)
_WRAPPERS = r"^(segformer|pvt_v2|backbone|module)\."
_OTHER_PARTS = r"^(decode_head|classifier|head)\."


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file and, if any, the key."""


def save(model: GammaModel, directory: Path | str, *, card: str | None = None) -> None:
    """Write a network as a Hugging Face directory.

    Args:
        model: The network and its config.
        directory: Directory to write to; created if necessary.
        card: Text of the model card; by default generated from the config.
    """
    directory = Path(directory)
    model.save_pretrained(directory)
    text = default_card(model.config) if card is None else card
    (directory / CARD_FILE).write_text(text, encoding="utf-8")


def default_card(config: GammaConfig) -> str:
    """Return a model card generated from the config."""
    state = "trained" if config.trained else "untrained: its scores mean nothing"
    return (
        "---\nlibrary_name: transformers\npipeline_tag: image-classification\n"
        "tags: [gamma, ai-generated-image-detection]\n---\n\n"
        f"# {config.name} {config.version}\n\n"
        f"GAMMA on {config.backbone} ({state}). Heads: {config.heads}; cross-attention: "
        f"{config.cross_attention} over {config.key_value}.\n\n"
        f"Input: RGB crops of {config.crop_size} x {config.crop_size} pixels.\n"
    )


def load(source: Path | str) -> GammaModel:
    """Load a network, in evaluation mode.

    Args:
        source: A directory, or a hub id, optionally with a revision (`owner/name@revision`).

    Returns:
        The network, on the CPU, in float32.

    Raises:
        CheckpointError: The checkpoint does not exist or cannot be used.
    """
    directory = _resolve(source)
    config = _read_config(directory / CONFIG_FILE)
    model = GammaModel(config)
    _assign(model, _read_weights(directory / WEIGHTS_FILE), directory / WEIGHTS_FILE)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def load_results(source: Path | str) -> dict[str, Any] | None:
    """Load the evaluation results of a checkpoint.

    Args:
        source: As in `load`.

    Returns:
        A JSON object, or None if there are none.

    Raises:
        CheckpointError: The file is not a JSON object.
    """
    file = _resolve(source) / RESULTS_FILE
    if not file.is_file():
        return None
    return _read_json(file)


def load_canary(source: Path | str) -> Canary | None:
    """Load the canary of a checkpoint, or None if there is none.

    Args:
        source: As in `load`.

    Raises:
        CheckpointError: The file cannot be used.
    """
    file = _resolve(source) / CANARY_FILE
    if not file.is_file():
        return None
    try:
        canary = Canary(**{name: tensor.numpy() for name, tensor in _read_weights(file).items()})
    except TypeError as error:
        raise CheckpointError(f"{file}: not a canary") from error
    if canary.pictures.dtype != "uint8" or canary.pictures.ndim != 4 or not len(canary.pictures):
        raise CheckpointError(f"{file}: not a canary")
    return canary


def save_canary(canary: Canary, directory: Path) -> None:
    """Write the canary of a checkpoint."""
    tensors = {name: torch.from_numpy(array) for name, array in canary._asdict().items()}
    save_file(tensors, directory / CANARY_FILE)
    (directory / CANARY_FILE).chmod(0o644)  # safetensors makes files that only their owner can read


def digest(source: Path | str) -> str:
    """Compute a digest of everything that determines a checkpoint's outputs.

    Args:
        source: As in `load`.

    Returns:
        The first 16 hex digits of a SHA-256 over config and weights, those of the prior included.

    Raises:
        CheckpointError: The checkpoint does not exist.
    """
    directory = _resolve(source)
    config = _read_config(directory / CONFIG_FILE)
    fields = _read_json(directory / CONFIG_FILE)
    whole = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    files = [directory / WEIGHTS_FILE]
    if config.prior != "none":
        try:
            files += tower.files(config.tower)
        except tower.TowerError as error:
            raise CheckpointError(f"{source}: tower: {error}") from error
    for file in files:
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


def load_backbone(model: GammaModel, source: Path | str) -> None:
    """Load pretrained weights into the encoder of a network.

    Args:
        model: The network to change.
        source: A safetensors file, a directory that holds `model.safetensors`, or a hub id,
            optionally with a revision. Key names of Hugging Face (old and new), of the
            original MiT repository and of GAMMA checkpoints are accepted; weights of other
            parts are ignored.

    Raises:
        CheckpointError: The file does not exist or does not fit the encoder.
    """
    file = Path(source)
    if file.suffix != ".safetensors":
        file = _resolve(source) / WEIGHTS_FILE
    current = model.encoder.state_dict()
    read = _read_weights(file)
    weights = {name: read[key] for name in current if (key := f"encoder.{name}") in read}
    if len(weights) < len(current):  # not a GAMMA checkpoint
        for key, tensor in read.items():
            name = re.sub(_WRAPPERS, "", key)
            if not re.match(_OTHER_PARTS, name):
                weights.update(_current_entries(name, tensor, current))
    _assign(model.encoder, weights, file)


def _current_entries(name: str, tensor: Tensor, current: dict[str, Any]) -> dict[str, Tensor]:
    """Rename one entry; joint keys and values of the original repository are split."""
    if name in current:
        return {name: tensor}
    original = re.match(r"^(patch_embed|block|norm)\d", name) is not None
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    if original:
        name = re.sub(r"^stages\.(\d)", lambda match: f"stages.{int(match[1]) - 1}", name)
    if ".attn.kv." in name:
        key, value = tensor.chunk(2)
        return {
            name.replace(".attn.kv.", ".attention.k_proj."): key,
            name.replace(".attn.kv.", ".attention.v_proj."): value,
        }
    return {name: tensor}


def _resolve(source: Path | str) -> Path:
    """Return the directory of a checkpoint; download it if it is a hub id."""
    path = Path(source)
    if path.suffix in _PICKLE_SUFFIXES:
        raise CheckpointError(f"{path}: pickles are not read; convert it to safetensors")
    if path.is_dir():
        return path
    name, _, revision = str(source).partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, RESULTS_FILE, CANARY_FILE],
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{source}: neither a directory nor a model on the hub: {error}"
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; reject NaN and infinity, which are not JSON."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number")

    try:
        fields = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: missing") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    return fields


def _read_config(file: Path) -> GammaConfig:
    fields = _read_json(file)
    if fields.get("model_type") != GammaConfig.model_type:
        raise CheckpointError(f"{file}: model_type: not a {GammaConfig.model_type} checkpoint")
    version = fields.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{file}: format_version: {version!r} is not {FORMAT_VERSION}, the one this code reads"
        )
    try:
        return GammaConfig.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: {error}") from error


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        pickles = [p.name for p in sorted(file.parent.glob("*")) if p.suffix in _PICKLE_SUFFIXES]
        hint = f"; pickles ({', '.join(pickles)}) are not read" if pickles else ""
        raise CheckpointError(f"{file}: missing{hint}")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a safetensors file: {error}") from error


def _assign(module: torch.nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    """Load weights whose keys and shapes must match the module exactly."""
    expected = module.state_dict()
    for problem, keys in (
        ("missing key", sorted(expected.keys() - weights.keys())),
        ("unexpected key", sorted(weights.keys() - expected.keys())),
    ):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise CheckpointError(f"{file}: {problem} {keys[0]}{more}")
    for key, tensor in weights.items():
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{file}: {key} has shape {tuple(tensor.shape)}, "
                f"the network needs {tuple(expected[key].shape)}"
            )
    module.load_state_dict(weights)
