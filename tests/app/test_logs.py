"""Log lines: one per event, with the same ids in all processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.contract.tracing import Trace, origin_of, trace_of
from tests.app.receiver import Receiver, wait_for
from tests.app.test_webhook_rules import SECRET
from tests.conftest import Serve, encode, photo

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE_ID}-{SPAN_ID}-01"
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Serve]:
    running = Serve(
        tmp_path_factory.mktemp("service") / "data",
        GAMMA_CHECKPOINT=str(small_model),
        GAMMA_LOG_FORMAT="json",
        GAMMA_WEBHOOK_SECRETS=SECRET,
        GAMMA_WEBHOOK_ALLOW="127.0.0.1",
    )
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


def lines_of(service: Serve, detection_id: str) -> dict[str, dict]:
    """The log lines about a detection by their event, once the last one is written."""

    def found() -> dict[str, dict]:
        lines = [json.loads(line) for line in service.log.splitlines() if detection_id in line]
        return {line["event"]: line for line in lines}

    wait_for(lambda: {"request", "detection", "webhook"} <= set(found()))
    return found()


def test_log_lines_of_three_processes_share_ids(service: Serve, receiver: Receiver) -> None:
    with service.client() as client:
        answer = client.post(
            "/v1/detections",
            files={"file": encode(photo(90, 90))},
            data={"webhook_url": f"{receiver.url}/hook"},
            headers={"Prefer": "wait=60", "X-Request-ID": "upload-17", "traceparent": GIVEN},
        )
    lines = lines_of(service, answer.json()["id"])
    for event in ("request", "detection", "webhook"):
        assert lines[event]["request_id"] == "upload-17"
        assert lines[event]["trace_id"] == TRACE_ID
    assert lines["detection"]["status"] == "succeeded"
    assert lines["detection"]["forward"] > 0
    (arrival,) = receiver.at("/hook")
    spans = {SPAN_ID}
    for header, line in (
        (answer.headers["traceresponse"], lines["request"]),
        (arrival.headers["traceparent"], lines["webhook"]),
    ):
        trace = Trace.parse(header)
        assert trace is not None
        assert (trace.trace_id, trace.span_id, trace.flags) == (TRACE_ID, line["span_id"], 1)
        spans.add(trace.span_id)
    assert len(spans) == 3  # each place in the trace has its own


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
        answer = client.get("/livez", headers=headers)
    found = _FORM.fullmatch(answer.headers["traceresponse"])
    assert found is not None
    assert found[1] != TRACE_ID
    assert found[3] == "00"


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
    found = Trace.parse(given)
    assert found == (None if flags is None else Trace(TRACE_ID, SPAN_ID, flags))
    if found is not None:
        assert found.header() == f"00-{TRACE_ID}-{SPAN_ID}-{flags:02x}"


@pytest.mark.parametrize(
    "meta", [None, [], {}, {"request_id": 7}, {"request_id": "a\nb", "traceparent": [GIVEN]}]
)
def test_malformed_origins_in_redis_are_ignored(meta: object) -> None:
    assert origin_of(meta) == {}
    assert trace_of(meta) is None


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
