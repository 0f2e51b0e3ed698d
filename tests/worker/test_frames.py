"""The worker examines several frames of an animation as one detection."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.contract.schemas import Detection, Head, ImageInfo, ViewInfo
from model.config import GammaConfig
from model.detector import Detector
from model.network import GammaModel
from pictures.decoders import Decoders
from pictures.findings import View
from tests.conftest import encode, photo
from worker.processing import DecodedPicture, Outcome, Processor, describe

TILES = 8
SIZE = (150, 100)  # of a few tiles of 64 pixels


@pytest.fixture(scope="module")
def processor() -> Iterator[Processor]:
    fields: dict[str, Any] = {"backbone": "mit_b0", "crop_size": 64, "min_side": 1}
    detector = Detector(
        GammaModel(GammaConfig(**fields)),
        device="cpu",
        dtype="float32",
        max_pixels=10**6,
        max_tiles=TILES,
    )
    detector._max_tiles = TILES  # the limit is for crops of 512 pixels
    store: Any = None
    with closing(Decoders(1, max_pixels=10**6)) as decoders:
        yield Processor(detector, describe(detector, "test"), store, decoders)


def decoded(processor: Processor, picture: bytes, frames: int) -> DecodedPicture:
    now = datetime.now(UTC)
    record = Detection(
        id="a" * 32,
        image=ImageInfo(width=1, height=1, format="PNG", bytes=1, sha256="0" * 64),
        view=ViewInfo(mode=View.TILED, frames=frames),
        created_at=now,
        expires_at=now + timedelta(days=1),
    )
    ready = processor.decode(record, picture)
    assert isinstance(ready, DecodedPicture), ready
    return ready


def concluded(processor: Processor, ready: DecodedPicture, step: int) -> Outcome:
    """Compute `step` crops at a time."""
    for start in range(0, ready.units, step):
        outputs, _ = processor.forward([(ready, start, min(start + step, ready.units))])
        ready.parts += outputs
    done = processor.conclude(ready)
    assert isinstance(done, Outcome), done
    return done


def frames() -> list[Image.Image]:
    return [photo(*SIZE, seed).convert("L") for seed in range(4)]


def moving() -> bytes:
    first, *others = frames()
    return encode(first, "PNG", save_all=True, append_images=others, duration=40)


@pytest.mark.parametrize("step", [1, 3, 100])
def test_each_frame_gets_its_own_score_and_the_highest_counts(
    processor: Processor, step: int
) -> None:
    ready = decoded(processor, moving(), 4)
    assert ready.units <= TILES
    done = concluded(processor, ready, step)
    detection = done.detection
    assert detection.frames is not None
    assert [(one.frame, one.time_ms) for one in detection.frames] == [
        (1, 0),
        (2, 40),
        (3, 80),
        (4, 120),
    ]
    scores = [one.ai_probability for one in detection.frames]
    assert len(set(scores)) == 4
    place = int(np.argmax(scores))
    assert detection.ai_probability == scores[place]
    assert detection.verdict == detection.frames[place].verdict
    assert detection.view.frame == place + 1
    assert detection.view.tiles == ready.units
    mask = Image.open(io.BytesIO(done.masks[Head.AI]))
    assert mask.size == SIZE


def test_a_frame_scores_as_it_would_alone_with_its_part_of_the_tiles(processor: Processor) -> None:
    together = concluded(processor, decoded(processor, moving(), 4), 100).detection
    assert together.frames is not None
    detector = processor._detector
    for one, picture in zip(together.frames, frames(), strict=True):
        alone = detector.examine(np.asarray(picture.convert("RGB")), View.TILED, 4)
        assert one.ai_probability == pytest.approx(alone.ai_probability, abs=1e-5)
        assert one.manipulated == alone.manipulated


def test_one_frame_is_examined_unless_asked(processor: Processor) -> None:
    detection = concluded(processor, decoded(processor, moving(), 1), 100).detection
    assert (detection.frames, detection.view.frame) == (None, 1)


def test_manipulation_of_any_frame_counts(processor: Processor) -> None:
    ready = decoded(processor, moving(), 4)
    ready.parts, _ = processor.forward([(ready, 0, ready.units)])
    findings = processor._findings(ready)
    marked = int(np.argmin([one.ai_probability for one in findings]))
    object.__setattr__(findings[marked], "manipulated", True)
    assert processor._succeeded(ready, findings, 0.0).manipulated
