"""Markdown report of an evaluation, with the paper's numbers for comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.data.changes import Format
from training.measuring.evaluate import Summary
from training.measuring.metrics import BINS, Measures
from training.measuring.paper_numbers import (
    TABLE_2,
    TABLE_2_COLUMNS,
    TABLE_3,
    TABLE_3_COLUMNS,
    column,
)

_MODES = {
    Format.RAW: "original files",
    Format.PAPER: "lossless AI-generated pictures as JPEG 96 4:2:0 (the paper's format alignment)",
    Format.JPEG96: "every picture as JPEG 96 4:2:0",
}
_HEADINGS = (
    *("set", "n (AI)", "acc.", "acc. at 0.5", "bal. acc.", "AUC", "AP", "EER"),
    *("TPR at 1 % FPR", "at 5 %", "at 10 %", "ECE", "NLL"),
)
_SOURCE_HEADINGS = ("photographs of", "n", "called AI-generated", "at least uncertain")
_COLUMNS = (*TABLE_2_COLUMNS[:-1], *TABLE_3_COLUMNS)
_MASK_HEADINGS = (
    *("set", "head", "kind", "n (marked)", "F1, marked", "IoU, marked", "F1, all", "IoU, all"),
    "AUC",
)


def to_markdown(summary: Summary) -> str:
    """Return the full report."""
    thresholds = ", ".join(f"{name} {value:.4g}" for name, value in summary.thresholds.items())
    cut = f"; every picture cropped to its central {summary.crop} x {summary.crop} pixels"
    lines = [
        f"# {summary.name} {summary.version}: evaluation",
        "",
        f"Checkpoint `{summary.checkpoint}`, {summary.backbone}, "
        f"{'trained' if summary.trained else '**untrained**'}, {summary.dtype}; view "
        f"{summary.view}{cut if summary.crop else ''}. Thresholds: {thresholds}.",
        "",
        "A picture is called AI-generated at or above the stored threshold `ai_generated`. The row "
        "of a generator compares its pictures with those of the set that are not AI-generated and "
        "name no other generator; *same source*: pictures of both classes from one source, which "
        "show the same subjects. In brackets: 95 % bootstrap intervals over originals, "
        f"{summary.resamples} resamples. ECE ({BINS} bins) and NLL have equal class weights.",
        *_image_tables(summary),
        *_mask_tables(summary),
        *_provenance(summary),
        *_beside_the_paper(summary),
    ]
    return "\n".join(lines) + "\n"


def _provenance(summary: Summary) -> list[str]:
    rows = [
        [
            name,
            label,
            str(found.pictures),
            ", ".join(f"{says} {count}" for says, count in sorted(found.says.items())) or "none",
        ]
        for name, classes in summary.provenance.items()
        for label, found in classes.items()
    ]
    if not rows:
        return []
    return [
        "",
        "## Files whose metadata states their origin",
        "",
        "Signatures and metadata; no score uses them.",
        "",
        *table(("set", "class", "n", "statements"), rows),
    ]


def to_short_markdown(summary: Summary) -> str:
    """Return the tables of pictures and masks with every picture as JPEG 96."""
    modes = (Format.JPEG96,)
    return "\n".join(_image_tables(summary, modes) + _mask_tables(summary, modes)).strip() + "\n"


def _image_tables(summary: Summary, modes: Sequence[Format] | None = None) -> list[str]:
    lines: list[str] = []
    for mode in modes or summary.formats:
        sets = summary.formats[mode]
        rows = []
        for name, report in sets.items():
            rows.append(_image_row(f"**{name}**", report.overall))
            rows += [_image_row(f"{name}: {g}", found) for g, found in report.generators.items()]
            rows += [
                _image_row(f"{name}, same source: {source}", found)
                for source, found in report.matched.items()
            ]
        lines += ["", f"## {mode}: {_MODES[mode]}", "", *table(_HEADINGS, rows)]
        sources = [
            [
                f"{name}: {source}",
                str(found.n),
                _number(found.called, found.interval),
                _number(found.suspected),
            ]
            for name, report in sets.items()
            for source, found in report.sources.items()
        ]
        lines += ["", *table(_SOURCE_HEADINGS, sources)] if sources else []
        left_out = [line for report in sets.values() for line in report.unreadable]
        if left_out:
            lines += ["", f"Unreadable, left out ({len(left_out)}):", ""]
            lines += [f"- {line}" for line in left_out]
    return lines


def _image_row(name: str, found: Measures | None) -> list[str]:
    if found is None:
        return [name, "0 (0)", *[""] * (len(_HEADINGS) - 2)]
    return [
        name,
        f"{found.n} ({found.n_ai})",
        _number(found.accuracy, found.intervals.get("accuracy")),
        _number(found.accuracy_at_half),
        _number(found.balanced_accuracy, found.intervals.get("balanced_accuracy")),
        _number(found.auc, found.intervals.get("auc")),
        *(_number(value) for value in (found.ap, found.eer)),
        *(_number(v) for v in (found.tpr_at_fpr_1, found.tpr_at_fpr_5, found.tpr_at_fpr_10)),
        *(_number(value) for value in (found.ece, found.nll)),
    ]


def _mask_tables(summary: Summary, modes: Sequence[Format] | None = None) -> list[str]:
    lines = [
        "",
        "# Masks",
        "",
        "Pixels at or above the stored mask threshold are marked, within the part of the view. F1 "
        "and IoU are computed per picture, then averaged: *marked*, over pictures with a non-empty "
        "true mask; *all*, over all pictures with labels, where an empty true mask scores 1 if "
        "nothing is marked and 0 otherwise. AUC is averaged over pictures with pixels of both "
        "labels. The AI mask of whole inpainted and synthetic pictures is all 1.",
    ]
    for mode in modes or summary.formats:
        sets = summary.formats[mode]
        rows = [
            [
                *(name, head, kind, f"{m.n} ({m.n_positives})"),
                *map(_number, (m.f1_positives, m.iou_positives, m.f1_all, m.iou_all, m.auc)),
            ]
            for name, report in sets.items()
            for head, kinds in report.masks.items()
            for kind, m in kinds.items()
        ]
        lines += ["", f"## {mode}", "", *table(_MASK_HEADINGS, rows)]
    return lines


def _beside_the_paper(summary: Summary) -> list[str]:
    if Format.PAPER not in summary.formats:
        return []
    found: dict[str, Measures] = {}
    for name, report in summary.formats[Format.PAPER].items():
        for called, measures in (*report.generators.items(), (name, report.overall)):
            if measures is not None and (place := column(called)):
                found[place] = measures
    name = f"**{summary.name} {summary.version}**"
    at_half = [found[c].balanced_accuracy_at_half if c in found else None for c in _COLUMNS]
    stored = [found[c].balanced_accuracy if c in found else None for c in _COLUMNS]
    ours = ((f"{name}, at 0.5", at_half), (f"{name}, at its threshold", stored))
    generators = len(TABLE_2_COLUMNS) - 1
    return [
        "",
        "# Comparison with the paper",
        "",
        "Accuracy in percent with the paper's format alignment. The paper's sets have equally many "
        "authentic and generated pictures, so ours is the balanced accuracy. Our columns are "
        "filled for generators and sets with these names.",
        "",
        "## Table 2: GenImage (JPEG-96)",
        "",
        *table(
            ("", *TABLE_2_COLUMNS),
            [
                *_paper_rows(TABLE_2),
                *(_our_row(label, v[:generators], average=True) for label, v in ours),
            ],
        ),
        "",
        "## Table 3: other sets",
        "",
        *table(
            ("", *TABLE_3_COLUMNS),
            [*_paper_rows(TABLE_3), *(_our_row(label, v[generators:]) for label, v in ours)],
        ),
    ]


def _our_row(label: str, values: Sequence[float | None], *, average: bool = False) -> list[str]:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if len(known) == len(values) else None
    return [label, *(_percent(value) for value in (*values, *([mean] if average else [])))]


def _paper_rows(numbers: Mapping[str, Sequence[float]]) -> list[list[str]]:
    return [[name, *(f"{value:.1f}" for value in values)] for name, values in numbers.items()]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [
        f"| {' | '.join(headings)} |",
        f"|{'---|' * len(headings)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _number(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
