"""Provenance is apart from the score: with it, without it, and if its readers fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from app.contract.schemas import Detection, ErrorCode, ImageInfo, Status, ViewInfo
from app.contract.settings import Settings
from model.detector import Detector
from pictures.decoders import Decoders, ProvenanceOptions
from pictures.findings import View
from pictures.origin import Confidence, Says, Source, Statement
from pictures.provenance import watermark
from pictures.provenance.statement import MAX_STATEMENTS, Reading
from tests import provenance
from tests.conftest import encode, photo
from worker.processing import DecodedPicture, Outcome, Processor, describe
from worker.provenance import FileStatements

DESCRIBED = provenance.with_text(parameters=provenance.PARAMETERS)
NONE_LEFT = "Some metadata could not be read; the rest does not say how the picture was made."


@pytest.fixture(scope="module")
def processor() -> Iterator[Processor]:
    max_pixels = Settings().max_pixels
    detector = Detector.from_pretrained(
        None, device="cpu", dtype="float32", max_pixels=max_pixels, max_tiles=4
    )
    detector.info = replace(detector.info, min_side=0)
    store: Any = None
    with closing(Decoders(1, max_pixels=max_pixels, provenance=ProvenanceOptions())) as decoders:
        yield Processor(detector, describe(detector, "test"), store, decoders)


def outcome(processor: Processor, picture: bytes) -> Outcome:
    now = datetime.now(UTC)
    record = Detection(
        id="a" * 32,
        image=ImageInfo(width=1, height=1, format="PNG", bytes=1, sha256="0" * 64),
        view=ViewInfo(mode=View.CENTER),
        created_at=now,
        expires_at=now + timedelta(days=1),
    )
    ready = processor.decode(record, picture)
    if isinstance(ready, Outcome):
        return ready
    assert isinstance(ready, DecodedPicture), ready
    ready.parts, _ = processor.forward([(ready, 0, ready.units)])
    done = processor.conclude(ready)
    assert isinstance(done, Outcome), done
    return done


def assert_same_score(first: Outcome, second: Outcome) -> None:
    names = {"ai_probability", "verdict", "manipulated", "notes", "masks"}
    assert first.detection.status is second.detection.status is Status.SUCCEEDED
    assert first.detection.model_dump(include=names) == second.detection.model_dump(include=names)
    assert first.masks == second.masks
    assert first.masks


def fail(*_: object, **__: object) -> Any:
    raise RuntimeError("the reader fails")


def test_same_file_scores_the_same_without_the_reader(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_reader = outcome(processor, DESCRIBED)
    monkeypatch.setattr(Decoders, "statements", lambda *_: Reading())
    monkeypatch.setattr(watermark, "find", lambda _: None)
    without = outcome(processor, DESCRIBED)
    assert_same_score(with_reader, without)
    assert with_reader.detection.provenance is not None
    assert with_reader.detection.provenance.has(Says.GENERATED)
    assert without.detection.provenance is not None
    assert without.detection.provenance.statements == []


@pytest.mark.parametrize("reader", ["statements", "watermark", "summary"])
def test_failing_reader_does_not_affect_scores(
    processor: Processor, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    expected = outcome(processor, DESCRIBED)
    if reader == "statements":
        monkeypatch.setattr(Decoders, "statements", fail)
    elif reader == "watermark":
        monkeypatch.setattr(watermark, "find", fail)
    else:
        monkeypatch.setattr("worker.provenance.fitting", fail)
    found = outcome(processor, DESCRIBED)
    assert_same_score(expected, found)
    assert found.detection.provenance is not None
    if reader != "watermark":
        assert found.detection.provenance.incomplete
        assert found.detection.provenance.summary.text.startswith(NONE_LEFT)


def test_failing_reader_does_not_hide_picture_error(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Decoders, "statements", fail)
    found = outcome(processor, encode(photo(256, 256), quality=90)[:5000])
    assert found.detection.error is not None
    assert found.detection.error.code is ErrorCode.IMAGE_TRUNCATED
    assert found.detection.provenance is not None


def test_watermark_follows_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Many(Decoders):
        def __init__(self) -> None:
            pass

        def statements(self, data: bytes) -> Reading:
            camera = Statement(Source.EXIF, Says.CAPTURED, "Camera")
            signed = Statement(Source.C2PA, Says.EDITED, "X", Confidence.SIGNED_UNTRUSTED)
            return Reading([signed, *[camera] * (MAX_STATEMENTS - 1)])

    mark = Statement(Source.WATERMARK, Says.GENERATED, "Stable Diffusion 1")
    monkeypatch.setattr(watermark, "find", lambda _: mark)
    read = FileStatements(Many(), b"")
    read.pixels = np.zeros((8, 8, 3), np.uint8)
    found = read.provenance.statements
    assert [one.source for one in found[:3]] == ["c2pa", "watermark", "exif"]
