"""API processes are stateless, and waiting requests block no threads."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from app.contract.store import FINISHED_CHANNEL
from tests.app.conftest import KEYS, StandIn, new_picture, post, wait_for
from tests.app.replica import Replica, assert_problem
from tests.conftest import value

WAITERS = 60  # more than an API process has threads


def waiting(replica: Replica) -> float:
    return value(replica.metrics(), "gamma_http_requests_waiting")


def test_each_replica_serves_the_detections_of_the_other(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, standin: StandIn
) -> None:
    picture = new_picture()
    record = post(alice, picture).json()
    path = f"/v1/detections/{record['id']}"
    found = alice_elsewhere.get(path).json()
    assert {**found, "queue_position": None, "expected_wait": None} == record
    assert alice_elsewhere.get(f"{path}/image").content == picture
    assert standin.finish(record["id"])
    mask = alice_elsewhere.get(f"{path}/masks/ai.png")
    assert mask.status_code == 200
    assert record["id"] in alice_elsewhere.get("/v1/detections?limit=100").text
    assert alice_elsewhere.delete(path).status_code == 204
    assert_problem(alice.get(path), 404, "not_found")


def test_result_wakes_requests_at_both_replicas(
    pair: list[Replica], alice: httpx2.Client, alice_elsewhere: httpx2.Client, standin: StandIn
) -> None:
    picture, given = new_picture(), {"idempotency_key": "both", "prefer": "wait=60"}
    with ThreadPoolExecutor(2) as pool:
        here = pool.submit(post, alice, picture, **given)
        there = pool.submit(post, alice_elsewhere, picture, **given)
        wait_for(lambda: waiting(pair[0]) == waiting(pair[1]) == 1)
        name = newest(alice)["id"]
        assert standin.finish(name)
    for answer in (here.result(), there.result()):
        assert answer.status_code == 200
        assert answer.json()["id"] == name
        assert answer.headers["preference-applied"] == "wait=60"


def test_bulk_calls_at_both_replicas_at_once(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, standin: StandIn
) -> None:
    files = [("files", new_picture()) for _ in range(8)]
    sent = alice.post("/v1/detections/batch", files=files).json()["results"]
    names = [entry["detection"]["id"] for entry in sent]
    for name in names:
        assert standin.finish(name)
    clients = (alice, alice_elsewhere)
    body = {"ids": names, "decision": "ai"}
    params = {"ids": ",".join(names)}
    with ThreadPoolExecutor(2) as pool:
        decided = list(pool.map(lambda one: one.post("/v1/reviews", json=body), clients))
        assert [answer.status_code for answer in decided] == [207, 207]
        assert all(entry["review"] for one in decided for entry in one.json()["results"])
        for name in names:
            assert len(alice.get(f"/v1/detections/{name}/review").json()["history"]) == 1
        deleted = list(pool.map(lambda one: one.delete("/v1/detections", params=params), clients))
    assert [answer.status_code for answer in deleted] == [200, 200]
    for client in clients:
        assert client.get("/v1/detections", params=params).json()["missing"] == names


def newest(client: httpx2.Client) -> dict:
    (record,) = client.get("/v1/detections?limit=1").json()["detections"]
    return record


def test_deletion_ends_the_wait(
    pair: list[Replica], alice: httpx2.Client, alice_elsewhere: httpx2.Client
) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, alice, new_picture(), prefer="wait=60")
        wait_for(lambda: waiting(pair[0]) == 1)
        path = f"/v1/detections/{newest(alice_elsewhere)['id']}"
        assert alice_elsewhere.delete(path).status_code == 204
        assert_problem(answer.result(), 404, "not_found")
    assert answer.result().elapsed.total_seconds() < 50


def test_lost_message_delays_the_result_only(
    pair: list[Replica], alice: httpx2.Client, standin: StandIn
) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, alice, new_picture(), prefer="wait=60")
        wait_for(lambda: waiting(pair[0]) == 1)
        assert standin.redis.client_kill_filter(_type="pubsub")
        assert standin.finish(newest(alice)["id"])
        assert answer.result().status_code == 200
    assert answer.result().elapsed.total_seconds() < 50


@pytest.mark.parametrize("message", [b"", b"\xff\xfe", b"no-such-id succeeded {}", b"x" * 100_000])
def test_unknown_messages_are_ignored(
    pair: list[Replica], alice: httpx2.Client, standin: StandIn, message: bytes
) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, alice, new_picture(), prefer="wait=60")
        wait_for(lambda: waiting(pair[0]) == 1)
        wait_for(lambda: standin.redis.publish(FINISHED_CHANNEL, message) >= len(pair))
        assert standin.finish(newest(alice)["id"])
        assert answer.result().status_code == 200


def test_disconnect_ends_the_wait(pair: list[Replica]) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        + new_picture()
        + b"\r\n--b--\r\n"
    )
    head = (
        "POST /v1/detections HTTP/1.1\r\nHost: x\r\nPrefer: wait=60\r\n"
        f"Authorization: Bearer {KEYS['alice']}\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", pair[0].port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        wait_for(lambda: waiting(pair[0]) == 1)
    wait_for(lambda: waiting(pair[0]) == 0)


def test_waiting_blocks_no_thread(pair: list[Replica], standin: StandIn) -> None:
    def submit(_: int) -> httpx2.Response:
        with pair[0].client(KEYS["bob"]) as client:
            client.timeout = 70
            return post(client, prefer="wait=60")

    with ThreadPoolExecutor(WAITERS) as pool, pair[0].client(KEYS["bob"]) as other:
        before = set(standin.queued())
        answers = [pool.submit(submit, number) for number in range(WAITERS)]
        wait_for(lambda: waiting(pair[0]) == WAITERS)
        names = set(standin.queued()) - before
        assert other.get("/v1/detections?limit=1").status_code == 200
        assert all(standin.finish(name) for name in names)
        assert {answer.result().json()["id"] for answer in answers} == names
    assert {answer.result().status_code for answer in answers} == {200}
