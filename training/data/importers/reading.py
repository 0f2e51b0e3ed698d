"""Reading the pictures of a layout into manifest rows, with the checks for all data sets."""

from __future__ import annotations

import errno
import io
import os
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictures import tiff
from pictures.finding import LeftOut, find, name_of
from training.data.importers.layout import (
    MASKED,
    Cell,
    Choices,
    Item,
    Layout,
    LayoutError,
    Note,
    Problem,
)
from training.data.labels import LABELS, Kind
from training.data.manifest import PictureUnreadableError, Row, describe
from training.data.pixels import orientation_of, pillow_orientation, turn
from training.output import writing

_WINDOW = 64  # pictures read in advance
_SUSPICIOUS = 0.5  # marked share above which a mask may be inverted


@dataclass
class Report:
    """Result of an import."""

    found: Counter[str] = field(default_factory=Counter)
    """Rows by kind, by generator, and `MASKED`."""
    problems: dict[Problem, list[str]] = field(default_factory=lambda: defaultdict(list))
    left_out: list[LeftOut] = field(default_factory=list)
    """Files in the data set's folder that are not pictures or cannot be read."""


@dataclass
class _Reading:
    """A picture that was read; nothing is written yet."""

    row: Row | None = None
    notes: list[Note] = field(default_factory=list)
    guesses: list[Note] = field(default_factory=list)
    """Guessed facts, reported if the row is accepted."""
    files: dict[Path, bytes] = field(default_factory=dict)
    """Files to write beside the manifest."""


