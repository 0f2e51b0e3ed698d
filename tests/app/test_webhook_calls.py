"""The calls of `/v1/webhooks` with a real Redis, delivery worker and receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from rq.job import JobStatus

from app.http.api import create_app
from tests.app.receiver import wait_for
from tests.app.test_webhook_rules import SECRET
from tests.app.test_webhooks import PICTURE, Stack, running, verifies

SECRETS = {name: f"the-secret-key-of-{name}" for name in ("alice", "bob")}
KEYS = ",".join(f"{name}={secret}" for name, secret in SECRETS.items())


class Api:
    """The API's code, without a server."""

    def __init__(self, stack: Stack, **changes: object) -> None:
        settings = stack.with_settings(api_keys=KEYS, **changes)
        self._transport = httpx2.ASGITransport(create_app(settings))

    def call(
        self, method: str, path: str, caller: str = "alice", status: int = 200, **options: Any
    ) -> dict:
        async def call() -> httpx2.Response:
            async with httpx2.AsyncClient(
                transport=self._transport,
                base_url="http://api",
                headers={"Authorization": f"Bearer {SECRETS[caller]}"},
            ) as client:
                return await client.request(method, path, **options)

        answer = asyncio.run(call())
        assert answer.status_code == status, answer.text
        return answer.json()

    def attempts(self, name: str, caller: str = "alice") -> list[dict]:
        found = self.call("GET", "/v1/webhooks/attempts", caller, params={"detection_id": name})
        return found["attempts"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack"), GAMMA_API_KEYS=KEYS) as stack:
        yield stack


@pytest.fixture
def api(stack: Stack) -> Api:
    return Api(stack)


def test_attempts_are_logged_for_the_caller(stack: Stack, api: Api) -> None:
    stack.receiver.answers["/hook?key=hidden"] = [503, 204]
    name = stack.done("/hook?key=hidden", owner="alice", api_keys=KEYS)
    stack.wait_for_outcomes(name, "retried", "delivered")
    newest, oldest = api.attempts(name)
    assert (newest["outcome"], newest["status"], newest["number"]) == ("delivered", 204, 2)
    assert (oldest["outcome"], oldest["status"], oldest["number"]) == ("retried", 503, 1)
    assert newest["id"] == f"msg_{name}"
    assert newest["host"] == "127.0.0.1"
    assert "hidden" not in str(api.call("GET", "/v1/webhooks/attempts"))
    assert api.attempts(name, "bob") == []


def test_failed_message_is_sent_again(stack: Stack, api: Api) -> None:
    stack.receiver.answers["/down"] = [500]
    failed = stack.done("/down", owner="alice", api_keys=KEYS)
    stack.wait_for_outcomes(failed, "retried", "retried", "failed")
    stack.wait_for_status(failed, JobStatus.FAILED)
    delivered = stack.done("/up", owner="alice", api_keys=KEYS)
    stack.wait_for_status(delivered, JobStatus.FINISHED)
    unfinished, foreign = (
        stack.submit("/up", owner="alice", api_keys=KEYS),
        stack.done("/up", owner="bob", api_keys=KEYS),
    )
    stack.receiver.answers["/down"] = [500, 200]
    answer = api.call(
        "POST", "/v1/webhooks/replay", json={"ids": [failed, delivered, unfinished, foreign, "x"]}
    )
    assert answer["replayed"] == [failed, delivered]
    assert answer["skipped"] == {
        unfinished: "unfinished",
        foreign: "not_found",
        "x": "not_found",
    }
    wait_for(lambda: len(stack.outcomes(failed)) >= 5)
    assert stack.outcomes(failed)[3:] == ["retried", "delivered"]
    wait_for(lambda: len(stack.arrivals(delivered)) == 2)
    assert len({arrival.headers["webhook-id"] for arrival in stack.arrivals(delivered)}) == 1


def test_message_under_way_is_not_sent_twice(stack: Stack, api: Api) -> None:
    release = stack.receiver.hold("/busy")
    name = stack.done("/busy", owner="alice", api_keys=KEYS)
    wait_for(lambda: stack.arrivals(name))
    answer = api.call("POST", "/v1/webhooks/replay", json={"ids": [name]})
    assert answer["skipped"] == {name: "under_way"}
    release.set()


def test_test_event(stack: Stack, api: Api) -> None:
    stack.receiver.answers["/tested"] = [500]
    body = {"url": f"{stack.receiver.url}/tested"}
    sent = api.call("POST", "/v1/webhooks/test", status=202, json=body)
    limited = api.call("POST", "/v1/webhooks/test", status=429, json=body)
    assert limited["code"] == "rate_limited"
    attempts = "/v1/webhooks/attempts"
    wait_for(lambda: sent["id"] in [one["id"] for one in api.call("GET", attempts)["attempts"]])
    (arrival,) = stack.receiver.at("/tested")
    assert arrival.event["event"] == "webhook.test"
    assert arrival.event["id"] == sent["id"]
    assert verifies(SECRET, arrival.headers, arrival.body)
    attempt = api.call("GET", "/v1/webhooks/attempts")["attempts"][0]
    assert (attempt["outcome"], attempt["status"]) == ("failed", 500)
    wait_for(lambda: stack.redis.hget(f"rq:job:{sent['id']}", "status") == b"finished")


def test_test_event_goes_to_allowed_targets_only(api: Api) -> None:
    refused = {"url": "https://10.0.0.1/"}
    answer = api.call("POST", "/v1/webhooks/test", "bob", status=422, json=refused)
    assert answer["code"] == "webhook_refused"
    assert api.call("POST", "/v1/webhooks/test", "bob", status=422, json={})["detail"] == (
        "You have no default URL."
    )


def test_default_url(stack: Stack) -> None:
    api = Api(stack, webhook_url=f"{stack.receiver.url}/default")
    record = api.call("POST", "/v1/detections", status=202, files={"file": PICTURE})
    assert stack.finish(record["id"]) == 1
    stack.wait_for_outcomes(record["id"], "delivered")
    assert [arrival.path for arrival in stack.arrivals(record["id"])] == ["/default"]
