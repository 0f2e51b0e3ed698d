"""The `gamma-train data` commands that make pictures: tamper, inpaint, blend, crop, align."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

import typer
from pydantic import JsonValue
from rich.table import Table

from pictures.finding import summarise
from training.data import journal, objects, originals
from training.data.align import Aligner
from training.data.blend import Blender
from training.data.crop import Cropper
from training.data.engines import ClassicalEngine, Engine, Fill, RetouchEngine
from training.data.inpaint import Inpainter, InpaintError, Plan
from training.data.manifest import Row
from training.data.masks import MaskType
from training.data.objects import Objects
from training.data.originals import Originals
from training.data.tamper import Forger, Tampering
from training.output import console

_SHOWN = 20  # reasons printed; the journal has all
_output = console()
_errors = console(stderr=True)

_Originals = Annotated[
    Path,
    typer.Argument(
        exists=True, help="Authentic pictures: a manifest (other kinds are skipped) or a folder"
    ),
]
_Out = Annotated[
    Path,
    typer.Argument(
        file_okay=False, help="Folder for pictures and manifest.jsonl; an existing run continues"
    ),
]
_OBJECTS = typer.Option(
    "--objects",
    exists=True,
    help="COCO's instances_*.json, or a folder of object maps: PNGs named like the pictures, "
    "one colour per object class, black = background",
)
_Manifest = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Manifest of any kinds")
]
_Count = Annotated[
    int | None, typer.Option(min=1, help="Number of items [default: one per picture]")
]
_Seed = Annotated[int, typer.Option(min=0, help="Random seed")]
_Workers = Annotated[int, typer.Option(min=1, help="Number of threads")]
_EngineName = Literal["autoencoder", "diffusers", "classical", "retouch"]
_NOT_AI: dict[str, Callable[[], Engine]] = {
    "classical": ClassicalEngine,
    "retouch": RetouchEngine,
}
_CORES = os.cpu_count() or 1


def tamper(
    how: Annotated[
        Tampering, typer.Argument(help="copy-move: object of the same picture; splice: of another")
    ],
    pictures: _Originals,
    out: _Out,
    objects_from: Annotated[Path, _OBJECTS],
    count: _Count = None,
    seed: _Seed = 0,
    workers: _Workers = _CORES,
) -> None:
    """Make forgeries with TampCOCO's parameters: quality 60-100, rotation, scale, hard edges.

    Split the pictures first, so that both pictures of a splice belong to one split.
    """
    forger = Forger(how, _load(pictures), _load_objects(objects_from), out, seed)
    _make(forger, out, count or forger.pictures, workers, f"{how} into {out}")


def inpaint(
    pictures: _Originals,
    out: _Out,
    engine: Annotated[
        _EngineName,
        typer.Option(
            help="Inpainting engine; not AI: classical, and retouch (blur, resampling, denoising)"
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub id or directory of a diffusers inpainting pipeline, an AutoencoderKL or "
            "AutoencoderTiny, or directory of TAEF2's *encoder and *decoder (.safetensors, .pth)"
        ),
    ] = None,
    objects_from: Annotated[Path | None, _OBJECTS] = None,
    mask: Annotated[
        list[MaskType] | None,
        typer.Option(help="Mask type, repeatable [default: all that are possible]"),
    ] = None,
    count: _Count = None,
    prompt: Annotated[
        str, typer.Option(help="Prompt for diffusers; {category} is replaced by the object's name")
    ] = "",
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of diffusers")] = 30,
    fill: Annotated[
        Fill, typer.Option(help="Fill of the autoencoder: latents of another picture, or noise")
    ] = Fill.DONOR,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1 ...; auto: CUDA if available")
    ] = "auto",
    seed: _Seed = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time one item and print the plan; write nothing")
    ] = False,
) -> None:
    """Inpaint regions (white in the masks); write each generation as it is and blended.

    The pictures are lossless and have the size of their originals; `data align` makes JPEGs.
    """
    if (model is None) is not (engine in _NOT_AI):
        raise typer.BadParameter(
            "autoencoder and diffusers need --model, others take none", param_hint="--model"
        )
    if prompt and engine != "diffusers":
        raise typer.BadParameter("only diffusers takes a prompt", param_hint="--prompt")
    source = _load(pictures)
    inpainter = Inpainter(
        source,
        None if objects_from is None else _load_objects(objects_from),
        _engine(engine, model or "", fill, steps, device),
        out,
        mask_types=mask or list(MaskType),
        prompt=prompt,
        seed=seed,
    )
    total = count or inpainter.pictures
    plan = inpainter.plan(total)
    _output.print(_plan_table(plan, out))
    if dry_run:
        return
    if not plan.fits:
        raise InpaintError(f"{out}: not enough free disk space for the plan")
    # One thread: the engine is the bottleneck, and uses all cores or the GPU.
    _make(inpainter, out, total, 1, f"inpainting into {out}")


def blend(
    inpainted: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Manifest with inpainted pictures")
    ],
    out: _Out,
    from_originals: Annotated[
        Path | None,
        typer.Option(
            "--originals",
            exists=True,
            help="Manifest or folder of the originals [default: INPAINTED]",
        ),
    ] = None,
    workers: _Workers = _CORES,
) -> None:
    """Paste original pixels back outside the mask. Pictures are paired by source id."""
    blender = Blender(inpainted, _load(from_originals or inpainted), out)
    _make(blender, out, len(blender.rows), workers, f"blending into {out}")


def align(
    pictures: _Manifest,
    out: _Out,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything",
            help="Re-encode JPEGs too, so that JPEG quality does not separate the classes",
        ),
    ] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality")] = 96,
    subsampling: Annotated[
        Literal["4:4:4", "4:2:2", "4:2:0"], typer.Option(help="Chroma subsampling")
    ] = "4:2:0",
    workers: _Workers = _CORES,
) -> None:
    """Convert pictures in other formats to JPEG (section 3.1 of the paper: quality 96).

    JPEGs are not copied; the new manifest points to them.
    """
    aligner = Aligner(
        pictures, out, everything=everything, quality=quality, subsampling=subsampling
    )
    _output.print(f"JPEG quality {quality}, chroma subsampling {subsampling}")
    _make(aligner, out, len(aligner.rows), workers, f"JPEGs in {out}")


def crop(
    pictures: _Manifest,
    out: _Out,
    size: Annotated[int, typer.Option(min=1, help="Side of the central square, pixels")],
    workers: _Workers = _CORES,
) -> None:
    """Crop all pictures to one size, lossless. Smaller pictures are skipped."""
    cropper = Cropper(pictures, out, size=size)
    _output.print(f"{cropper.skipped} smaller pictures skipped")
    _make(cropper, out, len(cropper.rows), workers, f"cropping into {out}")


def _engine(name: _EngineName, model: str, fill: Fill, steps: int, device: str) -> Engine:
    if name in _NOT_AI:
        return _NOT_AI[name]()
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "diffusers":
        from training.data.diffusion import DiffusionEngine

        return DiffusionEngine(model, steps=steps, device=device)
    from training.data.autoencoder import AutoencoderEngine

    return AutoencoderEngine(model, fill=fill, device=device)


def _load_objects(path: Path) -> Objects:
    found = objects.load(path)
    for line in summarise(found.left_out):
        _errors.print(line, soft_wrap=True)
    return found


def _load(path: Path) -> Originals:
    found = originals.load(path)
    _tell_left_out(found.unreadable)
    for line in summarise(found.passed_over):
        _errors.print(line, soft_wrap=True)
    return found


def _plan_table(plan: Plan, out: Path) -> Table:
    hours, seconds = divmod(round(plan.remaining * plan.seconds), 3600)
    table = Table("plan", "", title=f"inpainting into {out}")
    table.add_row("generations", f"{plan.items}, of which done: {plan.done}")
    table.add_row("pictures per generation", str(plan.pictures))
    table.add_row("time per generation (first one measured)", f"{plan.seconds:.2f} s")
    table.add_row("remaining time", f"{hours} h {seconds // 60:02d} min {seconds % 60:02d} s")
    table.add_row("remaining disk space", f"{plan.remaining * plan.bytes / 1e6:,.1f} MB")
    table.add_row("free disk space", f"{plan.free / 1e6:,.1f} MB")
    return table


def _tell_left_out(reasons: Sequence[str]) -> None:
    for reason in reasons[:_SHOWN]:
        _errors.print(f"left out: {reason}", soft_wrap=True)
    if len(reasons) > _SHOWN:
        _errors.print(f"left out for {len(reasons) - _SHOWN} more reasons")


class _Maker(Protocol):
    """A tool that makes pictures item by item."""

    @property
    def settings(self) -> dict[str, JsonValue]: ...

    def make(self, item: int, /) -> list[Row]: ...


def _make(maker: _Maker, out: Path, count: int, workers: int, title: str) -> None:
    """Make all items that are missing, and print what was made and left out."""
    report = journal.run_items(out, maker.settings, count, maker.make, workers=workers, title=title)
    _tell_left_out(report.skipped)
    _output.print(f"{report.rows} pictures, {report.manifest}", soft_wrap=True)
