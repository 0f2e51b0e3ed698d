"""Webhooks with real Redis, delivery workers and receivers."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from gamma_client import WebhookError, verify_webhook
from PIL import Image
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.jobs import JobQueue
from app.contract.keys import ANONYMOUS
from app.contract.recorder import CommandRecorder
from app.contract.schemas import DetectionError, ErrorCode, Status
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Submission
from app.http.problems import ServiceError
from app.http.service import Service
from app.http.waiting import FinishedEvents
from app.webhooks.queue import DELIVERY_FUNCTION, Deliveries
from pictures.findings import View
from tests.app.receiver import Arrival, Receiver, wait_for
from tests.app.test_webhook_rules import SECRET
from tests.conftest import encode, free_port, value
from tests.forks import Forked, Light, without_settings

pytestmark = pytest.mark.slow  # processes of their own, which are killed

OLD_SECRET = "whsec_" + 43 * "A" + "="
PICTURE = encode(Image.new("RGB", (32, 32), (10, 200, 30)), "PNG")
THREADS = 8  # of a delivery worker


class Stack:
    """A Redis, the API's code, delivery workers and a receiver."""

    def __init__(self, url: str, folder: Path, receiver: Receiver) -> None:
        self.url = url
        self.receiver = receiver
        self.redis = connect(url)
        self.store = Store(self.redis)
        self.log = folder / "webhooks.log"
        self.metrics_port = free_port()
        self.workers: list[Forked | subprocess.Popen[bytes]] = []
        self.settings = self.with_settings()

    def with_settings(self, **changes: object) -> Settings:
        return Settings(
            redis_url=self.url,
            webhook_secrets=f"{SECRET},{OLD_SECRET}",
            webhook_allow="127.0.0.0/8",
            **changes,
        )

    def submit(self, path: str, owner: str = ANONYMOUS, **changes: object) -> str:
        """Create a detection with a webhook to `path` of the receiver; returns its id."""
        settings = self.with_settings(cache=False, **changes)
        service = Service(
            settings,
            self.store,
            JobQueue(self.redis, settings),
            FinishedEvents(self.url),
            Deliveries(self.redis, settings),
        )
        order = Submission(owner, PICTURE, View.CENTER, webhook_url=self.receiver.url + path)
        return service.submit(order).id

    def finish(self, name: str) -> int:
        """Finish a detection as a worker does."""
        (detection,) = self.store.start([name]).values()
        final = detection.model_copy(
            update={"status": Status.SUCCEEDED, "finished_at": datetime.now(UTC)}
        )
        with self.redis.pipeline() as pipeline:
            self.store.finish(pipeline, final)
            (changed,) = pipeline.execute()
        return int(changed)

    def done(self, path: str, **changes: object) -> str:
        name = self.submit(path, **changes)
        assert self.finish(name) == 1
        return name

    def start(self, **environment: str) -> Forked:
        """Start a delivery worker."""
        own = {
            "GAMMA_REDIS_URL": self.url,
            "GAMMA_WEBHOOK_SECRETS": f"{SECRET},{OLD_SECRET}",
            "GAMMA_WEBHOOK_ALLOW": "127.0.0.0/8",
            "GAMMA_WEBHOOK_TIMEOUT": "8",
            "GAMMA_WEBHOOK_RETRIES": "1,1",
            "GAMMA_WEBHOOK_THREADS": str(THREADS),
            "GAMMA_METRICS_PORT": str(self.metrics_port),
            "GAMMA_LOG_FORMAT": "json",
        }
        complete = {**without_settings(), **own, **environment}
        self.log.touch()
        worker = Forked(["webhooks"], complete, self.log, self.log, kind=Light)
        self.workers.append(worker)
        return worker

    def job(self, name: str) -> Job:
        return Job.fetch(f"msg_{name}", self.redis, JSONSerializer)

    def arrivals(self, name: str) -> list[Arrival]:
        return [a for a in self.receiver.arrivals if a.event.get("detection", {}).get("id") == name]

    def lines(self, name: str) -> list[dict]:
        """Log lines of the attempts for a detection."""
        lines = [json.loads(x) for x in self.log.read_text().splitlines() if x.startswith("{")]
        return [x for x in lines if x["event"] == "webhook" and x["detection_id"] == name]

    def outcomes(self, name: str) -> list[str]:
        return [line["outcome"] for line in self.lines(name)]

    def wait_for_outcomes(self, name: str, *outcomes: str) -> None:
        wait_for(lambda: len(self.outcomes(name)) >= len(outcomes))
        assert self.outcomes(name) == list(outcomes)

    def wait_for_status(self, name: str, status: JobStatus) -> None:
        wait_for(lambda: self.job(name).get_status() == status)

    def metric(self, name: str) -> float:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        return value(httpx2.get(url, timeout=60).text, name)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.redis.close()


