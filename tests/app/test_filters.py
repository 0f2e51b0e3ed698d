"""Conditions of lists, and what is done with many detections at once."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import zipfile
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from redis import Redis
from starlette.types import Message

from app.contract.client import connect
from app.contract.jobs import JobQueue
from app.contract.settings import Settings
from app.contract.spreadsheet import as_text
from app.contract.store import Store
from app.http import examples, listing
from app.http.api import create_app
from app.http.callers import Caller
from app.http.listing import Filter
from app.http.routes import bulk
from app.http.routes.pictures import mask_bytes
from app.http.service import Service
from app.http.waiting import FinishedEvents
from pictures.findings import Verdict
from tests.app.conftest import KEYS, StandIn, new_picture, post
from tests.app.replica import assert_problem

PATH = "/v1/detections"


@pytest.fixture(autouse=True)
def empty(alice: httpx2.Client) -> None:
    """Delete what other tests have left."""
    while True:
        answer = alice.delete(PATH, params={"created_after": "2020-01-01T00:00:00Z"})
        assert answer.status_code == 200, answer.text
        if not answer.json()["more"]:
            return


@pytest.fixture
def made(alice: httpx2.Client, standin: StandIn) -> dict[str, str]:
    """Ids by name: one waits, one failed, one is generated, one is authentic and manipulated."""
    names = {name: post(alice, ref_id=name).json()["id"] for name in ("waits", "failed", "ai")}
    names["real"] = post(alice, ref_id="real").json()["id"]
    standin.fail(names["failed"])
    assert standin.deliver(standin.take(names["ai"]))
    changes = {"ai_probability": 0.1, "verdict": Verdict.AUTHENTIC, "manipulated": True}
    assert standin.deliver(standin.take(names["real"]), **changes)
    return names


def listed(client: httpx2.Client, **query: object) -> list[str]:
    answer = client.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return [record["ref_id"] for record in answer.json()["detections"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["real", "ai", "failed", "waits"]),
        ({"status": "queued"}, ["waits"]),
        ({"status": "succeeded"}, ["real", "ai"]),
        ({"verdict": "ai_generated"}, ["ai"]),
        ({"manipulated": "true"}, ["real"]),
        ({"manipulated": "false"}, ["ai"]),
        ({"min_probability": "0.1"}, ["real", "ai"]),
        ({"min_probability": "0.11"}, ["ai"]),
        ({"min_probability": "0"}, ["real", "ai"]),
        ({"ref_id": "failed"}, ["failed"]),
        ({"status": "succeeded", "manipulated": "true"}, ["real"]),
        ({"status": "succeeded", "verdict": "uncertain"}, []),
    ],
)
def test_conditions(
    alice: httpx2.Client, made: dict[str, str], query: dict[str, str], found: list[str]
) -> None:
    assert listed(alice, **query) == found


def test_times_of_creation(alice: httpx2.Client, made: dict[str, str]) -> None:
    second = alice.get(f"{PATH}/{made['failed']}").json()["created_at"]
    assert listed(alice, created_after=second) == ["real", "ai", "failed"]
    assert listed(alice, created_before=second) == ["waits"]
    later = datetime.fromisoformat(second) + timedelta(hours=1)
    assert listed(alice, created_after=later.isoformat()) == []
    assert listed(alice, created_after=second, status="succeeded") == ["real", "ai"]
    far = "2300-01-01T00:00:00Z"
    assert listed(alice, created_after=far) == []
    assert listed(alice, created_before=far) == listed(alice)


def test_filtered_pages_are_complete(alice: httpx2.Client, made: dict[str, str]) -> None:
    path: str | None = f"{PATH}?limit=1&status=succeeded&min_probability=0.05"
    found = []
    while path is not None:
        page = alice.get(path).json()
        found += [record["ref_id"] for record in page["detections"]]
        path = page["next"]
    assert found == ["real", "ai"]


@pytest.mark.parametrize(
    "query",
    [
        "status=done",
        "verdict=x",
        "manipulated=perhaps",
        "min_probability=1.1",
        "created_after=1",
        "created_before=2026-01-31",
        "ref_id=",
        "status=queued&status=failed",
    ],
)
def test_invalid_conditions(alice: httpx2.Client, query: str) -> None:
    assert_problem(alice.get(f"{PATH}?{query}"), 400, "malformed_request")
    assert_problem(alice.delete(f"{PATH}?{query}"), 400, "malformed_request")
    assert_problem(alice.get(f"{PATH}/export?{query}"), 400, "malformed_request")


# -- deletion -------------------------------------------------------------------------------------


def test_deletion_by_condition_and_its_dry_run(alice: httpx2.Client, made: dict[str, str]) -> None:
    query = {"status": "succeeded", "dry_run": "true"}
    tried = alice.delete(PATH, params=query).json()
    assert tried == {
        "dry_run": True,
        "deleted": [made["real"], made["ai"]],
        "missing": [],
        "more": False,
    }
    assert len(listed(alice)) == 4
    done = alice.delete(PATH, params={"status": "succeeded"}).json()
    assert done == {**tried, "dry_run": False}
    assert listed(alice) == ["failed", "waits"]


def test_deletion_by_condition_reaches_old_detections(
    alice: httpx2.Client, pair_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although more newer ones do not match than a page reads."""
    wanted = post(alice, ref_id="wanted").json()["id"]
    others = [post(alice, ref_id="other").json()["id"] for _ in range(3)]
    monkeypatch.setattr(listing, "_MAX_PAGES_READ", 1)
    monkeypatch.setattr(bulk, "MAX_NAMED", 1)
    settings = Settings(redis_url=pair_redis_url, api_keys=f"alice={KEYS['alice']}")
    transport = httpx2.ASGITransport(create_app(settings))

    async def delete() -> dict:
        headers = {"Authorization": f"Bearer {KEYS['alice']}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://api", headers=headers
        ) as client:
            return (await client.delete(PATH, params={"ref_id": "wanted"})).json()

    assert asyncio.run(delete())["deleted"] == [wanted]
    assert alice.get(PATH, params={"ids": ",".join(others)}).json()["missing"] == []


