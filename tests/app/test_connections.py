"""Limits of connections: trailers, pipelining, slow clients and their number."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from app.command.embedded import private_redis
from app.http.protocol import MAX_FIELDS, MAX_TARGET, MIN_RATE
from tests.app.replica import Replica, replicas
from tests.conftest import encode, photo

pytestmark = pytest.mark.slow

KEY = "a-key-for-connections"
PATIENCE = 2  # s
CONNECTIONS = 20
KEYS = [f"a-key-of-others-{number:02}" for number in range(CONNECTIONS)]
UPLOAD = b"POST /v1/detections HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
AUTHORIZED = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ALIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("connections")
    settings = {
        "GAMMA_API_KEYS": ",".join(
            [f"alice={KEY}", *(f"caller-{number}={key}" for number, key in enumerate(KEYS))]
        ),
        "GAMMA_REQUEST_TIMEOUT": str(PATIENCE),
        "GAMMA_MAX_CONNECTIONS": str(CONNECTIONS),
    }
    with (
        private_redis(folder / "redis", 2**28) as (url, _),
        replicas(url, folder, 1, **settings) as (one,),
    ):
        yield one


@contextlib.contextmanager
def connected(api: Replica) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as connection:
        yield connection


def answers(connection: socket.socket) -> list[tuple[int, dict[str, str], bytes]]:
    """All answers on a connection, until it ends; those to requests that have a length."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        start, *lines = head.decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        length = int(fields["content-length"])
        found.append((int(start.split()[1]), fields, received[:length]))
        received = received[length:]
    return found


def send_until_refused(connection: socket.socket, data: bytes, times: int) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(times):
            connection.sendall(data)


def peak_memory(api: Replica) -> int:
    """Most bytes that the process has held since the last call of `forget_peak`."""
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak(api: Replica) -> None:
    Path(f"/proc/{api.process.pid}/clear_refs").write_text("5")


