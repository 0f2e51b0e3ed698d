"""Moderators' reviews, as `GET /v1/reviews?format=jsonl` returns them, with their pictures."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.importers.layout import (
    WHITE,
    Choices,
    Item,
    Layout,
    LayoutError,
    Note,
    Problem,
    by_stem,
    pictures,
)
from training.data.importers.table import records
from training.data.labels import Kind

_MASKS = "masks"  # subfolder
_UNSURE, _WITHDRAWN = "unsure", "withdrawn"
_DECISIONS = ("genuine", "ai", "manipulated", _UNSURE, _WITHDRAWN)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _reviews(root: Path, choices: Choices) -> Iterator[Item | Note]:
    """`--table` is the exported file; pictures have the name of the SHA-256 or the detection.

    The newest entry of each detection counts, so an export with `history=true` may be read too.
    `genuine` is `authentic`. `ai` is `synthetic`, or with a mask `inpaint`. `manipulated` needs a
    mask, and is `splice` unless `--kind` says otherwise. Masks are `masks/<name>.png`, white where
    changed; the service's own masks are no labels.

    Left out: pictures whose only decision is `unsure`, and those that reviewers disagree about
    (another decision about the same file in another detection), because one of them is wrong.
    """
    if choices.table is None:
        raise LayoutError(f"{root}: name the exported file of reviews with --table")
    found = {file.stem: file for file in pictures(root, deep=True) if file.parent.name != _MASKS}
    masks = by_stem(root / _MASKS)
    newest: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(records(choices.table), start=1):
        if (problem := _problem(record)) is not None:
            yield Note(Problem.NAME, f"{choices.table}: row {number}: {problem}")
            continue
        last = newest.setdefault(record["detection_id"], record)
        if int(record["version"]) > int(last["version"]):
            newest[record["detection_id"]] = record
    by_picture: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in newest.values():
        if record["decision"] != _WITHDRAWN:
            by_picture[record["sha256"]].append(record)
    for sha256, about in sorted(by_picture.items()):
        names = [sha256, *sorted(record["detection_id"] for record in about)]
        file = next((found[name] for name in names if name in found), None)
        mask = next((masks[name] for name in names if name in masks), None)
        decisions = sorted({record["decision"] for record in about} - {_UNSURE})
        yield _entry(sha256, decisions, file, mask, choices)


def _entry(
    sha256: str, decisions: list[str], file: Path | None, mask: Path | None, choices: Choices
) -> Item | Note:
    """The picture with this hash, or why it is left out."""
    if not decisions:
        return Note(Problem.UNSURE, sha256, file)
    if len(decisions) > 1:
        return Note(Problem.DISAGREEMENT, f"{sha256}: {', '.join(decisions)}", file)
    if file is None:
        return Note(Problem.MISSING, f"{sha256}: no picture")
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        return Note(Problem.CONTENT, f"{file}: its SHA-256 is not {sha256}", file)
    return _item(file, mask, sha256, decisions[0], choices)


def _problem(record: dict[str, Any]) -> str | None:
    """Why a row is not a review; None if it is one."""
    if record.get("decision") not in _DECISIONS:
        return f"decision {record.get('decision')!r} is none of {', '.join(_DECISIONS)}"
    if not _SHA256.fullmatch(str(record.get("sha256"))):
        return "sha256 is not a SHA-256"
    if not record.get("detection_id") or not str(record.get("version")).isdecimal():
        return "no detection_id, or no version"
    return None


def _item(file: Path, mask: Path | None, sha256: str, decision: str, choices: Choices) -> Item:
    source = f"reviews/{sha256}"
    if decision == "genuine":
        return Item(file, Kind.AUTHENTIC, source)
    if decision == "ai" and mask is None:
        # A moderator says `ai` of a picture that is AI-generated in part, too.
        return Item(file, Kind.SYNTHETIC, source, guesses=((Problem.KIND, Kind.SYNTHETIC),))
    kind = choices.kind or (Kind.INPAINT if decision == "ai" else Kind.SPLICE)
    guesses = () if choices.kind else ((Problem.KIND, f"{kind}, without --kind"),)
    return Item(file, kind, source, mask=mask, guesses=guesses)


REVIEWS = Layout(
    "Reviews of a GAMMA service: the exported file as --table; pictures by SHA-256 or detection id",
    _reviews,
    mask=WHITE,
)
