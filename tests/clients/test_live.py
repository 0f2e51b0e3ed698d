"""Clients of a running service: the examples of their pages, and what only a real one does."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gamma_client import Client, ServiceError, find_pictures
from PIL import Image

from tests.conftest import Serve, encode, photo
from tests.docs.files import ROOT, blocks

PICTURES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clients")
    (made / "pictures" / "inner").mkdir(parents=True)
    names = ["photo.jpg", "second.jpg", *(f"pictures/{n}.png" for n in range(PICTURES - 1))]
    for number, name in enumerate([*names, "pictures/inner/é.png"]):
        (made / name).write_bytes(encode(photo(64, 64, 500 + number)))
    (made / "notes.txt").write_text("no picture")
    return made


@pytest.fixture
def client(service: Serve) -> Iterator[Client]:
    with Client(service.url) as connected:
        yield connected


def test_the_examples_of_the_page(
    service: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GAMMA", service.url)
    monkeypatch.setenv("GAMMA_KEY", "any")
    names: dict = {}
    shown = {}
    for block in blocks("clients/python/README.md", "python"):
        exec(block, names)
        shown[block.splitlines()[0]] = capsys.readouterr().out
    names["client"].close()

    one, progress, listed, reviews, errors, both = shown.values()
    assert one == f"{names['detection'].verdict} {names['detection'].ai_probability}\n"
    assert f"{PICTURES} of {PICTURES}\n" in progress
    assert progress.count("pictures/") == PICTURES
    assert "has no result" not in progress
    assert all(line.count(" ") >= 3 for line in listed.splitlines())
    assert Image.open(io.BytesIO(names["mask"])).size == (64, 64)
    assert Image.open(io.BytesIO(names["overlay"])).format == "PNG"
    assert (folder / "detections.csv").read_text().count("\n") > PICTURES
    assert zipfile.ZipFile(folder / "detections.zip").testzip() is None
    assert reviews == "['genuine']\n"
    assert errors.startswith("415 not_an_image ")
    assert both.count("None\n") == PICTURES


def test_the_example_in_typescript(service: Serve, folder: Path) -> None:
    """`npm run check` compares its types with the OpenAPI document."""
    if not (ROOT / "node_modules" / "openapi-fetch").exists():
        assert os.environ.get("CI") != "true", "run npm ci"
        pytest.skip("run npm ci")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("node"),
            ROOT / "clients/typescript/example.mts",
            "photo.jpg",
        ],
        cwd=folder,
        env={"GAMMA": service.url, "GAMMA_KEY": "any"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    result, listed, refused = done.stdout.splitlines()
    assert re.fullmatch(r"succeeded \w+ 0\.\d+", result)
    assert listed == "true"
    assert refused.startswith("415 not_an_image: ")


def test_an_interrupted_folder_is_resumed(client: Client, folder: Path) -> None:
    def detections() -> list[str]:
        return [one.id for one in client.detections()]

    pictures = folder / "pictures"
    before = detections()
    for _ in client.detect_folder(pictures, run="resumed", uploads=2, waiting=2):
        break
    assert len(before) < len(detections()) < len(before) + PICTURES
    outcomes = list(client.detect_folder(pictures, run="resumed"))
    assert {outcome.path for outcome in outcomes} == set(find_pictures(pictures))
    assert [outcome.error for outcome in outcomes] == [None] * PICTURES
    assert len(detections()) == len(before) + PICTURES


def test_deletion_does_not_shift_pages(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gamma_client._sync.client.MAX_IDS", 2)  # of a page
    pictures = sorted((folder / "pictures").glob("*.png"))
    sent = [client.submit(path, ref_id="pages").id for path in pictures]
    listed = client.detections(ref_id="pages")
    first, second = next(listed).id, next(listed).id
    client.delete(first)
    client.delete(sent[0])
    rest = [one.id for one in listed]
    assert [first, second, *rest] == sent[:0:-1]
    with pytest.raises(ServiceError, match="not_found"):
        client.get(first)
    deleted = client.delete_many(ref_id="pages", dry_run=True)
    assert sorted(deleted.deleted) == sorted({*sent} - {first, sent[0]})
    assert sorted(client.delete_many(deleted.deleted).deleted) == sorted(deleted.deleted)


def test_a_batch_is_accepted_or_refused_one_by_one(client: Client, folder: Path) -> None:
    given = [folder / "photo.jpg", b"no picture", folder / "second.jpg"]
    entries = client.submit_batch(given, ref_ids=["a", "b", "c"], idempotency_key="batch")
    assert [entry.status // 100 for entry in entries] == [2, 4, 2]
    again = client.submit_batch(given, ref_ids=["a", "b", "c"], idempotency_key="batch")
    assert [entry.detection and entry.detection.id for entry in again] == [
        entry.detection and entry.detection.id for entry in entries
    ]
    assert entries[1].problem.code == "not_an_image"
    assert client.wait(entries[0].detection.id).ref_id == "a"


def test_a_file_that_is_too_large_is_refused_early(client: Client, tmp_path: Path) -> None:
    """The service answers and closes the connection while the file is being sent."""
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(51 * 2**20)
    (outcome,) = client.detect_folder(tmp_path)
    assert outcome.error.code == "upload_too_large"


def test_events_of_a_running_service(client: Client, folder: Path) -> None:
    """Also of what ended before somebody listened."""
    known = client.detect(folder / "photo.jpg").id
    events = client.events("0-0")
    assert known in (event.id for event in events)
    sent = client.submit(folder / "second.jpg").id
    assert sent in (event.id for event in events)
    events.close()


def test_reviews_of_a_running_service(client: Client, folder: Path) -> None:
    detection = client.detect(folder / "photo.jpg")
    assert client.reviews.assign(detection.id, reviewer="Anna").reviewer == "Anna"
    assert [one.detection_id for one in client.reviews.assigned(reviewer="Anna")] == [detection.id]
    client.reviews.release(detection.id, reviewer="Anna")
    seen = client.reviews.get(detection.id)
    client.reviews.decide(detection.id, "ai")
    with pytest.raises(ServiceError) as conflict:
        client.reviews.decide(detection.id, "genuine", seen=seen)
    assert (conflict.value.code, conflict.value.problem["review"]["decision"]) == (
        "review_conflict",
        "ai",
    )
    (entry,) = client.reviews.decide_many([detection.id], "unsure", note="really?")
    assert entry.review is not None
    assert client.reviews.withdraw(detection.id).review is None
    decisions = [one.decision for one in client.reviews.list(history=True)]
    assert decisions[:3] == ["withdrawn", "unsure", "ai"]
    client.reviews.export(folder / "reviews.csv")
    assert (folder / "reviews.csv").read_text().startswith("sha256,")


def test_facts_and_usage(client: Client) -> None:
    assert client.model().version == "small"
    assert client.usage().caller == "anonymous"
    with pytest.raises(ServiceError, match="webhook_refused"):
        client.webhooks.test("https://example.com/")
    assert client.webhooks.attempts() == []