def test_a_score_of_zero_is_a_score() -> None:
    zero = examples.SUCCEEDED.model_copy(update={"ai_probability": 0.0})
    assert Filter(min_probability=0).matches(zero)
    assert not Filter(min_probability=0).matches(examples.QUEUED)


def test_deletion_by_ids_spares_others(
    alice: httpx2.Client, bob: httpx2.Client, made: dict[str, str], standin: StandIn
) -> None:
    foreign = post(bob).json()["id"]
    answer = alice.delete(PATH, params={"ids": f"{made['waits']},{foreign},nowhere"})
    assert answer.json()["deleted"] == [made["waits"]]
    assert answer.json()["missing"] == [foreign, "nowhere"]
    assert made["waits"] not in standin.queued()
    assert bob.get(f"{PATH}/{foreign}").status_code == 200
    assert listed(alice) == ["real", "ai", "failed"]


@pytest.mark.parametrize("query", ["", "dry_run=true", "ids=a&status=queued"])
def test_deletion_needs_ids_or_a_condition(alice: httpx2.Client, query: str) -> None:
    assert_problem(alice.delete(f"{PATH}?{query}"), 400, "malformed_request")


# -- export ---------------------------------------------------------------------------------------


def test_export_as_json_lines_has_the_records(alice: httpx2.Client, made: dict[str, str]) -> None:
    answer = alice.get(f"{PATH}/export", params={"format": "jsonl", "status": "succeeded"})
    assert answer.headers["content-type"] == "application/jsonl"
    assert "detections.jsonl" in answer.headers["content-disposition"]
    records = [json.loads(line) for line in answer.text.splitlines()]
    assert records == [alice.get(f"{PATH}/{made[name]}").json() for name in ("real", "ai")]


