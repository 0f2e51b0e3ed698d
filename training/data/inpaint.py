"""Inpainted pictures and their blended twins, both of one generation."""

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
from training.data.pixels import encode_png, encode_region, write
from training.errors import UserError

_CATEGORY = "{category}"
_MARGIN = 1.1  # of the disk space, for pictures larger than the one that was measured


class InpaintError(UserError):
    """What was asked for cannot be made."""


@dataclass(frozen=True)
class Plan:
    """What a run will take, from its first item."""

    items: int
    done: int
    pictures: int
    """Files an item, its mask not counted."""
    seconds: float
    """An item."""
    bytes: int
    """An item."""
    free: int
    """Bytes on the disk."""

    @property
    def remaining(self) -> int:
        """Items still to make."""
        return self.items - self.done

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what remains."""
        return self.remaining * self.bytes * _MARGIN < self.free


@dataclass(frozen=True, eq=False)
class _Rendering:
    source: Row
    mask_type: MaskType
    guidance: str | None
    mask: bytes
    pictures: dict[Kind, bytes]


class Inpainter:
    """Makes inpainted pictures, each from its number and the seed alone.

    Item i takes picture i of a shuffled order, which is gone through again when it ends.
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
        """Prepare.

        Args:
            originals: pictures to repaint.
            objects: for the masks that follow objects.
            engine: repaints.
            folder: PNGs go to folders of it that are named by kind, masks to `masks`.
            mask_types: drawn with equal chances among those that a picture allows.
            prompt: for every picture; `{category}` becomes the name of the object that is
                repainted, and pictures where there is none are repainted without a prompt.
            seed: with the number of an item, decides all of it.

        Raises:
            InpaintError: no picture allows any of the mask types.
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
            raise InpaintError("masks that follow objects need annotations that know the pictures")
        order = np.random.default_rng(seed).permutation(len(rows))
        self._rows = [rows[i] for i in order]
        self._by_split: dict[str | None, list[Row]] = defaultdict(list)
        for row in self._rows:
            self._by_split[row.split].append(row)

    @property
    def pictures(self) -> int:
        """Number of pictures that can be repainted."""
        return len(self._rows)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """What the pictures depend on."""
        return {
            "tool": "inpaint",
            "seed": self._seed,
            "pictures": self._originals.digest,
            **self._engine.settings,
            "masks": [kind.value for kind in self._types],
            "prompt": self._prompt,
        }

    def plan(self, count: int) -> Plan:
        """Make the first remaining item, without writing it, and project.

        Raises:
            RunMismatchError: the folder holds another run.
            InpaintError: no item can be made.
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
            raise InpaintError("none of the pictures can be repainted")
        existing = next(p for p in (self._folder, *self._folder.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        return Plan(count, count - len(todo), pictures, seconds, size, free)

    def make(self, item: int) -> list[Row]:
        """Write the pictures of item number `item` and its mask.

        Raises:
            SkippedError: it cannot be made.
            PictureUnreadableError: its picture cannot be decoded.
            OSError: a file cannot be written.
        """
        rendering = self._render(item)
        source = rendering.source
        stem = f"{item:06d}_{Path(source.path).stem}"
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
            raise SkippedError(f"{source.path}: its objects are of another size")
        for index in rng.permutation(len(self._types)):
            drawn = masks.draw(self._types[index], size, shapes, rng)
            if drawn is not None:
                return drawn[0], self._types[index], drawn[1]
        raise SkippedError(f"{source.path}: no object is of a size that fits")

    def _draw_donor(self, source: Row, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Another picture of the same split, so that none shows up on both sides."""
        rows = self._by_split[source.split]
        start = int(rng.integers(len(rows)))
        for row in rows[start:] + rows[:start]:
            if row.source_id != source.source_id:
                return self._originals.read(row)
        raise SkippedError(f"{source.path}: no other picture of its split")