@contextlib.contextmanager
def running(folder: Path, **environment: str) -> Iterator[Stack]:
    """A stack with one delivery worker."""
    with private_redis(folder / "redis", 2**26) as (url, _), Receiver() as receiver:
        stack = Stack(url, folder, receiver)
        stack.start(**environment)
        wait_for(lambda: "webhooks_ready" in stack.log.read_text())
        yield stack
        stack.close()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis"), 2**26) as (url, _):
        yield url


@pytest.fixture
def empty(redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack without a delivery worker."""
    with Receiver() as receiver:
        stack = Stack(redis_url, tmp_path, receiver)
        stack.redis.flushall()
        yield stack
        stack.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with one delivery worker, shared by tests that do not affect each other."""
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def verifies(secret: str, headers: dict[str, str], body: bytes, **options: float) -> bool:
    """Whether the Python client takes the message for genuine."""
    try:
        verify_webhook(headers, body, secret, **options)
    except WebhookError:
        return False
    return True


def test_delivery_verifies_with_the_client(stack: Stack) -> None:
    before = stack.metric('gamma_webhook_deliveries_total{outcome="delivered"}')
    name = stack.done("/hook?key=hidden")
    stack.wait_for_outcomes(name, "delivered")
    (arrival,) = stack.arrivals(name)
    assert arrival.path == "/hook?key=hidden"
    assert arrival.event == {
        "event": "detection.finished",
        "id": arrival.headers["webhook-id"],
        "created_at": arrival.event["detection"]["finished_at"],
        "detection": json.loads(stack.store.get(name).model_dump_json()),
    }
    assert arrival.event["detection"]["status"] == "succeeded"
    assert "webhook" not in arrival.event["detection"]

    sent, body = arrival.headers, arrival.body
    for secret in (SECRET, OLD_SECRET):
        assert verifies(secret, sent, body)
        assert not verifies(secret, sent, body + b" ")
        assert not verifies(secret, {**sent, "webhook-id": "msg_other"}, body)
        later = str(int(sent["webhook-timestamp"]) + 1)
        assert not verifies(secret, {**sent, "webhook-timestamp": later}, body)
        assert not verifies(secret, {**sent, "webhook-signature": "v1,"}, body)
        assert not verifies(secret, sent, body, tolerance=-1)
    assert not verifies("whsec_" + 43 * "B" + "=", sent, body)

    assert stack.metric('gamma_webhook_deliveries_total{outcome="delivered"}') == before + 1
    assert stack.metric("gamma_webhook_delivery_seconds_count") >= before + 1
    (line,) = stack.lines(name)
    assert (line["receiver"], line["tries"], line["reason"]) == ("127.0.0.1", 1, "HTTP 200")
    assert "hidden" not in stack.log.read_text()
    assert "MfKQ9r8" not in stack.log.read_text()


def test_failed_delivery_is_retried(stack: Stack) -> None:
    stack.receiver.answers["/twice"] = [503, 500, 204]
    name = stack.done("/twice")
    stack.wait_for_outcomes(name, "retried", "retried", "delivered")
    arrivals = stack.arrivals(name)
    assert len({a.headers["webhook-id"] for a in arrivals}) == 1
    assert len({a.body for a in arrivals}) == 1
    times = [int(a.headers["webhook-timestamp"]) for a in arrivals]
    assert times == sorted(set(times))  # a second or more apart, each signed again
    stack.wait_for_status(name, JobStatus.FINISHED)


def test_failed_job_can_be_requeued(stack: Stack) -> None:
    stack.receiver.answers["/broken"] = [500]
    name = stack.done("/broken")
    stack.wait_for_outcomes(name, "retried", "retried", "failed")
    stack.wait_for_status(name, JobStatus.FAILED)
    failed = FailedJobRegistry(
        f"{stack.settings.queue}-webhooks", stack.redis, serializer=JSONSerializer
    )
    assert f"msg_{name}" in failed.get_job_ids(cleanup=False)
    stack.receiver.answers["/broken"] = [200]
    failed.requeue(f"msg_{name}")
    stack.wait_for_outcomes(name, "retried", "retried", "failed", "delivered")
    assert "request_id" not in stack.job(name).meta  # it was not made by a request
    assert "Traceback" not in stack.log.read_text()


def test_slow_receiver_times_out_and_delays_no_others(stack: Stack) -> None:
    release = stack.receiver.hold("/slow")
    slow = stack.done("/slow")
    wait_for(lambda: stack.arrivals(slow))
    quick = stack.done("/quick")
    stack.wait_for_outcomes(quick, "delivered")
    wait_for(lambda: stack.outcomes(slow))
    assert stack.lines(slow)[0]["reason"] == "no answer within 8 s"
    release.set()
    stack.wait_for_outcomes(slow, "retried", "delivered")


def test_many_deliveries_to_a_slow_receiver_delay_no_others(stack: Stack, monkeypatch) -> None:
    with Receiver("127.0.0.3") as tarpit, Receiver("127.0.0.2") as other:
        tarpit.hold("/tarpit")
        monkeypatch.setattr(stack, "receiver", tarpit)
        slow = [stack.done("/tarpit") for _ in range(3 * THREADS)]
        monkeypatch.setattr(stack, "receiver", other)
        quick = stack.done("/quick")
        stack.wait_for_outcomes(quick, "delivered")
        assert len(tarpit.arrivals) < len(slow), "it was not their turn"


def test_a_stock_worker_delivers_too(empty: Stack) -> None:
    name = empty.done("/stock")
    empty.receiver.answers["/stock"] = [500, 200]
    settings = {
        "GAMMA_WEBHOOK_SECRETS": SECRET,
        "GAMMA_WEBHOOK_ALLOW": "127.0.0.0/8",
        "GAMMA_WEBHOOK_RETRIES": "1,1",
    }
    command = ["-m", "rq.cli", "worker", "--url", empty.url, "--with-scheduler"]
    command += ["--serializer", "rq.serializers.JSONSerializer", "gamma-webhooks"]
    with empty.log.open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, *command],
            env={**without_settings(), **settings},
            stdout=log,
            stderr=log,
        )
    empty.workers.append(worker)
    wait_for(lambda: len(empty.arrivals(name)) == 2)
    empty.wait_for_status(name, JobStatus.FINISHED)
    assert empty.job(name).return_value() == "delivered"
    worker.terminate()
    assert worker.wait(60) == 0


