"""The paper's ablations (Tables 4 to 8) as variants of one configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from model import checkpoint
from model.engine import to_levels
from training.config import ConfigError, LabelSettings, Settings, validate
from training.data.dataset import EvaluationCrops, Pictures, collate, load_pictures
from training.data.labels import Kind
from training.fitting.checkpoints import MODEL_FOLDER
from training.fitting.fit import fit, read_result
from training.fitting.trainer import measure
from training.output import progress_bar, to_json, write_text

MARKDOWN_FILE = "ablation.md"
JSON_FILE = "ablation.json"
_TAMPERED = (Kind.COPY_MOVE, Kind.SPLICE)


@dataclass(frozen=True)
class Variant:
    """A row of an ablation table."""

    label: str
    paper: float | None
    """Accuracy in percent in the paper; None for a row that the paper does not have."""
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changed settings, by section."""
    without: tuple[Kind, ...] = ()
    """Kinds of training pictures to leave out."""


def _cross_attention(label: str, paper: float | None, kind: str, keys: str = "tokens") -> Variant:
    return Variant(label, paper, {"model": {"cross_attention": kind, "key_value": keys}})


def _weights(classification: int, ai: int, manipulation: int, paper: float) -> Variant:
    weights = (classification, ai, manipulation)
    names = ("classification_weight", "ai_weight", "manipulation_weight")
    label = ", ".join(map(str, weights))
    return Variant(label, paper, {"model": dict(zip(names, map(float, weights), strict=True))})


def _classes(copy_move: int, splice: int, paper: float) -> Variant:
    classes = {"copy_move": copy_move, "splice": splice}
    return Variant(f"{copy_move}, {splice}", paper, {"labels": classes}, (Kind.BLENDED,))


TABLES: dict[int, tuple[str, tuple[Variant, ...]]] = {
    4: (
        "segmentation heads",
        (
            Variant("classification", 90.99, {"model": {"heads": "none"}}),
            Variant("+ manipulation", 91.90, {"model": {"heads": "manipulation"}}),
            Variant("+ AI", 92.26, {"model": {"heads": "ai"}}),
            Variant("+ manipulation + AI", 93.20, {"model": {"heads": "both"}}),
        ),
    ),
    # Without blended pictures, as in the paper. The first rows of Tables 5 and 6 are the same
    # training set, but the paper reports different numbers.
    5: (
        "class of copy-move, splicing",
        (
            Variant("none, none", 90.27, without=(Kind.BLENDED, *_TAMPERED)),
            _classes(1, 1, 89.42),
            _classes(0, 1, 91.04),
            _classes(1, 0, 91.88),
            _classes(0, 0, 92.05),
        ),
    ),
    6: (
        "manipulations",
        (
            Variant("inpainting", 90.63, without=(Kind.BLENDED, *_TAMPERED)),
            Variant("inpainting + blended", 90.94, without=_TAMPERED),
            Variant("inpainting + copy-move & splicing", 92.05, without=(Kind.BLENDED,)),
            Variant("all", 93.20),
        ),
    ),
    7: (
        "weights of classification, AI mask, manipulation mask",
        (
            _weights(2, 1, 1, 91.1),
            _weights(2, 3, 1, 89.4),
            _weights(2, 1, 2, 90.4),
            _weights(2, 2, 1, 93.2),
        ),
    ),
    8: (
        "cross-attention",
        (
            _cross_attention("none", 91.83, "none"),
            _cross_attention("forward", 90.58, "forward"),
            _cross_attention("dual", 90.76, "dual"),
            _cross_attention("reverse, tokens", 93.20, "reverse"),
            _cross_attention("reverse, pooled", None, "reverse", "pooled"),
        ),
    ),
}


@dataclass(frozen=True)
class Run:
    """A variant with one seed."""

    folder: Path
    settings: Settings


def expand(base: Settings, tables: Sequence[int], seeds: int, out: Path) -> Iterator[Run]:
    """Return the runs of some tables; equal rows share a run.

    Raises:
        ConfigError: A table does not exist, or its settings are invalid.
    """
    seen: set[Path] = set()
    for table in tables:
        for variant in _rows(table):
            for run in _runs(base, table, variant, seeds, out):
                if run.folder not in seen:
                    seen.add(run.folder)
                    yield run


def ablate(
    base: Settings,
    tables: Sequence[int],
    seeds: int,
    out: Path,
    measured: Sequence[Path],
    split: str,
    console: Console,
) -> bool:
    """Train all variants that are not done yet, and update the tables after every run.

    All variants are evaluated on the same pictures with the labels of Table 1.

    Args:
        base: The configuration to vary.
        tables: Numbers of the tables.
        seeds: Runs per row, with consecutive seeds from `train.seed` on.
        out: Folder for runs and tables.
        measured: Manifests to evaluate on.
        split: Split to evaluate on.
        console: Terminal for messages.

    Returns:
        Whether all runs are done; False: stopped by a signal.

    Raises:
        ConfigError: As in `fit`, or the split has no rows.
    """
    runs = list(expand(base, tables, seeds, out))
    pictures = load_pictures(map(str, measured), split, tuple(Kind))
    if not len(pictures):
        raise ConfigError(f"no row of split {split} to evaluate on")
    for number, run in enumerate(runs, 1):
        console.print(f"run {number} of {len(runs)}: {run.folder}")
        done = read_result(run.folder)
        if not (done and done.finished):
            result = fit(run.settings, run.folder, resume=True, console=console)
            if not result.finished:
                return False
        _assess(run, pictures, split, console)
        collate_tables(base, tables, seeds, out)
    return True


