"""DELETE removes everything about a detection for good."""

from __future__ import annotations

import httpx2

from tests.app.conftest import StandIn, new_picture, post
from tests.app.replica import assert_problem


def traces(standin: StandIn, name: str) -> list[bytes]:
    """Keys that name a detection, and keys of other names that hold it."""
    redis, found = standin.redis, []
    for key in redis.scan_iter("*"):
        kind = redis.type(key)
        held = {
            b"string": lambda key: [redis.get(key)],
            b"hash": lambda key: redis.hgetall(key).values(),
            b"list": lambda key: redis.lrange(key, 0, -1),
            b"set": redis.smembers,
            b"zset": lambda key: redis.zrange(key, 0, -1),
            b"stream": lambda key: [],
        }[kind](key)
        if name.encode() in key or any(name.encode() in value for value in held):
            found.append(key)
    return found


def test_delete_queued_detection(alice: httpx2.Client, standin: StandIn) -> None:
    name = post(alice, idempotency_key="to be deleted", ref_id="r").json()["id"]
    assert name in standin.queued()
    assert len(traces(standin, name)) >= 5
    answer = alice.delete(f"/v1/detections/{name}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert traces(standin, name) == []


def test_delete_finished_detection(alice: httpx2.Client, standin: StandIn) -> None:
    picture = new_picture()
    first = post(alice, picture, idempotency_key="to be deleted too").json()["id"]
    standin.finish(first)
    second = post(alice, picture).json()
    assert second["cached"]
    for name in (first, second["id"]):
        alice.delete(f"/v1/detections/{name}").raise_for_status()
        assert [key for key in traces(standin, name) if not key.startswith(b"rq:job")] == []


def test_all_routes_of_a_deleted_detection_return_404(
    alice: httpx2.Client, standin: StandIn
) -> None:
    name = post(alice).json()["id"]
    standin.finish(name)
    path = f"/v1/detections/{name}"
    alice.delete(path).raise_for_status()
    for below in ("", "/image", "/masks/ai.png", "/overlays/manipulation.png"):
        assert_problem(alice.get(path + below), 404, "not_found")
    assert_problem(alice.delete(path), 404, "not_found")


def test_late_result_of_a_deleted_detection_is_dropped(
    alice: httpx2.Client, standin: StandIn
) -> None:
    name = post(alice).json()["id"]
    record = standin.take(name)
    assert alice.get(f"/v1/detections/{name}").json()["status"] == "processing"
    alice.delete(f"/v1/detections/{name}").raise_for_status()
    assert not standin.deliver(record)
    assert_problem(alice.get(f"/v1/detections/{name}"), 404, "not_found")
    assert [key for key in traces(standin, name) if not key.startswith(b"rq:job")] == []


def test_popped_job_of_a_deleted_detection_does_nothing(
    alice: httpx2.Client, standin: StandIn
) -> None:
    name = post(alice).json()["id"]
    standin.redis.lrem("rq:queue:gamma", 1, name)
    alice.delete(f"/v1/detections/{name}").raise_for_status()
    assert standin.store.start([name]) == {}


def test_other_detections_are_kept(alice: httpx2.Client, standin: StandIn) -> None:
    before, name, after = (post(alice).json()["id"] for _ in range(3))
    alice.delete(f"/v1/detections/{name}").raise_for_status()
    assert [one for one in standin.queued() if one in (before, name, after)] == [before, after]
    assert alice.get("/v1/detections", params={"ids": [before, after]}).json()["missing"] == []
