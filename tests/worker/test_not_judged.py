"""The worker gives pictures below the model's smallest size no score."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.contract.schemas import Detection, ImageInfo, Status, ViewInfo
from model.config import GammaConfig
from model.detector import Detector
from model.network import GammaModel
from pictures.decoders import Decoders
from pictures.findings import NotJudged, View
from tests.conftest import encode, photo
from worker.processing import DecodedPicture, Outcome, Processor, describe

MIN_SIDE = 40


@pytest.mark.parametrize("view", [View.AUTO, View.CENTER])
def test_a_small_picture_ends_without_a_score(view: View) -> None:
    fields: dict[str, Any] = {"backbone": "mit_b0", "crop_size": 64, "min_side": MIN_SIDE}
    model = GammaModel(GammaConfig(**fields))
    detector = Detector(model, device="cpu", max_pixels=10**6, max_tiles=4)
    info, store = describe(detector, "test"), None
    assert info.min_side == MIN_SIDE
    now = datetime.now(UTC)
    record = Detection(
        id="a" * 32,
        image=ImageInfo(width=1, height=1, format="PNG", bytes=1, sha256="0" * 64),
        view=ViewInfo(mode=view),
        created_at=now,
        expires_at=now + timedelta(days=1),
    )
    with closing(Decoders(1, max_pixels=10**6)) as decoders:
        processor = Processor(detector, info, store, decoders)  # type: ignore[arg-type]
        small = processor.decode(record, encode(photo(200, MIN_SIDE - 1), "PNG"))
        enough = processor.decode(record, encode(photo(MIN_SIDE, 200), "PNG"))
    assert isinstance(enough, DecodedPicture)
    assert isinstance(small, Outcome)
    ended = small.detection
    assert (ended.status, ended.not_judged) == (Status.SUCCEEDED, NotJudged.TOO_SMALL)
    assert ended.model == info.model
    assert ended.timings is not None
    scores = (ended.ai_probability, ended.verdict, ended.manipulated, ended.masks)
    assert scores == (None, None, None, None)
    assert small.masks == {}
