"""What a stranger can do before it is known who calls: long heads, silence, nonsense, HEAD."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.embedded import private_redis
from app.protocol import MAX_HEAD
from tests.app.replica import Replica, assert_problem, replicas
from tests.conftest import encode, photo

KEY = "a-key-for-the-protocol"
PATIENCE = 2  # s


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("protocol")
    settings = {"GAMMA_API_KEYS": f"alice={KEY}", "GAMMA_REQUEST_TIMEOUT": str(PATIENCE)}
    with (
        private_redis(folder / "redis", 2**28) as (url, _),
        replicas(url, folder, 1, **settings) as (one,),
    ):
        yield one


def talk(api: Replica, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, and read until the connection ends."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as connection:
        try:
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionResetError:  # it was closed while we were still sending
            answer = b""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return int((status.split() or ["0", "0"])[1]), fields, body


@pytest.mark.parametrize(
    "line",
    [
        b"x: " + b"y" * MAX_HEAD,
        b"x: y\r\n" * (MAX_HEAD // 6 + 1),
        b"cookie: " + b"z" * MAX_HEAD,
    ],
)
def test_a_long_head_is_refused(api: Replica, line: bytes) -> None:
    status, fields, body = talk(api, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + line)
    assert status == 431
    assert fields["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["code"] == "head_too_large"
    assert problem["request_id"] == fields["x-request-id"]


def test_a_long_path_is_refused(api: Replica) -> None:
    status, _, _ = talk(api, b"GET /" + b"a" * MAX_HEAD)
    assert status == 431


def test_an_endless_head_takes_no_memory(api: Replica) -> None:
    process = psutil.Process(api.process.pid)
    before = process.memory_info().rss
    talk(api, b"GET /livez HTTP/1.1\r\n" + b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 2**20)
    assert process.memory_info().rss - before < 20 * 2**20


def test_a_head_within_the_limit_is_read_on_every_request_of_a_connection(api: Replica) -> None:
    with api.client() as client:
        for _ in range(3):
            answer = client.get("/livez", headers={"x": "y" * (MAX_HEAD - 1000)})
            assert answer.status_code == 200


def test_a_body_longer_than_any_head_is_read(api: Replica) -> None:
    picture = encode(photo(400, 400), "PNG")
    assert len(picture) > 2 * MAX_HEAD
    with api.client(KEY) as client:
        for _ in range(2):
            assert client.post("/v1/detections", files={"file": picture}).status_code == 202


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nHost: loc",
        b"POST /v1/detections HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n"
        b"Authorization: Bearer " + KEY.encode() + b"\r\n\r\n--b\r\n",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_who_falls_silent_is_left(api: Replica, request_: bytes) -> None:
    assert talk(api, request_)[2] == b""
    with api.client() as client:
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("nonsense", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"HELO mail\r\n\r\n"])
def test_what_is_not_http_gets_a_problem(api: Replica, nonsense: bytes) -> None:
    status, fields, body = talk(api, nonsense)
    assert status == 400
    assert json.loads(body)["code"] == "malformed_request"
    assert json.loads(body)["request_id"] == fields["x-request-id"]


def test_head_is_as_get_without_the_body(api: Replica) -> None:
    with api.client(KEY) as client:
        path = client.post("/v1/detections", files={"file": encode(photo(16, 16))}).headers[
            "location"
        ]
        for one in ("/", "/livez", "/docs", path, f"{path}/image", "/v1/detections"):
            head, get = client.head(one), client.get(one)
            assert head.status_code == get.status_code == 200
            assert head.content == b""
            assert head.headers["content-length"] == get.headers["content-length"]
        assert client.head("/v1/detections/none").status_code == 404
    with api.client() as stranger:
        assert stranger.head(path).status_code == 401
    assert 'gamma_http_requests_total{method="HEAD",route="/livez"' not in api.metrics()
    assert 'method="HEAD",route="/v1/detections/{detection_id}"' in api.metrics()


def test_a_path_that_is_almost_right_is_not_found(api: Replica) -> None:
    with api.client(KEY) as client:
        answer = client.get("/v1/detections/", headers={"Host": "evil.example"})
    assert_problem(answer, 404, "not_found")
    assert "location" not in answer.headers


# -- without keys ---------------------------------------------------------------------------------


def test_without_keys_only_this_machine_is_served(tmp_path: Path) -> None:
    with (
        private_redis(tmp_path / "redis", 2**28) as (url, _),
        replicas(url, tmp_path, 1) as (api,),
        api.client() as client,
    ):
        for host in ("evil.example", f"evil.example:{api.port}", "10.0.0.1", "127.0.0.1.a"):
            answer = client.get("/v1/detections", headers={"Host": host})
            assert_problem(answer, 403, "origin_refused")
        for host in ("localhost", f"127.0.0.1:{api.port}", "[::1]:8000", "127.0.0.9"):
            assert client.get("/v1/detections", headers={"Host": host}).status_code == 200
        for site, status in (("cross-site", 403), ("same-origin", 202), ("none", 202)):
            answer = client.post(
                "/v1/detections",
                files={"file": encode(photo(16, 16))},
                headers={"Sec-Fetch-Site": site},
            )
            assert answer.status_code == status


def test_whoever_wants_to_serve_anyone_may(tmp_path: Path) -> None:
    with (
        private_redis(tmp_path / "redis", 2**28) as (url, _),
        replicas(url, tmp_path, 1, GAMMA_ALLOW_ANONYMOUS="true") as (api,),
        api.client() as client,
    ):
        answer = client.get("/v1/detections", headers={"Host": "gamma.example"})
    assert answer.status_code == 200