def test_export_as_csv_is_safe_in_a_spreadsheet(alice: httpx2.Client, standin: StandIn) -> None:
    name = post(alice, ref_id="=HYPERLINK(1)").json()["id"]
    assert standin.finish(name)
    answer = alice.get(f"{PATH}/export")
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["id"], row["ref_id"]) == (name, "'=HYPERLINK(1)")
    assert (row["ai_probability"], row["verdict"]) == ("0.7", "ai_generated")
    assert (row["image.width"], row["model.name"]) == ("16", "stand-in")


def test_export_of_several_pages(alice: httpx2.Client) -> None:
    sent = []
    for _ in range(3):
        files = [("files", new_picture()) for _ in range(40)]
        entries = alice.post(f"{PATH}/batch", files=files).json()["results"]
        sent += [entry["detection"]["id"] for entry in entries]
    answer = alice.get(f"{PATH}/export", params={"format": "jsonl"})
    exported = [json.loads(line)["id"] for line in answer.text.splitlines()]
    assert len(exported) == 120
    assert set(exported) == set(sent)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", " =1", "\t=1"])
def test_formulas_become_text(text: str) -> None:
    assert as_text(text) == f"'{text}"
    assert as_text("plain = text") == "plain = text"


# -- archive --------------------------------------------------------------------------------------


def test_archive_of_masks_and_overlays(
    alice: httpx2.Client, bob: httpx2.Client, made: dict[str, str]
) -> None:
    foreign = post(bob).json()["id"]
    names = [made["ai"], made["waits"], foreign]
    answer = alice.get(f"{PATH}/archive", params={"ids": ",".join(names)})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        assert file.testzip() is None
        files = {name: file.read(name) for name in file.namelist()}
    assert files.pop("missing.txt").decode().split() == [foreign]
    assert json.loads(files.pop(f"{made['waits']}/record.json"))["status"] == "queued"
    assert json.loads(files.pop(f"{made['ai']}/record.json"))["id"] == made["ai"]
    expected = {
        f"{made['ai']}/{kind}/{head}.png": alice.get(f"{PATH}/{made['ai']}/{kind}/{head}.png")
        for kind in ("masks", "overlays")
        for head in ("ai", "manipulation")
    }
    assert files == {name: one.content for name, one in expected.items()}


def test_an_archive_holds_memory_while_it_is_sent(
    made: dict[str, str], pair_redis_url: str
) -> None:
    """So that slow clients cannot make the service keep many masks at once."""

    async def read(redis: Redis) -> None:
        settings = Settings(redis_url=pair_redis_url)
        events = FinishedEvents(pair_redis_url)
        service = Service(settings, Store(redis), JobQueue(redis, settings), events)
        state = SimpleNamespace(service=service, root_path="")
        request: Any = SimpleNamespace(app=SimpleNamespace(state=state))
        archive = await bulk.archive(request, Caller("alice", "alice"), [made["ai"]])
        downloads = service.resources.downloads
        largest = downloads.capacity - 2 * mask_bytes(service.record(made["ai"], "alice").image)
        sent = b""

        async def send(message: Message) -> None:
            nonlocal sent
            sent += message.get("body", b"")
            assert downloads.available("bob", largest)
            assert not downloads.available("bob", largest + 1)

        async def receive() -> Message:
            raise AssertionError

        await archive({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
        assert b"/masks/ai.png" in sent
        assert downloads.available("bob", downloads.capacity)

    with connect(pair_redis_url) as redis:
        asyncio.run(read(redis))


def test_archive_needs_ids(alice: httpx2.Client) -> None:
    assert_problem(alice.get(f"{PATH}/archive"), 400, "malformed_request")
    assert_problem(alice.get(f"{PATH}/archive?ids=a&size=8"), 400, "malformed_request")
    many = ",".join(map(str, range(101)))
    assert_problem(alice.get(f"{PATH}/archive?ids={many}"), 400, "malformed_request")
