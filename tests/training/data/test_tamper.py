"""Copy-move and splicing: parameters, regions, splits, resumption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter

from tests.conftest import photo
from tests.training.data.forging import (
    command,
    contents,
    make_coco,
    make_maps,
    make_pictures,
    pixels,
    region,
)
from training.data import journal, manifest, objects, originals
from training.data.importers.tampcoco import parse
from training.data.labels import Kind
from training.data.manifest import Row
from training.data.objects import MapObjects, ObjectsError
from training.data.tamper import Forger, Parameters, Tampering, transform

# pycocotools 2.0.11 has an `__array__` of before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_parameters_equal_tampcoco() -> None:
    rng = np.random.default_rng(0)
    drawn = [Parameters.draw(rng) for _ in range(20_000)]
    assert {p.quality for p in drawn} == set(range(60, 101))
    turned, resized = [p.degrees != 0 for p in drawn], [p.scale != 1 for p in drawn]
    assert np.mean(turned) == pytest.approx(0.30, abs=0.015)
    assert np.mean(resized) == pytest.approx(0.29, abs=0.015)
    assert np.mean(np.logical_and(turned, resized)) == pytest.approx(0.30 * 0.29, abs=0.01)
    assert (min(p.degrees for p in drawn), max(p.degrees for p in drawn)) == (-45, 45)
    assert min(p.scale for p in drawn) >= 0.75
    assert max(p.scale for p in drawn) <= 1.25


def test_names_equal_tampcoco() -> None:
    name = Parameters(quality=71, degrees=-12, scale=0.85).name("01.jpg", "02.jpg")
    forgery = parse(name + ".jpg")
    assert forgery is not None
    assert (forgery.quality, forgery.target, forgery.source) == (71, 1, 2)
    assert (forgery.rotation, forgery.scale) == (-12, 0.85)
    assert Parameters(60, 0, 1.0).name("1.jpg", "2.jpg") == "60_1.jpg_2.jpg"


def test_object_is_cut_out_rotated_and_resized() -> None:
    picture = np.asarray(photo(60, 40))
    shape = np.zeros((40, 60), bool)
    shape[10:20, 20:50] = True
    patch, cutout = transform(picture, shape, 0, 1)
    assert cutout.all()
    np.testing.assert_array_equal(patch, picture[10:20, 20:50])
    _, turned = transform(picture, shape, 45, 1)
    assert turned.sum() == pytest.approx(300, rel=0.1)
    assert turned.shape == pytest.approx((28, 28), abs=2)
    _, small = transform(picture, shape, 0, 0.8)
    assert small.shape == pytest.approx((8, 24), abs=1)


def test_maps_give_connected_objects_of_a_class(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    known = MapObjects(make_maps(tmp_path))
    row = next(manifest.read(tmp_path / "manifest.jsonl"))
    assert known.knows(row)
    assert sorted(int(shape.region.sum()) for shape in known.of(row)) == [150, 400, 450]


def test_coco_gives_polygons_and_run_lengths_but_no_crowds(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    known = objects.load(make_coco(tmp_path))
    cat, pole = known.of(next(manifest.read(tmp_path / "manifest.jsonl")))
    assert (cat.name, pole.name) == ("cat", "pole")
    assert cat.region.shape == (61, 90)
    assert cat.region[10:40, 10:40].all()
    assert cat.region.sum() == pytest.approx(900, abs=61)
    assert pole.region[:, :12].all()
    assert not pole.region[:, 12:].any()


def test_invalid_annotations_error_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ObjectsError, match=r"a\.json"):
        objects.load(tmp_path / "a.json")


@pytest.mark.parametrize("annotations", [make_maps, make_coco])
@pytest.mark.parametrize("how", ["copy-move", "splice"])
def test_forgeries(tmp_path: Path, how: str, annotations: object) -> None:
    pictures = make_pictures(tmp_path)
    assert callable(annotations)
    answer = command(
        *("tamper", how, pictures, tmp_path / "out", "--objects", annotations(tmp_path)),
        *("--count", 8, "--seed", 3),
    )
    assert answer.exit_code == 0, answer.output
    rows = list(manifest.read(tmp_path / "out" / "manifest.jsonl"))
    assert len(rows) == 8
    sources = {row.source_id: row for row in manifest.read(pictures)}
    for row in rows:
        original = sources[row.source_id]
        assert row.kind is (Kind.COPY_MOVE if how == "copy-move" else Kind.SPLICE)
        assert (row.split, row.width, row.height) == (
            original.split,
            original.width,
            original.height,
        )
        assert row.mask is not None
        forgery = parse(Path(row.path).name.split("_", 1)[1])
        assert forgery is not None
        assert (forgery.target == forgery.source) is (how == "copy-move")
        assert forgery.quality == row.jpeg_quality
        assert sources[f"photo-{forgery.source}"].split == row.split
        changed = region(tmp_path / "out" / row.mask)
        assert changed.shape == (row.height, row.width)
        assert 0.01 <= changed.mean() <= 0.5


def test_pasted_pixels_are_from_source_and_others_from_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pictures(tmp_path, 1)
    make_maps(tmp_path, 1)
    plain = Parameters(quality=100, degrees=0, scale=1.0)
    monkeypatch.setattr(Parameters, "draw", lambda _: plain)
    known = originals.load(tmp_path / "manifest.jsonl")
    forger = Forger(Tampering.COPY_MOVE, known, objects.load(tmp_path / "maps"), tmp_path / "o", 0)
    (row,) = forger.make(0)
    assert row.mask is not None
    forged, original = pixels(tmp_path / "o" / row.path), known.read(known.rows[0])
    changed = region(tmp_path / "o" / row.mask)
    difference = np.abs(forged.astype(int) - original).max(axis=2)
    near = maximum_filter(changed, 33)  # chroma runs over the edge by a coding unit
    assert difference[~near].max() < 20
    assert difference[changed].mean() > 20


def test_larger_count_extends_a_run(tmp_path: Path) -> None:
    common = ("--objects", make_maps(tmp_path), "--seed", 1)
    pictures = make_pictures(tmp_path)
    assert (
        command("tamper", "splice", pictures, tmp_path / "a", *common, "--count", 3).exit_code == 0
    )
    assert (
        command("tamper", "splice", pictures, tmp_path / "a", *common, "--count", 6).exit_code == 0
    )
    answer = command(
        *("tamper", "splice", pictures, tmp_path / "b", *common, "--count", 6, "--workers", 3)
    )
    assert answer.exit_code == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_needs_another_folder(tmp_path: Path) -> None:
    common = ("tamper", "copy-move", make_pictures(tmp_path), tmp_path / "out", "--objects")
    common = (*common, make_maps(tmp_path), "--count", 2)
    assert command(*common).exit_code == 0
    before = contents(tmp_path / "out")
    answer = command(*common, "--seed", 5)
    assert answer.exit_code == 1
    assert "another seed" in " ".join(answer.stderr.split())
    assert contents(tmp_path / "out") == before


def test_damaged_picture_is_skipped(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path)
    (tmp_path / "real" / f"{1:012d}.jpg").write_bytes(b"\xff\xd8\xff broken")
    common = ("--objects", make_maps(tmp_path), "--count", 6)
    answer = command("tamper", "copy-move", pictures, tmp_path / "out", *common)
    assert answer.exit_code == 0
    rows = list(manifest.read(tmp_path / "out" / "manifest.jsonl"))
    assert len(rows) == 6
    assert "photo-1" not in {row.source_id for row in rows}


def test_plain_folder_is_accepted(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    (tmp_path / "real" / "broken.png").write_bytes(b"no picture")
    answer = command(
        *("tamper", "copy-move", tmp_path / "real", tmp_path / "out"),
        *("--objects", make_maps(tmp_path), "--count", 2),
    )
    assert answer.exit_code == 0
    assert "broken.png" in answer.stderr
    rows = manifest.read(tmp_path / "out" / "manifest.jsonl")
    assert {row.source_id for row in rows} <= {f"{i:012d}" for i in range(4)}


def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    pictures, maps = make_pictures(tmp_path), make_maps(tmp_path)
    known = originals.load(pictures)
    forger = Forger(Tampering.SPLICE, known, objects.load(maps), tmp_path / "a", 0)

    def run(limit: int) -> journal.Report:
        def make(item: int) -> list[Row]:
            if item >= limit:
                raise OSError(28, "No space left on device")
            return forger.make(item)

        return journal.run_items(
            tmp_path / "a", forger.settings, 5, make, workers=1, title="forging"
        )

    with pytest.raises(OSError, match="No space left"):
        run(3)
    assert sorted(journal.done(tmp_path / "a", forger.settings)) == [0, 1, 2]
    assert not (tmp_path / "a" / "manifest.jsonl").exists()
    with (tmp_path / "a" / "journal.jsonl").open("a") as half:
        half.write('{"item": 3, "rows": [{"pa')
    assert run(5).rows == 5
    whole = Forger(Tampering.SPLICE, known, objects.load(maps), tmp_path / "b", 0)
    journal.run_items(tmp_path / "b", whole.settings, 5, whole.make, workers=2, title="forging")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_objects_of_another_size_are_refused(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, 1)
    (tmp_path / "maps").mkdir()
    Image.new("L", (10, 10), 255).save(tmp_path / "maps" / f"{0:012d}.png")
    answer = command(
        *("tamper", "copy-move", pictures, tmp_path / "out", "--objects", tmp_path / "maps")
    )
    assert answer.exit_code == 0
    assert "objects have another size" in " ".join(answer.stderr.split())
    assert list(manifest.read(tmp_path / "out" / "manifest.jsonl")) == []


def test_real_folder_layouts(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    maps = make_maps(tmp_path)
    (maps / "000000000000.png").rename(maps / "000000000000.PNG")
    (maps / "gone [b].png").symlink_to("nowhere")
    real = tmp_path / "real"
    (real / "000000000001.jpg").rename(real / "000000000001.JFIF")
    (real / "gone [b].jpg").symlink_to("nowhere")
    (real / "notes.txt").touch()
    answer = command("tamper", "copy-move", real, tmp_path / "out", "--objects", maps)
    assert answer.exit_code == 0, answer.output
    assert "4 pictures," in answer.stdout
    lost = "No such file or directory"
    assert f"left out: {real}/gone [b].jpg: {lost}" in answer.stderr
    assert f"1 left out, not a picture by its name: {real}/notes.txt" in answer.stderr
    assert f"1 left out, cannot be read: {maps}/gone [b].png ({lost})" in answer.stderr


def test_annotations_with_backslashes(tmp_path: Path) -> None:
    file = make_coco(tmp_path)
    file.write_text(file.read_text().replace('"file_name": "', '"file_name": "images\\\\'))
    (row, *_) = originals.load(make_pictures(tmp_path)).rows
    assert len(objects.load(file).of(row)) == 2
