"""Spans of uploads, from the request to the webhook, with all programs in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

from app.command.embedded import private_redis
from app.command.spans import _FLUSH, SpanExportError, wanted
from app.contract import tracing
from app.contract.client import connect
from app.contract.settings import Settings
from app.http.api import create_app
from app.webhooks.delivery import Deliverer
from app.webhooks.queue import Deliveries
from app.webhooks.worker import DeliveryJob
from tests.app.receiver import Arrival, Receiver
from tests.app.test_webhook_rules import SECRET
from tests.conftest import encode, photo

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE_ID}-{SPAN_ID}-01"
SECRETS = ("the-key-of-alice-1", "hook-secret", "a-file-name")
KEYS = "alice=the-key-of-alice-1"
MEMORY = 2**28  # bytes


class Programs:
    """API, worker and webhooks in this process, whose spans are kept in memory."""

    def __init__(self, url: str, model: Path, receiver: Receiver) -> None:
        self.redis = connect(url)
        self.receiver = receiver
        self._settings = Settings(
            redis_url=url,
            api_keys=KEYS,
            cache=False,
            checkpoint=str(model),
            webhook_secrets=SECRET,
            webhook_allow="127.0.0.1",
            max_batch=8,
        )
        self._api = httpx2.ASGITransport(create_app(self._settings))

    def request(self, method: str, path: str, **options: object) -> httpx2.Response:
        async def call() -> httpx2.Response:
            headers = {"Authorization": "Bearer the-key-of-alice-1", **options.pop("headers", {})}
            async with httpx2.AsyncClient(
                transport=self._api, base_url="http://api", headers=headers
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(call())

    def upload(self, picture: bytes, **headers: str) -> httpx2.Response:
        return self.request(
            "POST",
            "/v1/detections",
            files={"file": ("a-file-name.png", picture)},
            data={"webhook_url": f"{self.receiver.url}/hook?key=hook-secret"},
            headers=headers,
        )

    def work(self) -> None:
        """Run a worker until the queue is empty."""
        from app.contract.store import Store
        from pictures.decoders import Decoders
        from worker.batch_worker import BatchWorker
        from worker.main import load_detector
        from worker.processing import Processor, describe

        detector = load_detector(self._settings)
        info = describe(detector, "in-process")
        with closing(Decoders(2, max_pixels=10**8)) as decoders:
            processor = Processor(detector, info, Store(self.redis), decoders)
            worker = BatchWorker("gamma", self.redis, processor, info, max_batch=8, window=0.5)
            worker._install_signal_handlers = lambda: None
            worker.work(burst=True, logging_level="WARNING")

    def deliver(self) -> None:
        queue = Deliveries(self.redis, self._settings).queue
        deliverer = Deliverer.of(self._settings, self.redis, 1)
        for name in queue.job_ids:
            job = DeliveryJob.fetch(name, self.redis, queue.serializer)
            deliverer.run(job)


@dataclass
class Story:
    """What happened to two uploads and an invalid one, and the spans of it."""

    answers: list[httpx2.Response]
    arrivals: list[Arrival]
    spans: list[ReadableSpan]

    def named(self, name: str, trace_id: str = TRACE_ID) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name and trace_of(span) == trace_id]
        return found


def trace_of(span: ReadableSpan) -> str:
    return format_trace_id(span.context.trace_id)


def id_of(span: ReadableSpan) -> str:
    return format_span_id(span.context.span_id)


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else format_span_id(span.parent.span_id)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Programs]:
    with (
        private_redis(tmp_path_factory.mktemp("redis"), MEMORY) as (url, _),
        Receiver() as receiver,
    ):
        yield Programs(url, small_model, receiver)


def recording(sampler: Sampler = ALWAYS_ON) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    return exporter


@pytest.fixture(autouse=True)
def off_afterwards() -> Iterator[None]:
    yield
    tracing.use(None)


@pytest.fixture(scope="module")
def story(programs: Programs) -> Story:
    exporter = recording()
    first = encode(photo(90, 90, 1), "PNG")
    answers = [
        programs.upload(first, traceparent=GIVEN, **{"X-Request-ID": "upload-17"}),
        programs.upload(encode(photo(90, 90, 2), "PNG")),
        programs.upload(encode(photo(90, 90, 3), "PNG")[:-100]),
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert programs.request("GET", "/v1/model?key=hook-secret").status_code == 400
    programs.work()
    programs.deliver()
    return Story(
        answers, programs.receiver.at("/hook?key=hook-secret"), list(exporter.get_finished_spans())
    )


def test_the_spans_of_an_upload_form_a_tree(story: Story) -> None:
    request = story.named("POST /v1/detections")
    assert parent_of(request) == SPAN_ID
    assert request.kind is SpanKind.SERVER
    children = {name: story.named(name) for name in ("queue", "detection", "webhook")}
    assert {parent_of(span) for span in children.values()} == {id_of(request)}
    stages = [span for span in story.spans if parent_of(span) == id_of(children["detection"])]
    assert [span.name for span in sorted(stages, key=lambda span: span.start_time)] == [
        *("fetch", "fetch"),  # record, picture
        *("provenance", "decode", "watermark", "forward", "encode", "store"),
    ]
    family = [request, *children.values(), *stages]
    assert len(family) == sum(trace_of(span) == TRACE_ID for span in story.spans)
    queue, detection = children["queue"], children["detection"]
    assert request.start_time < queue.start_time < queue.end_time == detection.start_time
    for stage in stages:
        assert detection.start_time < stage.start_time < stage.end_time < detection.end_time


def test_a_batch_is_a_trace_that_is_linked_with_its_pictures(story: Story) -> None:
    batches = [span for span in story.spans if span.name == "batch"]
    detections = [span for span in story.spans if span.name == "detection"]
    linked = {link.context.span_id for batch in batches for link in batch.links}
    good = [span for span in detections if span.attributes["gamma.outcome"] == "succeeded"]
    assert linked == {span.context.span_id for span in good}
    for batch in batches:
        assert batch.parent is None
        assert batch.attributes["gamma.pictures"] == len(batch.links)
    for forward in (span for span in story.spans if span.name == "forward"):
        (link,) = forward.links
        assert link.context in [batch.context for batch in batches]


def test_attributes(story: Story) -> None:
    request, webhook = story.named("POST /v1/detections"), story.named("webhook")
    name = story.answers[0].json()["id"]
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/detections",
        "http.response.status_code": 202,
        "client.address": "127.0.0.0",
        "gamma.request_id": "upload-17",
        "gamma.caller": "alice",
        "gamma.detection_id": name,
    }
    assert webhook.attributes == {
        "server.address": "127.0.0.1",
        "http.response.status_code": 200,
        "gamma.detection_id": name,
        "gamma.delivery_id": f"msg_{name}",
        "gamma.attempt": 1,
        "gamma.outcome": "delivered",
    }


def test_the_receiver_gets_the_span_of_the_delivery(story: Story) -> None:
    (arrival,) = [a for a in story.arrivals if TRACE_ID in a.headers["traceparent"]]
    assert arrival.headers["traceparent"] == f"00-{TRACE_ID}-{id_of(story.named('webhook'))}-01"


def test_the_answer_names_the_span_of_the_request(story: Story) -> None:
    request = story.named("POST /v1/detections")
    assert story.answers[0].headers["traceresponse"] == f"00-{TRACE_ID}-{id_of(request)}-01"


def test_an_invalid_picture_fails_in_its_stage(story: Story) -> None:
    trace_id = story.answers[2].headers["traceresponse"].split("-")[1]
    assert story.named("detection", trace_id).attributes["gamma.outcome"] == "failed"
    decode = story.named("decode", trace_id)
    assert not decode.status.is_ok
    assert decode.attributes["error.type"].endswith("Error")


def test_spans_contain_no_secrets_and_no_texts_of_errors(story: Story) -> None:
    text = "".join(span.to_json() for span in story.spans)
    assert "alice" in text
    for secret in SECRETS:
        assert secret not in text
    assert not any(span.events or span.status.description for span in story.spans)


def test_a_refused_request_has_its_code_and_is_no_failure(programs: Programs) -> None:
    exporter = recording()
    answer = programs.request("GET", "/v1/detections/unknown", headers={"Authorization": "x"})
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /v1/detections/{detection_id}"
    assert span.attributes["http.response.status_code"] == answer.status_code == 401
    assert span.attributes["gamma.code"] == "key_missing"
    assert span.status.is_unset


def test_probes_and_unsampled_requests_have_no_spans(programs: Programs) -> None:
    exporter = recording(ParentBased(ALWAYS_OFF))
    programs.request("GET", "/v1/model")
    unsampled = programs.request("GET", "/v1/model", headers={"traceparent": GIVEN[:-1] + "0"})
    assert unsampled.headers["traceresponse"].startswith(f"00-{TRACE_ID}-")
    assert unsampled.headers["traceresponse"].endswith("-00")
    programs.request("GET", "/livez", headers={"traceparent": GIVEN})
    assert not exporter.get_finished_spans()
    programs.request("GET", "/v1/model", headers={"traceparent": GIVEN})
    assert len(exporter.get_finished_spans()) == 1


def test_without_an_exporter_the_trace_of_the_caller_is_passed_on(programs: Programs) -> None:
    programs.redis.flushall()
    answer = programs.upload(encode(photo(90, 90, 4), "PNG"), traceparent=GIVEN)
    assert answer.headers["traceresponse"] == GIVEN
    assert "traceresponse" not in programs.upload(encode(photo(90, 90, 5), "PNG")).headers
    programs.receiver.arrivals.clear()
    programs.work()
    programs.deliver()
    sent = [arrival.headers.get("traceparent") for arrival in programs.receiver.arrivals]
    assert sorted(sent, key=str) == [GIVEN, None]


def test_a_batch_that_fails_is_marked_without_its_text() -> None:
    from worker import spans

    exporter = recording()
    spans.begin("one", {"traceparent": GIVEN}, time.time())
    with pytest.raises(ValueError, match="hook-secret"), spans.batch(["one"]):
        raise ValueError("hook-secret")
    spans.end("one", "failed", ValueError("hook-secret"))
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert found.keys() == {"batch", "forward", "detection"}
    for span in found.values():
        assert span.attributes["error.type"] == "ValueError"
        assert "hook-secret" not in span.to_json()


def test_a_picture_that_is_put_back_has_a_span_for_each_time() -> None:
    from worker import spans

    exporter = recording()
    for outcome in ("put_back", "succeeded"):
        origin = spans.begin("one", {"traceparent": GIVEN, "request_id": "r"}, time.time())
        spans.end("one", outcome)
        spans.end("one", "ignored")
        span = exporter.get_finished_spans()[-1]
        assert span.attributes["gamma.outcome"] == outcome
        assert origin == {"request_id": "r", "trace_id": TRACE_ID, "span_id": id_of(span)}
    assert len(exporter.get_finished_spans()) == 2


def test_a_worker_sends_its_last_spans_within_its_stop_timeout() -> None:
    from worker.batch_worker import _ENDING

    assert _FLUSH < _ENDING


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_standard_variables_turn_export_on(environment: dict[str, str], found: bool) -> None:
    assert wanted(environment) is found


@pytest.mark.parametrize(
    "changes",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
    ],
)
def test_other_exporters_are_refused(changes: dict[str, str]) -> None:
    (name,) = changes
    with pytest.raises(SpanExportError, match=f"{name} must be"):
        wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", **changes})
