"""Ways to wait: `Prefer: wait` of a record, and Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from app.contract.records import events_key
from app.http.waiting import MAX_WAIT
from tests.app.conftest import StandIn, post, wait_for
from tests.app.replica import Replica, assert_problem, replicas
from tests.conftest import value

Event = tuple[str, str, str]
"""Id of the event, id of the detection, status."""


@pytest.fixture(autouse=True)
def no_earlier_endings(standin: StandIn) -> None:
    standin.redis.delete(*map(events_key, ("alice", "bob")))


def read(lines: Iterator[str]) -> Iterator[Event]:
    """The events of a stream."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        fields[name] = value
        if not line and "data" in fields:
            assert fields["event"] == "detection"
            data = json.loads(fields["data"])
            yield fields["id"], data["id"], data["status"]
            fields = {}


def backlog(client: httpx2.Client, after: str) -> list[Event]:
    headers = {"Last-Event-ID": after, "Prefer": "wait=0"}
    answer = client.get("/v1/events", headers=headers)
    assert answer.status_code == 200, answer.text
    return list(read(iter(answer.text.splitlines())))


def test_endings_arrive_as_they_happen(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, bob: httpx2.Client, standin: StandIn
) -> None:
    before = post(alice).json()["id"]
    assert standin.finish(before)
    names = [post(alice).json()["id"] for _ in range(2)]
    foreign = post(bob).json()["id"]
    with alice_elsewhere.stream("GET", "/v1/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.iter_lines()
        while next(lines) != ": waiting":  # it listens
            pass
        standin.fail(foreign)
        assert standin.finish(names[0])
        events = read(lines)
        assert next(events)[1:] == (names[0], "succeeded")
        standin.fail(names[1])
        assert next(events)[1:] == (names[1], "failed")


def test_a_client_resumes_after_the_last_event(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, standin: StandIn
) -> None:
    names = [post(alice).json()["id"] for _ in range(3)]
    for name in names:
        assert standin.finish(name)
    first, *others = backlog(alice, "0-0")
    assert [first[1], *(other[1] for other in others)] == names
    assert backlog(alice, first[0]) == backlog(alice_elsewhere, first[0]) == others
    assert backlog(alice, others[-1][0]) == []


def test_a_client_resumes_where_no_event_came(alice: httpx2.Client, standin: StandIn) -> None:
    name = post(alice).json()["id"]
    answer = alice.get("/v1/events", headers={"Prefer": "wait=0"})
    position = answer.text.splitlines()[0].removeprefix("id: ")
    assert standin.finish(name)
    assert [one for _, one, _ in backlog(alice, position)] == [name]


@pytest.mark.slow
def test_a_stream_does_not_delay_a_stop(pair_redis_url: str, tmp_path: Path) -> None:
    with (
        replicas(pair_redis_url, tmp_path, 1) as (replica,),
        replica.client() as client,
        client.stream("GET", "/v1/events") as answer,
    ):
        lines = answer.iter_lines()
        while next(lines) != ": waiting":
            pass
        replica.process.terminate()
        replica.process.wait(MAX_WAIT / 2)
        assert set(lines) <= {"", ": waiting"}  # it ended in order


def test_deletion_erases_the_event(alice: httpx2.Client, standin: StandIn) -> None:
    names = [post(alice).json()["id"] for _ in range(2)]
    for name in names:
        assert standin.finish(name)
    assert alice.delete(f"/v1/detections/{names[0]}").status_code == 204
    assert [name for _, name, _ in backlog(alice, "0-0")] == names[1:]


def test_the_stream_is_short_and_expires(alice: httpx2.Client, standin: StandIn) -> None:
    key = events_key("alice")
    for number in range(1500):
        standin.redis.xadd(key, {"id": f"old-{number}", "status": "failed"})
    assert standin.finish(post(alice).json()["id"])
    assert standin.redis.xlen(key) < 1200
    assert 0 < standin.redis.ttl(key) <= 86_400 + 60


@pytest.mark.parametrize("position", ["x", "1", "-1-0", "1-0-0", f"1-{2**64}"])
def test_invalid_position(alice: httpx2.Client, position: str) -> None:
    answer = alice.get("/v1/events", headers={"Last-Event-ID": position, "Prefer": "wait=0"})
    assert_problem(answer, 400, "malformed_request")


def test_a_record_is_held_until_the_detection_ends(
    pair: list[Replica], alice: httpx2.Client, standin: StandIn
) -> None:
    name = post(alice).json()["id"]
    path = f"/v1/detections/{name}"
    at_once = alice.get(path, headers={"Prefer": "wait=0"})
    assert at_once.json()["status"] == "queued"
    assert at_once.headers["preference-applied"] == "wait=0"
    with ThreadPoolExecutor() as pool:
        held = pool.submit(alice.get, path, headers={"Prefer": "wait=60"})
        wait_for(lambda: value(pair[0].metrics(), "gamma_http_requests_waiting") == 1)
        assert standin.finish(name)
        answer = held.result()
    assert answer.json()["status"] == "succeeded"
    assert answer.headers["preference-applied"] == "wait=60"
    again = alice.get(path, headers={"If-None-Match": answer.headers["etag"], "Prefer": "wait=60"})
    assert again.status_code == 304