def test_redirect_to_an_internal_address_is_not_followed(stack: Stack) -> None:
    stack.receiver.answers["/moved"] = [f"{stack.receiver.url}/inner"]
    name = stack.done("/moved")
    stack.wait_for_outcomes(name, "retried", "retried", "failed")
    assert [a.path for a in stack.arrivals(name)] == ["/moved"] * 3


def test_status_410_is_not_retried(stack: Stack) -> None:
    stack.receiver.answers["/gone"] = [410]
    name = stack.done("/gone")
    stack.wait_for_outcomes(name, "failed")
    stack.wait_for_status(name, JobStatus.FAILED)
    assert len(stack.arrivals(name)) == 1


def test_rules_of_the_delivery_worker_apply(stack: Stack, monkeypatch) -> None:
    """It may have been restarted with other rules since the upload."""
    monkeypatch.setattr(stack.receiver, "url", "http://localhost.localdomain/")
    monkeypatch.setattr(Deliveries, "check", lambda _, url: url)
    name = stack.done("")
    stack.wait_for_outcomes(name, "refused")
    stack.wait_for_status(name, JobStatus.FAILED)


def test_failed_detection_is_delivered(stack: Stack) -> None:
    name = stack.submit("/hook")
    error = DetectionError(code=ErrorCode.IMAGE_TRUNCATED, detail="why")
    assert stack.store.fail(name, error)
    stack.wait_for_outcomes(name, "delivered")
    detection = stack.arrivals(name)[0].event["detection"]
    assert (detection["status"], detection["error"]["code"]) == ("failed", "image_truncated")