def collate_tables(base: Settings, tables: Sequence[int], seeds: int, out: Path) -> None:
    """Write the results of the finished runs next to the paper's numbers."""
    lines: list[str] = []
    report: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        title = TABLES[table][0]
        lines += [f"## Table {table}: {title}", ""]
        lines += ["| row | paper, accuracy % | here, accuracy % | AUC % | runs |", "|---" * 5 + "|"]
        for variant in _rows(table):
            figures = [
                json.loads(file.read_text(encoding="utf-8"))
                for run in _runs(base, table, variant, seeds, out)
                if (file := run.folder / JSON_FILE).exists()
            ]
            here, auc = (_spread(figures, name) for name in ("accuracy", "auc"))
            paper = "" if variant.paper is None else f"{variant.paper:.2f}"
            lines.append(f"| {variant.label} | {paper} | {here} | {auc} | {len(figures)} |")
            report.setdefault(str(table), []).append(asdict(variant) | {"runs": figures})
        lines.append("")
    pictures = (
        "The paper evaluates on GenImage; here: mean ± standard deviation over seeds on the given "
        "pictures.\n"
    )
    write_text("\n".join([*lines, pictures]), out / MARKDOWN_FILE)
    write_text(to_json(report, indent=1), out / JSON_FILE)


def _rows(table: int) -> tuple[Variant, ...]:
    if table not in TABLES:
        raise ConfigError(f"table {table}: the ablations are tables {', '.join(map(str, TABLES))}")
    return TABLES[table][1]


def _runs(base: Settings, table: int, variant: Variant, seeds: int, out: Path) -> Iterator[Run]:
    """Return the runs of a row; rows with equal settings share the folder of the first."""
    changed = _change(base, variant)
    name = "base"
    if changed != base:
        for other in TABLES:  # the first row with equal settings gives the name
            same = [v for v in _rows(other) if _change(base, v) == changed]
            if same:
                name = f"table-{other}-{re.sub(r'[^a-z0-9]+', '-', same[0].label.lower())}"
                break
    for seed in range(base.train.seed, base.train.seed + seeds):
        train = changed.train.model_copy(update={"seed": seed})
        settings = changed.model_copy(update={"train": train})
        yield Run(out / name.strip("-") / f"seed-{seed}", settings)


def _change(base: Settings, variant: Variant) -> Settings:
    values = base.model_dump(mode="json")
    for section, changes in variant.changes.items():
        values[section] |= changes
    left_out = {str(kind) for kind in variant.without}
    data = values["data"]
    data["kinds"] = [kind for kind in data["kinds"] if kind not in left_out]
    data["mix"] = {kind: share for kind, share in data["mix"].items() if kind not in left_out}
    return validate(values, f"row {variant.label}")


def _assess(run: Run, pictures: Pictures, split: str, console: Console) -> None:
    """Evaluate the kept network of a run, if not done yet."""
    file = run.folder / JSON_FILE
    if file.exists():
        return
    device = torch.device(
        "cuda" if torch.cuda.is_available() and run.settings.train.device == "auto" else "cpu"
    )
    model = checkpoint.load(run.folder / MODEL_FOLDER)
    torch.nn.Module.to(model, device)
    settings = run.settings.model_copy(update={"labels": LabelSettings()})
    loader: DataLoader[Any] = DataLoader(
        EvaluationCrops(pictures, settings),
        batch_size=run.settings.train.batch_size,
        num_workers=run.settings.data.workers,
        collate_fn=collate,
    )
    logits, labels = [], []
    with torch.inference_mode(), progress_bar(console) as bar:
        for batch in bar.track(loader, description="evaluating"):
            output = model(to_levels(batch["tiles"].to(device)))
            logits.append(output.logits.float().cpu().numpy())  # (B,)
            labels.append(batch["labels"].numpy())  # (B,)
    figures = measure(np.concatenate(logits), np.concatenate(labels))
    seed = run.settings.train.seed
    facts = {"run": str(run.folder), "seed": seed, "split": split, "pictures": len(pictures)}
    write_text(to_json(facts | figures, indent=1), file)


def _spread(figures: list[dict[str, Any]], name: str) -> str:
    values = [100 * figure[name] for figure in figures if name in figure]
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else ""
    return f"{fmean(values):.2f} ± {stdev(values):.2f}"