# -- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flood",
    [b"x: " + b"y" * 65536 + b"\r\n", b"a:b\r\n" * 10_000, b"y" * 65536],
    ids=["long trailers", "many trailers", "one trailer"],
)
def test_trailers_cost_no_memory(api: Replica, flood: bytes) -> None:
    before = psutil.Process(api.process.pid).memory_info().rss
    forget_peak(api)
    with connected(api) as connection:
        connection.sendall(ALIVE + CHUNKED + b"0\r\n")
        send_until_refused(connection, flood, 50 * 2**20 // len(flood))
    assert peak_memory(api) - before < 20 * 2**20


def test_long_chunk_extension_is_refused(api: Replica) -> None:
    with connected(api) as connection:
        connection.sendall(UPLOAD + AUTHORIZED + FORM + CHUNKED + b"1;")
        send_until_refused(connection, b"x" * 65536, 100)
        ((status, _, body),) = answers(connection)
    assert status == 431
    assert json.loads(body)["code"] == "head_too_large"


def test_tiny_chunks_are_refused(api: Replica) -> None:
    with connected(api) as connection:
        connection.sendall(UPLOAD + AUTHORIZED + FORM + CHUNKED + b"1\r\nx\r\n" * 4000)
        ((status, _, _),) = answers(connection)
    assert status == 400


def test_trailers_are_not_header_fields(api: Replica) -> None:
    picture = encode(photo(16, 16), "PNG")
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + picture
    body += b"\r\n--b--\r\n"
    chunk = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    found = []
    for fields in (b"", b"Idempotency-Key: one\r\nPrefer: wait=1\r\n"):
        with connected(api) as connection:
            connection.sendall(UPLOAD + AUTHORIZED + FORM + b"Connection: close\r\n" + CHUNKED)
            connection.sendall(chunk + fields + b"\r\n")
            found += answers(connection)
    assert [status for status, _, _ in found] == [202, 202]
    assert not any("preference-applied" in fields for _, fields, _ in found)


def test_too_many_header_fields_are_refused(api: Replica) -> None:
    for number, status in ((MAX_FIELDS - 1, 200), (MAX_FIELDS + 1, 431)):
        with connected(api) as connection:
            connection.sendall(ALIVE + b"a: b\r\n" * (number - 1) + b"Connection: close\r\n\r\n")
            assert [answer[0] for answer in answers(connection)] == [status]


def test_long_path_with_query_is_refused(api: Replica) -> None:
    for length, status in ((MAX_TARGET, 404), (MAX_TARGET + 1, 431)):
        with connected(api) as connection:
            path = b"/" + b"a" * (length - 1)
            connection.sendall(b"GET " + path + b" HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert [answer[0] for answer in answers(connection)] == [status]


# -- pipelining -----------------------------------------------------------------------------------


def test_pipelined_requests_are_not_read(api: Replica) -> None:
    before = psutil.Process(api.process.pid).memory_info().rss
    forget_peak(api)
    with connected(api) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\n\r\n" + (ALIVE + b"\r\n") * 5_000)
        found = answers(connection)
    assert [status for status, _, _ in found] == [503], "only the first is answered"
    assert found[0][1]["connection"] == "close"
    assert peak_memory(api) - before < 10 * 2**20


def test_garbage_after_a_request_does_not_change_its_response(api: Replica) -> None:
    with connected(api) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\n\r\n\0\0\0")
        assert [status for status, _, _ in answers(connection)] == [503]


def test_sequential_requests_share_a_connection(api: Replica) -> None:
    client = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
    with contextlib.closing(client):
        client.connect()
        first = client.sock
        for method in ("GET", "HEAD", "GET", "HEAD", "HEAD", "GET"):
            client.request(method, "/static/index.js")
            client.getresponse().read()
            assert client.sock is first


def test_upgrade_is_ignored(api: Replica) -> None:
    wish = b"Connection: upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Key: x\r\n\r\n"
    for protocol in (b"websocket", b"h2c"):
        with connected(api) as connection:
            connection.sendall(ALIVE + wish % protocol)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


# -- refused and slow bodies ----------------------------------------------------------------------


@pytest.mark.parametrize("length", [b"Content-Length: 40000000\r\n\r\n", CHUNKED])
def test_response_does_not_wait_for_a_refused_body(api: Replica, length: bytes) -> None:
    """The client gets the response, and the connection is closed although it keeps sending."""
    with connected(api) as connection:
        connection.sendall(UPLOAD + FORM + length)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")
        started = time.monotonic()
        connection.settimeout(0.5)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < started + 60:
                with contextlib.suppress(TimeoutError):
                    connection.send(b"1\r\nx\r\n")
                time.sleep(0.1)
        assert time.monotonic() < started + 60


def test_client_reads_the_response_while_it_still_sends(api: Replica) -> None:
    with api.client() as client:
        for _ in range(10):
            answer = client.post("/v1/detections", files={"file": bytes(800_000)})
            assert answer.status_code == 401
            assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("share", "ends"), [(0.1, True), (12, False)])
def test_slow_body_is_aborted(api: Replica, share: float, ends: bool) -> None:
    head = UPLOAD + AUTHORIZED + FORM + b"Content-Length: 40000000\r\n\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    pause = 0.1  # s
    with connected(api) as connection:
        connection.sendall(head + part)
        connection.setblocking(False)
        deadline = time.monotonic() + (60 if ends else 4 * PATIENCE)
        ended = False
        while not ended and time.monotonic() < deadline:
            try:
                connection.send(bytes(int(share * MIN_RATE * pause)))
                ended = connection.recv(1000) == b""
            except BlockingIOError:
                time.sleep(pause)
            except ConnectionError:
                ended = True
    assert ended is ends


def test_slow_reader_is_disconnected(api: Replica) -> None:
    with connected(api) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(3):  # the second waits for the first; the third is one too many
            connection.sendall(b"GET /swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\n\r\n")
        process = psutil.Process(api.process.pid)
        ours = connection.getsockname()[1]
        deadline = time.monotonic() + 60
        while any(one.raddr and one.raddr.port == ours for one in process.net_connections()):
            assert time.monotonic() < deadline, "the connection is kept"
            time.sleep(0.1)


# -- number ---------------------------------------------------------------------------------------


def test_idle_connections_are_closed_for_new_ones(api: Replica) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3 * CONNECTIONS):
            connection = stack.enter_context(connected(api))
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: l")
        assert httpx2.get(f"{api.url}/livez", timeout=60).status_code == 200


def half_upload(key: str) -> bytes:
    authorized = f"Authorization: Bearer {key}\r\n".encode()
    return UPLOAD + authorized + FORM + b"Content-Length: 400000\r\n\r\n"


def test_one_caller_leaves_connections_to_others(api: Replica) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(api)) for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.sendall(half_upload(KEY))
        deadline = time.monotonic() + 60
        while len(refused := select.select(connections, [], [], 0.1)[0]) < CONNECTIONS // 2:
            assert time.monotonic() < deadline
        assert all(one.recv(65536).startswith(b"HTTP/1.1 503") for one in refused)
        with api.client(KEYS[0]) as client:
            answer = client.post("/v1/detections", files={"file": encode(photo(16, 16))})
        assert answer.status_code == 202


def test_connections_in_use_are_not_closed(api: Replica) -> None:
    with contextlib.ExitStack() as stack:
        for key in KEYS:
            stack.enter_context(connected(api)).sendall(half_upload(key))
        deadline = time.monotonic() + 60
        while (answer := httpx2.get(f"{api.url}/livez", timeout=60)).status_code != 503:
            assert time.monotonic() < deadline, "the heads were not read in time"
        assert answer.json()["code"] == "too_many_connections"
        assert answer.headers["retry-after"] == "1"
        assert httpx2.get(f"{api.url}/livez", timeout=60).status_code == 503
    assert api.log().count("connections_exhausted") == 1  # in a minute
    deadline = time.monotonic() + 60
    while httpx2.get(f"{api.url}/livez", timeout=60).status_code != 200:
        assert time.monotonic() < deadline
