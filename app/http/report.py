"""The report of one detection: a self-contained HTML page to send or print.

All texts of the picture, the caller and the reviewers are escaped; there is no script, and the
policy allows only the report's own style and embedded pictures.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from app.contract.reviews import Decision, Review
from app.contract.schemas import Detection, Head
from pictures.findings import Note, NotJudged, Verdict
from pictures.origin import Confidence, Says, Source

_STYLE = """
body{max-width:60rem;margin:2rem auto;padding:0 1rem;font:1rem/1.45 system-ui,sans-serif;
color:#1b2130;background:#fff}
h1{font-size:1.5rem}h2{margin:1.5rem 0 .4rem;font-size:1.15rem}
p,figure{margin:.4rem 0}.verdict{font-size:1.25rem;font-weight:700}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem}
.stack{position:relative;width:fit-content}
.stack img{display:block;max-width:100%;height:auto}
.stack img+img{position:absolute;inset:0;width:100%;height:100%}
table{width:100%;border-collapse:collapse;font-size:.9375rem}
th,td{padding:.25rem .5rem .25rem 0;border-bottom:1px solid #d5d9e2;text-align:left;
vertical-align:top;overflow-wrap:anywhere}
th{color:#515a6c;font-weight:600}.text{white-space:pre-wrap}
@media print{body{max-width:none;margin:0}.pictures{grid-template-columns:1fr 1fr 1fr}
figure,tr{break-inside:avoid}h2{break-after:avoid}}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_CONTENT_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; base-uri 'none'"

POLICY = f"{_CONTENT_POLICY}; form-action 'none'; frame-ancestors 'none'; sandbox"
"""`Content-Security-Policy` of a report; what a saved file can have of it is in the file too."""

_VERDICTS = {
    Verdict.AUTHENTIC: "No sign of AI generation found",
    Verdict.UNCERTAIN: "Uncertain",
    Verdict.AI_GENERATED: "Signs of AI generation found",
}
_NOTES = {
    Note.MARKS_CONTRADICT_SCORE: "The score is low, but parts are marked as AI: one of the two "
    "is wrong.",
    Note.MOSTLY_TEXT: "The picture is mostly text; such pictures often get too high a score.",
}
_NOT_JUDGED: dict[NotJudged | None, str] = {
    NotJudged.TOO_SMALL: "The picture is too small to be judged.",
    None: "The detection has no result.",
}
_LAYERS = {Head.AI: "AI", Head.MANIPULATION: "Manipulation"}
_DECISIONS = {
    Decision.GENUINE: "Genuine",
    Decision.AI: "AI-generated",
    Decision.MANIPULATED: "Manipulated",
    Decision.UNSURE: "Unsure",
    Decision.WITHDRAWN: "Withdrawn",
}
_SOURCES = {
    Source.C2PA: "Signed manifest (C2PA)",
    Source.XMP: "Metadata (XMP)",
    Source.IPTC: "Metadata (IPTC)",
    Source.EXIF: "Camera data (EXIF)",
    Source.TEXT: "Text of a generator",
    Source.ALPHA: "Text hidden in the transparency",
    Source.WATERMARK: "Invisible watermark",
}
_SAYS = {
    Says.GENERATED: "AI-generated",
    Says.COMPOSITE: "partly AI-generated",
    Says.CAPTURED: "taken with a camera",
    Says.EDITED: "edited",
}
_CONFIDENCES = {
    Confidence.SIGNED_TRUSTED: "signed by a trusted signer",
    Confidence.SIGNED_UNTRUSTED: "signed by someone who is not on the trust list",
    Confidence.UNSIGNED: "not signed",
}
_CAUTION = (
    "A score is a model's estimate. It does not prove that a picture is genuine or generated: use "
    "it together with other evidence."
)


@dataclass(frozen=True)
class Images:
    """Pictures of a report.

    Attributes:
        preview: JPEG; None: the picture is not stored any more.
        layers: PNG heat maps of the same shape.
    """

    preview: bytes | None
    layers: Mapping[Head, bytes]


def document(
    detection: Detection,
    history: Sequence[Review],
    images: Images,
    notice: str | None,
    made_at: datetime,
) -> bytes:
    """Write the report.

    Args:
        detection: a finished detection.
        history: its reviews, newest first.
        images: pictures to embed.
        notice: what is known about the model's reliability; None: it does not run any more.
        made_at: time of the report.

    Returns:
        HTML in UTF-8.
    """
    name = detection.ref_id or f"Detection {detection.id}"
    parts = [
        f"<h1>Report on <bdi>{escape(name)}</bdi></h1>",
        *_result(detection),
        *_frames(detection),
        *_pictures(images),
        *_regions(detection),
        *_reviews(history),
        *_model(detection, notice),
        *_provenance(detection),
        *_facts(detection, made_at),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_CONTENT_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Report on {escape(name)}</title><style>{_STYLE}</style></head><body><main>"
    )
    return f"{head}{''.join(parts)}</main></body></html>\n".encode(errors="replace")


def _result(detection: Detection) -> list[str]:
    if detection.error is not None:
        return [f"<p>{escape(detection.error.detail)}</p>"]
    score, verdict = detection.ai_probability, detection.verdict
    if score is None or verdict is None:
        return [f"<p>{_NOT_JUDGED[detection.not_judged]}</p>"]
    rows = [("AI score", _percent(score))]
    if detection.manipulated is not None:
        rows.append(("Manipulated", "yes" if detection.manipulated else "no"))
    if detection.thresholds is not None:
        limits = detection.thresholds
        rows += [
            ("Uncertain from", _percent(limits.uncertain)),
            ("Signs of AI generation from", _percent(limits.ai_generated)),
            ("A pixel is marked from", _percent(limits.mask)),
            ("Manipulated from", f"{_percent(limits.manipulated_area)} of the picture"),
        ]
    return [
        f'<p class="verdict">{_VERDICTS[verdict]}</p>',
        *(f"<p>{_NOTES[note]}</p>" for note in detection.notes),
        _table(rows),
        f"<p>{_CAUTION}</p>",
    ]


def _frames(detection: Detection) -> list[str]:
    if not detection.frames:
        return []
    rows = [
        (
            f"{one.frame} of {detection.image.frames or '?'}",
            "" if one.time_ms is None else f"{one.time_ms / 1000:.2f} s",
            _percent(one.ai_probability),
            _VERDICTS[one.verdict],
            "" if one.manipulated is None else "yes" if one.manipulated else "no",
        )
        for one in detection.frames
    ]
    columns = ("Frame", "Time", "AI score", "Result", "Manipulated")
    shown = f"<p>Picture, layers and regions are of frame {detection.view.frame}.</p>"
    return ["<h2>Examined frames</h2>", _table(rows, columns), shown]


def _pictures(images: Images) -> list[str]:
    if images.preview is None:
        return ["<p>The picture is not stored any more.</p>"]
    picture = _image("jpeg", images.preview, "The picture")
    figures = [("Picture", picture)]
    for head, layer in images.layers.items():
        title = f"{_LAYERS[head]} layer"
        figures.append((title, picture + _image("png", layer, f"{title}, over the picture")))
    return [
        '<h2>Picture and layers</h2><div class="pictures">',
        *(
            f'<figure><div class="stack">{shown}</div><figcaption>{title}</figcaption></figure>'
            for title, shown in figures
        ),
        "</div>",
    ]


def _regions(detection: Detection) -> list[str]:
    if detection.masks is None:
        return []
    masks = {Head.AI: detection.masks.ai, Head.MANIPULATION: detection.masks.manipulation}
    rows = [
        (
            _LAYERS[head],
            ", ".join(f"{side}" for side in region.box),
            _percent(region.area),
            _percent(region.score),
        )
        for head, mask in masks.items()
        for region in mask.regions
    ]
    marked = [
        (f"Marked in the layer {_LAYERS[head]}", _percent(mask.area_fraction))
        for head, mask in masks.items()
    ]
    columns = ("Layer", "x, y, width, height (pixels)", "Share of the picture", "Mean probability")
    table = [_table(rows, columns)] if rows else []
    return ["<h2>Marked regions</h2>", _table(marked), *table]


def _reviews(history: Sequence[Review]) -> list[str]:
    if not history:
        return ["<h2>Decision</h2><p>No decision yet.</p>"]
    newest = history[0]
    withdrawn = newest.decision is Decision.WITHDRAWN
    rows = [
        (
            _time(one.created_at),
            one.reviewer or "",
            one.key or "erased",
            _DECISIONS[one.decision],
            one.note or "",
            "" if one.ai_probability is None else _percent(one.ai_probability),
        )
        for one in history
    ]
    columns = ("Time", "Reviewer", "Key", "Decision", "Note", "AI score then")
    return [
        "<h2>Decision</h2>",
        f'<p class="verdict">{"None" if withdrawn else _DECISIONS[newest.decision]}</p>',
        _table(rows, columns),
    ]


def _model(detection: Detection, notice: str | None) -> list[str]:
    model = detection.model
    if model is None:
        return []
    rows = [("Name", model.name), ("Version", model.version), ("Digest", model.digest or "")]
    limits = notice or "This model does not run at the service now; nothing more is known about it."
    return ["<h2>Model</h2>", _table(rows), f"<p>{escape(limits)}</p>"]


def _provenance(detection: Detection) -> list[str]:
    found = detection.provenance
    if found is None:
        return []
    parts = ["<h2>What the file says</h2>", f"<p>{escape(found.summary.text)}</p>"]
    if found.statements:
        rows = [
            (
                _SOURCES[one.source],
                "" if one.says is None else _SAYS[one.says],
                one.by or "",
                _CONFIDENCES[one.confidence],
                "\n".join(f"{key}: {value}" for key, value in one.details.items()),
            )
            for one in found.statements
        ]
        parts.append(_table(rows, ("Source", "Says", "By", "Confidence", "Details")))
    return parts


def _facts(detection: Detection, made_at: datetime) -> list[str]:
    image = detection.image
    rows = [
        ("Id", detection.id),
        ("Reference", detection.ref_id or ""),
        ("SHA-256 of the file", image.sha256),
        ("File", f"{image.format}, {image.bytes:,} bytes"),
        ("Size", f"{image.width} × {image.height} pixels"),
        ("Uploaded", _time(detection.created_at)),
        ("Finished", "" if detection.finished_at is None else _time(detection.finished_at)),
        ("Report made", _time(made_at)),
    ]
    return ["<h2>Detection</h2>", _table(rows)]


def _table(rows: Sequence[tuple[str, ...]], columns: Sequence[str] = ()) -> str:
    """A table with titles in its first row or, without `columns`, in its first column."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in columns)
    lines = [f"<tr>{head}</tr>"] if columns else []
    for first, *rest in rows:
        start = f"<td>{escape(first)}</td>" if columns else f'<th scope="row">{escape(first)}</th>'
        cells = "".join(f'<td class="text"><bdi>{escape(text)}</bdi></td>' for text in rest)
        lines.append(f"<tr>{start}{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _image(kind: str, data: bytes, text: str) -> str:
    return f'<img alt="{text}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _time(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
