"""Inpainted pictures, and their blended versions from the same generation."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from training.data import journal, manifest, masks
from training.data.blend import blend
from training.data.engines import Engine, Task
from training.data.journal import SkippedError
from training.data.labels import Kind
from training.data.manifest import PictureUnreadableError, Row
from training.data.masks import MaskType
from training.data.objects import Objects
from training.data.originals import Originals
from training.data.pixels import encode_png, encode_region, shorten, write
from training.errors import UserError

_CATEGORY = "{category}"
_MARGIN = 1.1  # safety factor of the disk space, for pictures larger than the measured one


class InpaintError(UserError):
    """The requested pictures cannot be made."""


@dataclass(frozen=True)
class Plan:
    """Estimate of a run from its first item."""

    items: int
    done: int
    pictures: int
    """Pictures per item, without the mask."""
    seconds: float
    """Time per item."""
    bytes: int
    """Disk space per item."""
    free: int
    """Free bytes on the disk."""

    @property
    def remaining(self) -> int:
        """Items still to make."""
        return self.items - self.done

    @property
    def fits(self) -> bool:
        """Whether the remaining items fit on the disk."""
        return self.remaining * self.bytes * _MARGIN < self.free


@dataclass(frozen=True, eq=False)
class _Rendering:
    source: Row
    mask_type: MaskType
    guidance: str | None
    mask: bytes
    pictures: dict[Kind, bytes]


class Inpainter:
    """Makes inpainted pictures; each depends only on its number and the seed.

    Item i uses picture i of a shuffled order, which repeats after the last picture.
    """

    def __init__(
        self,
        originals: Originals,
        objects: Objects | None,
        engine: Engine,
        folder: Path,
        *,
        mask_types: Sequence[MaskType],
        prompt: str,
        seed: int,
    ) -> None:
        """Choose the possible pictures.

        Args:
            originals: Pictures to inpaint.
            objects: Object shapes for the masks of objects.
            engine: Inpainting engine.
            folder: Output folder (PNGs in subfolders by kind, masks in `masks`).
            mask_types: Mask types, sampled uniformly among those possible for a picture.
            prompt: Prompt for all pictures; `{category}` is replaced by the name of the inpainted
                object. Without an object the prompt is empty.
            seed: Random seed.

        Raises:
            InpaintError: No mask type is possible for any picture.
        """
        self._originals = originals
        self._objects = objects
        self._engine = engine
        self._folder = folder
        self._types = list(mask_types)
        self._prompt = prompt
        self._seed = seed
        rows = list(originals.rows)
        if all(kind.needs_object for kind in self._types):
            rows = [row for row in rows if objects is not None and objects.knows(row)]
        if not rows:
            raise InpaintError("masks of objects need object annotations of the pictures")
        order = np.random.default_rng(seed).permutation(len(rows))
        self._rows = [rows[i] for i in order]
        self._by_split: dict[str | None, list[Row]] = defaultdict(list)
        for row in self._rows:
            self._by_split[row.split].append(row)

    @property
    def pictures(self) -> int:
        """Number of pictures that can be inpainted."""
        return len(self._rows)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings that determine the pictures."""
        return {
            "tool": "inpaint",
            "seed": self._seed,
            "pictures": self._originals.digest,
            **self._engine.settings,
            "masks": [kind.value for kind in self._types],
            "prompt": self._prompt,
        }

    def plan(self, count: int) -> Plan:
        """Time the first remaining item, without writing it, and estimate the run.

        Raises:
            RunMismatchError: The folder contains another run.
            InpaintError: No item can be made.
        """
        done = journal.done(self._folder, self.settings)
        todo = [item for item in range(count) if item not in done]
        seconds, size, pictures = 0.0, 0, 0
        for item in todo:
            start = time.perf_counter()
            try:
                rendering = self._render(item)
            except (SkippedError, PictureUnreadableError, FileNotFoundError):
                continue
            seconds = time.perf_counter() - start
            pictures = len(rendering.pictures)
            size = len(rendering.mask) + sum(map(len, rendering.pictures.values()))
            break
        if todo and not size:
            raise InpaintError("none of the pictures can be inpainted")
        existing = next(p for p in (self._folder, *self._folder.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        return Plan(count, count - len(todo), pictures, seconds, size, free)

    def make(self, item: int) -> list[Row]:
        """Write the pictures of item number `item` and its mask.

        Raises:
            SkippedError: It cannot be made.
            PictureUnreadableError: Its picture cannot be decoded.
            OSError: A file cannot be written.
        """
        rendering = self._render(item)
        source = rendering.source
        stem = f"{item:06d}_{shorten(Path(source.path).stem)}"
        mask = self._folder / "masks" / f"{stem}.png"
        write(mask, rendering.mask)
        rows = []
        for kind, data in rendering.pictures.items():
            file = self._folder / kind / f"{stem}.png"
            write(file, data)
            row = manifest.describe(
                file,
                self._folder,
                kind,
                source_id=source.source_id,
                generator=self._engine.generator,
                mask=mask,
                mask_type=rendering.mask_type,
                guidance=rendering.guidance,
                split=source.split,
                data=data,
            )
            rows.append(row)
        return rows

    def _render(self, item: int) -> _Rendering:
        rng = np.random.default_rng((self._seed, item))
        source = self._rows[item % len(self._rows)]
        picture = self._originals.read(source)
        region, mask_type, name = self._draw_region(source, picture, rng)
        prompt = self._prompt
        if _CATEGORY in prompt:
            prompt = prompt.replace(_CATEGORY, name) if name else ""
        task = Task(
            picture=picture,
            region=region,
            seed=int(rng.integers(2**31)),
            prompt=prompt,
            donor=self._draw_donor(source, rng) if self._engine.wants_donor else None,
        )
        repainted = self._engine.repaint(task)
        pictures = {self._engine.kind: encode_png(repainted)}
        if self._engine.kind is Kind.INPAINT:
            pictures[Kind.BLENDED] = encode_png(blend(picture, repainted, region))
        guidance = self._engine.fill or ("text" if prompt else "none")
        return _Rendering(source, mask_type, guidance, encode_region(region), pictures)

    def _draw_region(
        self, source: Row, picture: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], MaskType, str | None]:
        shapes = []
        if self._objects is not None and self._objects.knows(source):
            shapes = self._objects.of(source)
        size = (picture.shape[0], picture.shape[1])
        if any(shape.region.shape != size for shape in shapes):
            raise SkippedError(f"{source.path}: its objects have another size")
        for index in rng.permutation(len(self._types)):
            drawn = masks.draw(self._types[index], size, shapes, rng)
            if drawn is not None:
                return drawn[0], self._types[index], drawn[1]
        raise SkippedError(f"{source.path}: no object has a suitable size")

    def _draw_donor(self, source: Row, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return another picture of the same split, so that splits share no content."""
        rows = self._by_split[source.split]
        start = int(rng.integers(len(rows)))
        for row in rows[start:] + rows[:start]:
            if row.source_id != source.source_id:
                return self._originals.read(row)
        raise SkippedError(f"{source.path}: no other picture of its split")