def test_queue_timeout_is_delivered(stack: Stack) -> None:
    name = stack.submit("/hook", queue_ttl=1)
    stack.wait_for_outcomes(name, "delivered")
    detection = stack.arrivals(name)[0].event["detection"]
    assert (detection["status"], detection["error"]["code"]) == ("expired", "queue_timeout")


def test_detection_started_in_time_is_delivered_when_it_ends(stack: Stack) -> None:
    name = stack.submit("/hook", queue_ttl=1)
    assert stack.store.start([name])
    wait_for(
        lambda: stack.job(name).number_of_retries == 1
    )  # was due, but the detection is not finished
    stack.wait_for_status(name, JobStatus.SCHEDULED)
    assert not stack.arrivals(name)
    assert stack.finish(name) == 1
    stack.wait_for_outcomes(name, "delivered")
    assert stack.arrivals(name)[0].event["detection"]["status"] == "succeeded"


def test_webhook_without_secret_is_refused(empty: Stack) -> None:
    settings = Settings(redis_url=empty.url)
    service = Service(
        settings, empty.store, JobQueue(empty.redis, settings), FinishedEvents(empty.url)
    )
    with pytest.raises(ServiceError, match="GAMMA_WEBHOOK_SECRETS") as refusal:
        service.webhook_url("https://hooks.example.com/", ANONYMOUS)
    assert refusal.value.code is ErrorCode.WEBHOOK_REFUSED


def test_delivery_is_queued_once_with_the_record(empty: Stack) -> None:
    name = empty.submit("/hook")
    waiting = Deliveries(empty.redis, empty.settings).queue
    assert waiting.job_ids == []
    assert empty.job(name).get_status() == JobStatus.SCHEDULED
    assert empty.finish(name) == 1
    assert waiting.job_ids == [f"msg_{name}"]
    final = empty.store.get(name)
    with empty.redis.pipeline() as pipeline:
        empty.store.finish(pipeline, final)  # repeated, as after a lost reply
        assert pipeline.execute() == [0]
    assert waiting.job_ids == [f"msg_{name}"]
    assert waiting.scheduled_job_registry.get_job_ids() == []
    assert empty.job(name).get_status() == JobStatus.QUEUED
    assert empty.job(name).enqueued_at is not None
    assert empty.redis.ttl(f"rq:job:msg_{name}") > 0  # expires


def test_deleted_detection_is_not_delivered(empty: Stack) -> None:
    deleted, kept = empty.done("/hook"), empty.done("/hook")
    assert empty.store.delete(deleted, ANONYMOUS, CommandRecorder(empty.redis))
    empty.start()
    empty.wait_for_outcomes(kept, "delivered")
    empty.wait_for_status(deleted, JobStatus.FINISHED)
    assert empty.job(deleted).return_value() == "deleted"
    assert not empty.arrivals(deleted)


