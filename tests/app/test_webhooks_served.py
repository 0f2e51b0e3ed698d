"""Webhooks of a running service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.app.receiver import Arrival, Receiver, wait_for
from tests.app.test_webhook_rules import SECRET
from tests.app.test_webhooks import verifies
from tests.conftest import Serve, encode, photo, value, wait_until_final

PICTURE = encode(photo(200, 200))
WEBHOOKS_METRICS = 2  # above the API's port: the worker's, then this


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Serve]:
    running = Serve(
        tmp_path_factory.mktemp("service") / "data",
        forked=False,  # a killed process must be the one that a service really has
        GAMMA_CHECKPOINT=str(small_model),
        GAMMA_LOG_FORMAT="json",
        GAMMA_WEBHOOK_SECRETS=SECRET,
        GAMMA_WEBHOOK_ALLOW="127.0.0.1",
    )
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


def submit(service: Serve, url: str, **headers: str) -> dict:
    with service.client() as client:
        answer = client.post(
            "/v1/detections",
            files={"file": PICTURE},
            data={"webhook_url": url},
            headers={"Prefer": "wait=60", **headers},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()


def arrival(receiver: Receiver, detection: dict) -> Arrival:
    """Wait for the only delivery of a detection."""

    def found() -> list[Arrival]:
        return [a for a in receiver.arrivals if a.event["detection"]["id"] == detection["id"]]

    wait_for(found)
    (one,) = found()
    return one


def delivered(service: Serve) -> float:
    name = 'gamma_webhook_deliveries_total{outcome="delivered"}'
    return value(service.metrics(WEBHOOKS_METRICS), name)


def test_refused_urls_and_batch(service: Serve, receiver: Receiver) -> None:
    with service.client() as client:
        for url in ("http://hooks.example.com/", "https://169.254.169.254/", "x"):
            answer = client.post(
                "/v1/detections", files={"file": PICTURE}, data={"webhook_url": url}
            )
            assert answer.status_code == 422
            assert answer.json()["code"] == "webhook_refused"
            assert answer.headers["content-type"] == "application/problem+json"
        batch = client.post(
            "/v1/detections/batch",
            files=[("files", PICTURE), ("files", encode(photo(100, 100, 1)))],
            data={"webhook_url": f"{receiver.url}/hook"},
        )
        assert batch.status_code == 207
        for entry in batch.json()["results"]:
            final = wait_until_final(client, entry["detection"]["id"])
            assert arrival(receiver, final).event["detection"] == final


def test_delivery_cache_and_crash(service: Serve, receiver: Receiver) -> None:
    url = f"{receiver.url}/hook?key=hidden"
    first = submit(service, url, **{"X-Request-ID": "the-request"})
    told = arrival(receiver, first)
    assert told.event["detection"] == first
    assert verifies(SECRET, told.headers, told.body)
    assert "hook" not in json.dumps(first)  # the URL must not be disclosed

    def lines() -> list[dict]:
        found = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
        about = [line for line in found if line.get("detection_id") == first["id"]]
        return [line for line in about if line["event"] == "webhook"]

    wait_for(lines)
    assert lines()[0]["request_id"] == "the-request"
    assert "hidden" not in service.log

    again = submit(service, url)
    assert again["cached"]
    assert arrival(receiver, again).event["detection"] == again

    wait_for(lambda: delivered(service) == len(receiver.arrivals))
    assert value(service.metrics(), "gamma_webhook_queue_depth") == 0

    killed = service.child("webhooks")
    killed.kill()
    killed.wait()  # else the queue may hand a job to the dying process
    after = submit(service, url)  # the rest is not affected
    assert arrival(receiver, after).event["detection"] == after
    assert service.child("webhooks").is_running()

    processes = psutil.Process(service.process.pid).children(recursive=True)
    assert service.stop() == 0
    assert not psutil.wait_procs(processes, timeout=60)[1]