class Import:
    """The import of one data set.

    Args:
        layout: Layout of the data set.
        root: Folder of the data set.
        manifest: Manifest to write. Pictures without a file and converted masks are written beside
            it, in `<its name>-files/`.
        choices: Facts that the layout does not define.
        sample: Number of pictures per kind and generator; None: all.
        seed: Random seed of the sample.

    Raises:
        LayoutError: The folder does not have the layout.
    """

    def __init__(
        self,
        layout: Layout,
        root: Path,
        manifest: Path,
        *,
        choices: Choices | None = None,
        sample: int | None = None,
        seed: int = 0,
    ) -> None:
        self.report = Report()
        self._layout = layout
        self._root = root.resolve()
        self._folder = manifest.parent.resolve()
        self._files = self._folder / f"{manifest.stem}-files"
        self._sample = sample
        self._seed = seed
        self._items: list[Item] = []
        seen: set[Path | Cell] = set()
        noted: list[Path] = []
        for entry in layout.items(self._root, choices or Choices()):
            if isinstance(entry, Note):
                self._note(entry)
                noted += [] if entry.file is None else [entry.file]
            elif entry.picture in seen:
                self._note(Note(Problem.DUPLICATE, f"{entry.name}: named twice"))
            else:
                seen.add(entry.picture)
                self._items.append(entry)
        if not self._items:
            raise LayoutError(f"{root}: no pictures in this layout: {layout.about}")
        self._note_unused(noted, manifest)
        self._hashes: dict[str, tuple[str, Kind]] = {}

    @property
    def total(self) -> int:
        """Number of pictures to read."""
        if self._sample is None:
            return len(self._items)
        return sum(min(self._sample, len(group)) for group in self._groups())

    def rows(self, advance: Callable[[], object] = lambda: None) -> Iterator[Row]:
        """Yield the rows of accepted pictures and fill the report.

        In a sample, pictures that are left out are replaced by others.

        Args:
            advance: Called once per picture.
        """
        if self._sample is None:
            yield from self._read(self._items, advance)
            return
        for group in self._groups():
            order = list(range(len(group)))
            # Text seeds are hashed, so groups are independent and the same on every machine.
            random.Random(f"{self._seed}:{_group(group[0])}").shuffle(order)  # noqa: S311
            left, wanted = deque(order), self._sample
            while wanted and left:
                drawn = sorted(left.popleft() for _ in range(min(wanted, len(left))))
                for row in self._read([group[index] for index in drawn], advance):
                    wanted -= 1
                    yield row

    def _groups(self) -> list[list[Item]]:
        groups: dict[str, list[Item]] = defaultdict(list)
        for item in self._items:
            groups[_group(item)].append(item)
        return list(groups.values())

    def _note(self, note: Note) -> None:
        self.report.problems[note.problem].append(note.text)

    def _note_unused(self, noted: Iterable[Path], manifest: Path) -> None:
        """Report pictures in the folder that the layout does not list."""

        @cache
        def real(folder: Path) -> str:
            return os.path.realpath(folder)

        def place(file: Path) -> tuple[str, str]:
            return real(file.parent), file.name

        named = {
            place(file)
            for item in self._items
            for file in (item.picture, item.mask)
            if isinstance(file, Path)
        }
        named.update(map(place, noted))
        found = find(self._root, skip=(self._files,))
        for file in found.pictures:
            if place(file) not in named:
                self._note(Note(Problem.UNUSED, name_of(file)))
        ours = {place(manifest), place(listing(manifest))}
        self.report.left_out = [one for one in found.left_out if place(one.path) not in ours]

    def _read(self, items: Sequence[Item], advance: Callable[[], object]) -> Iterator[Row]:
        with ThreadPoolExecutor() as threads:
            for start in range(0, len(items), _WINDOW):
                for reading in threads.map(self._examine, items[start : start + _WINDOW]):
                    advance()
                    yield from self._accept(reading)

    def _accept(self, reading: _Reading) -> Iterable[Row]:
        for note in reading.notes:
            self._note(note)
        row = reading.row
        if row is None:
            return
        if row.sha256 in self._hashes:
            path, kind = self._hashes[row.sha256]
            same = "" if kind is row.kind else f", but {kind} there, {row.kind} here"
            self._note(Note(Problem.DUPLICATE, f"{row.path} = {path}{same}"))
            return
        try:
            for file, data in reading.files.items():
                with writing(file) as partial:
                    partial.write_bytes(data)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self._note(Note(Problem.NAME, f"{row.path}: too long for a file of its mask"))
            return
        self._hashes[row.sha256] = (row.path, row.kind)
        for note in reading.guesses:
            self._note(note)
        self.report.found[row.kind] += 1
        if row.mask is not None:
            self.report.found[MASKED] += 1
        if row.generator is not None:
            self.report.found[row.generator] += 1
        yield row

    def _examine(self, item: Item) -> _Reading:
        reading = _Reading()
        needs_mask = LABELS[item.kind].needs_region
        for file in (item.picture, item.mask if needs_mask else None):
            if isinstance(file, Path) and not file.is_file():
                reading.notes.append(Note(Problem.MISSING, name_of(file)))
        if reading.notes:
            return reading
        try:
            file, data = self._picture(item, reading)
            # The mask is not known yet, so start with a kind that needs none.
            row = describe(
                file,
                self._folder,
                Kind.AUTHENTIC,
                source_id=item.source_id,
                generator=item.generator,
                mask_type=item.mask_type,
                guidance=item.guidance,
                split=item.split,
                data=data,
            )
        except (PictureUnreadableError, OSError) as error:
            reading.notes.append(Note(Problem.UNREADABLE, str(error)))
            return reading
        reading.guesses += [Note(kind, f"{item.name}: {text}") for kind, text in item.guesses]
        changes: dict[str, object] = {"kind": item.kind}
        if needs_mask:
            mask = self._mask(item, (row.height, row.width), orientation_of(data), reading)
            if mask is None:
                return reading
            changes["mask"] = Path(os.path.relpath(mask, self._folder)).as_posix()
        reading.row = row.model_copy(update=changes)
        return reading

    def _picture(self, item: Item, reading: _Reading) -> tuple[Path, bytes]:
        if isinstance(item.picture, Path):
            return item.picture, item.picture.read_bytes()
        data = item.picture.load()
        with Image.open(io.BytesIO(data)) as picture:
            suffix = str(picture.format).lower()
        file = self._beside("pictures", f"{item.key}.{suffix}")
        reading.files[file] = data
        return file, data

    def _mask(
        self, item: Item, size: tuple[int, int], orientation: int, reading: _Reading
    ) -> Path | None:
        """Return a mask that fits a picture, or None.

        Args:
            item: The picture.
            size: Height and width, upright.
            orientation: EXIF orientation of the stored picture, 1 to 8.
            reading: Receives notes and files.
        """
        if item.mask is None:
            reading.notes.append(Note(Problem.MISSING, f"{item.name}: no mask"))
            return None
        rule = self._layout.mask
        try:
            data = item.mask.read_bytes() if isinstance(item.mask, Path) else item.mask.load()
            with Image.open(io.BytesIO(data)) as mask:
                region = rule.region(mask)
                plain = mask.format == "PNG" and mask.mode == "L"
                plain = plain and np.array_equal(np.asarray(mask) > 0, region)
        except Exception as error:  # decoders raise undocumented errors on damaged files
            reading.notes.append(Note(Problem.UNREADABLE, f"mask of {item.name}: {error}"))
            return None
        own = pillow_orientation(data)
        needed = _turn_of(region, own, size, orientation)
        if own == tiff.UPRIGHT != needed and region.shape == size:
            text = f"{item.name}: orientation {orientation}"
            reading.guesses.append(Note(Problem.MASK_TURN, text))
        region, plain = turn(region, needed), plain and needed == tiff.UPRIGHT
        if region.shape != size:
            sizes = "{1} x {0}, its mask {3} x {2}".format(*size, *region.shape)
            reading.notes.append(Note(Problem.MASK_SIZE, f"{item.name}: {sizes}"))
            if not rule.resized:
                return None
            region, plain = _resized(region, size), False
        share = float(region.mean())
        if share > _SUSPICIOUS or share == 0:
            text = f"{item.name}: {share:.0%} of it is marked as changed"
            reading.notes.append(Note(Problem.MASK_POLARITY, text))
            if share in (0, 1):
                return None
        if plain and isinstance(item.mask, Path) and _is_text(item.mask):
            return item.mask
        file = self._beside("masks", f"{self._key(item)}.png")
        reading.files[file] = _encoded(region)
        return file

    def _key(self, item: Item) -> str:
        if not isinstance(item.picture, Path):
            return item.key
        inside = item.picture.is_relative_to(self._root)
        return (item.picture.relative_to(self._root) if inside else item.picture).as_posix()

    def _beside(self, folder: str, key: str) -> Path:
        """Return an output file; keys from the data set must not leave the folder."""
        parts = (part for part in Path(key).parts if part != ".." and part != Path(key).anchor)
        return self._files.joinpath(folder, *parts)


