"""Export of a run to a serving checkpoint with a model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from model import canary, checkpoint
from model.checkpoint import CONFIG_FILE, RESULTS_FILE, WEIGHTS_FILE
from model.network import GammaModel
from pictures.errors import PictureError
from pictures.findings import View
from training.data.changes import RAW
from training.errors import UserError
from training.measuring.card import RunFacts, short_results, write_card
from training.measuring.scores import Job, make_detector, score
from training.measuring.suites import PictureSet
from training.output import to_json, write_text

TOLERANCE = 0.005
"""Maximum change of a probability by storing weights in half precision."""
_LARGE = 5_000  # elements of a tensor
_DIGITS = 8  # digits of the digest in a version


class ExportError(UserError):
    """A checkpoint cannot be exported; the message says why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Facts about an exported checkpoint."""

    version: str
    size: int
    """Size of the weights, bytes."""
    largest_difference: float | None
    """Largest change of a probability by half precision; None without it."""


def checkpoint_of(source: Path) -> Path:
    """Return the checkpoint of a run directory, or the directory itself."""
    model = source / "model"
    return model if (model / CONFIG_FILE).is_file() else source


def export(
    source: Path,
    out: Path,
    facts: RunFacts,
    *,
    version: str | None = None,
    half: bool = False,
    check: Sequence[PictureSet] = (),
) -> Exported:
    """Write a serving checkpoint.

    Args:
        source: Checkpoint to export.
        out: Directory to create, atomically.
        facts: Facts for the card.
        version: Version of the model; by default the checkpoint's, `+` and a digest of weights and
            config, so that it is unique.
        half: Store large tensors in float16; inference does not change.
        check: Pictures whose scores must not change; required with `half`.

    Returns:
        Facts about the checkpoint.

    Raises:
        ExportError: `out` exists, the network is untrained or lacks a head, or half precision
            changes a score by more than `TOLERANCE`.
        CheckpointError: `source` cannot be loaded.
    """
    if out.exists():
        raise ExportError(f"{out} exists; choose another directory")
    if half and not check:
        raise ExportError("half precision needs pictures for a check (--check)")
    model = checkpoint.load(source)
    if not model.config.trained:
        raise ExportError(f"{source}: trained: false; only trained networks are exported")
    if model.config.heads != "both":
        raise ExportError(f"{source}: heads: {model.config.heads}; serving needs both")
    digest = checkpoint.digest(source)[:_DIGITS]
    model.config.version = version or f"{model.config.version}+{digest}"
    with _directory(out) as partial:
        checkpoint.save(model, partial, card=write_card(model.config, facts, half=half))
        results = None if facts.evaluation is None else short_results(facts.evaluation)
        if results is not None:
            write_text(to_json(results, indent=2), partial / RESULTS_FILE)
        difference = None
        if half:
            _halve(partial / WEIGHTS_FILE)
            difference = _compare(model, checkpoint.load(partial), check)
        write_canary(partial)
        (partial / WEIGHTS_FILE).chmod(
            0o644
        )  # safetensors makes files that only their owner can read
        size = (partial / WEIGHTS_FILE).stat().st_size
    return Exported(model.config.version, size, difference)


def write_canary(directory: Path) -> None:
    """Write or replace the canary of a checkpoint.

    Raises:
        ModelOutputError: Outputs of the network are not finite.
    """
    detector = make_detector(checkpoint.load(directory), device="cpu", dtype="float32")
    checkpoint.save_canary(canary.choose(detector), directory)


def push(directory: Path, repository: str) -> str:
    """Upload an exported checkpoint to the Hugging Face hub.

    Args:
        directory: Directory of the checkpoint.
        repository: `owner/name`; created as private if it does not exist.

    Returns:
        URL of the repository.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    address = hub.create_repo(repository, private=True, exist_ok=True)
    hub.upload_folder(repo_id=repository, folder_path=directory)
    return str(address)


@contextmanager
def _directory(out: Path) -> Iterator[Path]:
    """Yield a temporary directory that is renamed to `out` if the block succeeds."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _halve(file: Path) -> None:
    """Convert large tensors to float16; small ones matter for accuracy but not for size."""
    weights = load_file(file)
    halved = {name: t.half() if t.numel() >= _LARGE else t for name, t in weights.items()}
    save_file(halved, file, metadata={"format": "pt"})


def _compare(full: GammaModel, half: GammaModel, sets: Sequence[PictureSet]) -> float:
    """Return the largest difference between the probabilities of two networks."""
    jobs = [Job(s.name, row, s.folder, RAW, masks=False) for s in sets for row in s.rows]
    probabilities = []
    for model in (full, half):
        detector = make_detector(model, dtype="float32")
        found = [score for _, score in score(detector, jobs, View.TILED)]
        probabilities.append(
            [f.detection.ai_probability for f in found if not isinstance(f, PictureError)]
        )
    if not probabilities[0]:
        raise ExportError("none of the pictures of --check can be read")
    difference = float(torch.tensor(probabilities).diff(dim=0).abs().max())
    if not difference <= TOLERANCE:
        raise ExportError(
            f"half precision changes a probability by {difference:.4f}, more than {TOLERANCE}; "
            "export without it"
        )
    return difference