def test_delivery_survives_a_killed_worker(empty: Stack) -> None:
    release = empty.receiver.hold("/held")
    first = empty.start(GAMMA_WEBHOOK_TIMEOUT="60")
    name = empty.done("/held")
    wait_for(lambda: empty.arrivals(name))
    first.kill()
    first.wait()
    release.set()
    # RQ considers a job abandoned after some minutes.
    running = f"rq:wip:{empty.settings.queue}-webhooks"
    (execution,) = empty.redis.zrange(running, 0, -1)
    empty.redis.zadd(running, {execution: 1})
    empty.redis.delete("rq:scheduler-lock:gamma-webhooks")
    assert empty.redis.keys("rq:scheduler-lock:*") == []
    empty.start()  # the port is free: no process of the first one is left
    wait_for(lambda: empty.redis.zscore("rq:scheduled:gamma-webhooks", f"msg_{name}"))
    empty.redis.zadd("rq:scheduled:gamma-webhooks", {f"msg_{name}": 1})
    empty.wait_for_outcomes(name, "delivered")
    assert {a.headers["webhook-id"] for a in empty.arrivals(name)} == {f"msg_{name}"}
    assert len(empty.arrivals(name)) == 2


def test_sigterm_finishes_running_deliveries(empty: Stack) -> None:
    release = empty.receiver.hold("/held")
    worker = empty.start(GAMMA_WEBHOOK_TIMEOUT="60")
    name = empty.done("/held")
    wait_for(lambda: empty.arrivals(name))
    worker.send_signal(signal.SIGTERM)
    # A delivery that it takes at this moment is delivered after more than a minute, by maintenance.
    wait_for(lambda: not any("b" in client["flags"] for client in empty.redis.client_list()))
    later = empty.done("/hook")
    release.set()
    assert worker.wait(60) == 0
    assert empty.outcomes(name) == ["delivered"]
    assert empty.job(name).get_status() == JobStatus.FINISHED
    assert empty.redis.keys("rq:scheduler-lock:*") == []
    assert empty.outcomes(later) in ([], ["delivered"])
    empty.start()
    empty.wait_for_outcomes(later, "delivered")


def test_other_functions_are_never_run(empty: Stack, tmp_path: Path) -> None:
    queue = Deliveries(empty.redis, empty.settings).queue
    target = tmp_path / "made by a payload"
    queue.enqueue_call("os.mkdir", args=(str(target),), job_id="msg_a")
    queue.enqueue_call(DELIVERY_FUNCTION, args=("b", "c"), job_id="msg_b")
    queue.enqueue_call(DELIVERY_FUNCTION, args=("c",), job_id="other_c")
    empty.start()
    wait_for(lambda: FailedJobRegistry(queue=queue).get_job_count(cleanup=False) == 3)
    assert not target.exists()


def test_survives_a_redis_outage(tmp_path: Path) -> None:
    with contextlib.ExitStack() as contexts:
        receiver = contexts.enter_context(Receiver())
        with private_redis(tmp_path / "redis", 2**26) as (url, _):
            stack = contexts.enter_context(contextlib.closing(Stack(url, tmp_path, receiver)))
            worker = stack.start()
            stack.receiver.answers["/again"] = [500, 200]
            before = stack.done("/again")
            wait_for(lambda: stack.outcomes(before))
            stack.wait_for_status(before, JobStatus.SCHEDULED)
        with private_redis(tmp_path / "redis", 2**26):
            stack.wait_for_outcomes(before, "retried", "delivered")
            after = stack.done("/hook")
            stack.wait_for_outcomes(after, "delivered")
            worker.terminate()
            assert worker.wait(60) == 0


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"GAMMA_WEBHOOK_SECRETS": ""}, "GAMMA_WEBHOOK_SECRETS"),
        ({"GAMMA_REDIS_URL": ""}, "GAMMA_REDIS_URL"),
    ],
)
def test_missing_settings_print_one_line(
    empty: Stack, environment: dict[str, str], named: str
) -> None:
    assert empty.start(**environment).wait(60) == 1
    assert named in empty.log.read_text()
    assert "Traceback" not in empty.log.read_text()