def listing(manifest: Path) -> Path:
    """Return the file that lists left-out pictures and guesses of a manifest's import."""
    return manifest.with_name(f"{manifest.name}.problems")


def _turn_of(mask: NDArray[np.bool_], own: int, size: tuple[int, int], orientation: int) -> int:
    """Return the EXIF orientation (1 to 8) that aligns a mask with its picture.

    Args:
        mask: Stored mask (H, W).
        own: Orientation of the mask file.
        size: Height and width of the picture, upright.
        orientation: Orientation of the picture.
    """
    stored = size[::-1] if orientation in tiff.SIDEWAYS else size
    return orientation if own == tiff.UPRIGHT and mask.shape == stored else own


def _is_text(path: Path) -> bool:
    """Return whether a path is valid UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _group(item: Item) -> str:
    return item.group or f"{item.kind}/{item.generator}"


def _resized(region: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a region (H, W) to (height, width), nearest neighbour."""
    height, width = size
    return np.asarray(Image.fromarray(region).resize((width, height), Image.Resampling.NEAREST))


def _encoded(region: NDArray[np.bool_]) -> bytes:
    """Encode a region (H, W) as 8-bit PNG: 255 inside, 0 outside."""
    stream = io.BytesIO()
    Image.fromarray(region.astype(np.uint8) * 255).save(stream, "PNG")
    return stream.getvalue()
