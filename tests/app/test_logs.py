"""Log lines: one per event, with the same ids in all processes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from opentelemetry.trace import INVALID_SPAN, TraceFlags, get_current_span

from app.contract import tracing
from app.http.client_addresses import Shown, client_of
from tests.app.collector import Collector, Exported
from tests.app.receiver import Receiver, wait_for
from tests.app.replica import replicas
from tests.app.test_webhook_rules import SECRET
from tests.conftest import Serve, encode, photo

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE_ID}-{SPAN_ID}-01"
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SPANS = {"POST /v1/detections", "queue", "detection", "fetch", "decode", "forward", "webhook"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, small_model: Path, collector: Collector
) -> Iterator[Serve]:
    running = Serve(
        tmp_path_factory.mktemp("service") / "data",
        GAMMA_CHECKPOINT=str(small_model),
        GAMMA_LOG_FORMAT="json",
        GAMMA_WEBHOOK_SECRETS=SECRET,
        GAMMA_WEBHOOK_ALLOW="127.0.0.1",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="50",  # ms
    )
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that no other process can open."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def lines_of(service: Serve, detection_id: str) -> dict[str, dict]:
    """The log lines about a detection by their event, once the last one is written."""

    def found() -> dict[str, dict]:
        lines = [json.loads(line) for line in service.log.splitlines() if detection_id in line]
        return {line["event"]: line for line in lines}

    wait_for(lambda: {"request", "detection", "webhook"} <= set(found()))
    return found()


def test_log_lines_of_three_processes_name_the_exported_spans(
    service: Serve, receiver: Receiver, collector: Collector
) -> None:
    with service.client() as client:
        answer = client.post(
            "/v1/detections",
            files={"file": encode(photo(90, 90))},
            data={"webhook_url": f"{receiver.url}/hook"},
            headers={
                "Prefer": "wait=60",
                "X-Request-ID": "upload-17",
                "X-Forwarded-For": "203.0.113.77",
                "traceparent": GIVEN,
            },
        )
    lines = lines_of(service, answer.json()["id"])
    wait_for(lambda: set(collector.of_trace(TRACE_ID)) >= _SPANS)
    spans = collector.of_trace(TRACE_ID)
    for event, name, program in (
        ("request", "POST /v1/detections", "api"),
        ("detection", "detection", "worker"),
        ("webhook", "webhook", "webhooks"),
    ):
        assert lines[event]["request_id"] == "upload-17"
        assert (lines[event]["trace_id"], lines[event]["span_id"]) == (
            TRACE_ID,
            spans[name].span_id,
        )
        assert spans[name].service == f"gamma-{program}"
        assert lines[event]["host"] == socket.gethostname()
        assert lines[event]["version"] == version("gamma-detect")
    assert lines["request"]["client"] == "203.0.113.0"
    assert lines["detection"]["status"] == "succeeded"
    assert lines["detection"]["forward"] > 0
    assert lines["webhook"]["receiver"] == "127.0.0.1"
    check_tree(spans)
    (arrival,) = receiver.at("/hook")
    for header, name in (
        (answer.headers["traceresponse"], "POST /v1/detections"),
        (arrival.headers["traceparent"], "webhook"),
    ):
        assert header == f"00-{TRACE_ID}-{spans[name].span_id}-01"


def check_tree(spans: dict[str, Exported]) -> None:
    request, detection = spans["POST /v1/detections"], spans["detection"]
    assert request.parent_id == SPAN_ID
    for name in ("queue", "detection", "webhook"):
        assert spans[name].parent_id == request.span_id
    for name in ("fetch", "decode", "forward", "encode", "store"):
        assert spans[name].parent_id == detection.span_id
        assert detection.start < spans[name].start <= spans[name].end <= detection.end


def test_the_line_of_a_batch_names_its_span(service: Serve, collector: Collector) -> None:
    with service.client() as client:
        answer = client.post(
            "/v1/detections",
            files={"file": encode(photo(90, 90, 5))},
            headers={"Prefer": "wait=60"},
        )
    (trace_id,) = re.findall("^00-([0-9a-f]{32})", answer.headers["traceresponse"])
    wait_for(lambda: {"detection", "forward"} <= set(collector.of_trace(trace_id)))
    spans = collector.of_trace(trace_id)
    (batch_id,) = spans["forward"].links
    wait_for(lambda: any(span.span_id == batch_id for span in collector.spans))
    (batch,) = [span for span in collector.spans if span.span_id == batch_id]
    assert (batch.name, batch.links) == ("batch", [spans["detection"].span_id])
    lines = [json.loads(line) for line in service.log.splitlines() if '"batch"' in line]
    assert (batch.trace_id, batch_id) in [(line["trace_id"], line["span_id"]) for line in lines]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("traceparent", GIVEN.upper())],
        [("traceparent", "x" * 5000)],
        [("traceparent", GIVEN), ("traceparent", GIVEN)],
    ],
    ids=["none", "upper case", "long", "twice"],
)
def test_malformed_trace_is_replaced(service: Serve, headers: list[tuple[str, str]]) -> None:
    with service.client() as client:
        answer = client.get("/v1/model", headers=headers)
    found = _FORM.fullmatch(answer.headers["traceresponse"])
    assert found is not None
    assert found[1] != TRACE_ID
    assert int(found[3], 16) & TraceFlags.SAMPLED


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (GIVEN, 1),
        (f"00-{TRACE_ID}-{SPAN_ID}-ff", 3),  # unknown flags are not passed on
        (f"cc-{TRACE_ID}-{SPAN_ID}-00", 0),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-brings", 1),
        (f"ff-{TRACE_ID}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{SPAN_ID}-01-more", None),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01.more", None),
        (f"00-{'0' * 32}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{'0' * 16}-01", None),
        (f"00-{TRACE_ID}-{SPAN_ID}-1", None),
        (f"00-{TRACE_ID}-{SPAN_ID}-0\n", None),
        (f" {GIVEN}\n", 1),  # and passed on without spaces
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-{'x' * 500}", None),
        ("", None),
    ],
)
def test_traceparent_is_parsed_as_specified(given: str, flags: int | None) -> None:
    span = get_current_span(tracing.parse(given)).get_span_context()
    passed_on = {} if flags is None else {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-{flags:02x}"}
    assert tracing.headers(span) == passed_on


@pytest.mark.parametrize(
    "meta", [None, [], {}, {"request_id": 7}, {"request_id": "a\nb", "traceparent": [GIVEN]}]
)
def test_malformed_origins_in_redis_are_ignored(meta: object) -> None:
    assert not tracing.context_of(meta)
    assert tracing.origin_of(meta, INVALID_SPAN) == {}


@pytest.mark.slow
@pytest.mark.parametrize("answers", [True, False])
def test_the_last_spans_are_sent_at_the_end_unless_the_collector_hangs(
    answers: bool, redis_url: str, tmp_path: Path
) -> None:
    """The requests before are answered, and the process ends at once, either way."""
    with Collector() as collector:
        if not answers:
            collector.holds.set()
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "3600000" if answers else "1",  # ms
        }
        with replicas(redis_url, tmp_path, 1, **environment) as (api,), api.client() as client:
            assert (
                client.get("/v1/events/unknown", headers={"traceparent": GIVEN}).status_code == 404
            )
            if answers:
                assert not collector.spans
            else:
                assert collector.asked.wait(60)
                for _ in range(20):
                    assert client.get("/v1/detections").status_code == 200
            api.process.terminate()
            api.process.wait(20)  # s; it would wait for 30 s
        assert [span.name for span in collector.spans] == (["GET unmatched"] if answers else [])


@pytest.mark.slow
def test_a_collector_that_is_down_costs_no_request(
    closed_port: int, redis_url: str, tmp_path: Path
) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{closed_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "1",  # ms
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",  # s
    }
    with replicas(redis_url, tmp_path, 1, **environment) as (api,), api.client() as client:
        for _ in range(20):
            assert client.get("/v1/detections").status_code == 200
        wait_for(lambda: "opentelemetry" in api.log())
    assert "Traceback" not in api.log()


def test_without_the_extra_the_message_names_it(redis_url: str) -> None:
    """A module that is None in `sys.modules` cannot be imported."""
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from app.command.cli import app\n"
        "app(['api'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "GAMMA_REDIS_URL": redis_url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        },
    )
    assert done.returncode == 1
    assert "pip install 'gamma-detect[otel]'" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("client", "shown", "found"),
    [
        ("203.0.113.77", "masked", "203.0.113.0"),
        ("203.0.113.77", "full", "203.0.113.77"),
        ("203.0.113.77", "off", None),
        ("2001:db8:1234:5678:9abc::1", "masked", "2001:db8:1234::"),
        ("::ffff:203.0.113.77", "masked", "203.0.113.0"),
        ("forged\nline", "full", None),
        (None, "full", None),
    ],
)
def test_addresses_of_clients_are_masked(client: str | None, shown: Shown, found: str) -> None:
    assert client_of({"client": None if client is None else (client, 1)}, shown) == found


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_control_characters_in_logs_are_escaped(log_format: str, tmp_path: Path) -> None:
    program = (
        "import logging, structlog\n"
        "from app.command import logs\n"
        "from app.contract.settings import Settings\n"
        f"logs.configure(Settings(log_format={log_format!r}))\n"
        "bad = 'a\\nforged\\r\\x1b[31m\\u2028\\ud800' + 'x' * 100_000\n"
        "structlog.get_logger().info('event', value=bad)\n"
        "logging.getLogger('library').warning(bad)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert len(done.stderr.splitlines()) == 2
    assert b"forged" in done.stderr
    assert b"\x1b[31m" not in done.stderr
    assert len(done.stderr) < 10_000


def test_a_process_shows_what_its_threads_do_and_goes_on() -> None:
    script = """
import os, signal, threading
from app.command import logs
from app.contract.settings import Settings
def hang(): threading.Event().wait()
threading.Thread(target=hang, daemon=True).start()
logs.configure(Settings())
os.kill(os.getpid(), signal.SIGUSR1)
print("goes on")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "goes on\n"
    assert " in hang" in done.stderr
