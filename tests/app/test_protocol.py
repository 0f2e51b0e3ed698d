"""Limits before authentication: long, slow and invalid requests; HEAD."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from app.command.embedded import private_redis
from app.http.protocol import MAX_HEAD
from tests.app.replica import Replica, assert_problem, replicas
from tests.app.test_webhook_rules import SECRET
from tests.conftest import encode, photo

KEY = "a-key-for-the-protocol"
PATIENCE = 2  # s


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("protocol")
    settings = {
        "GAMMA_API_KEYS": f"alice={KEY}",
        "GAMMA_REQUEST_TIMEOUT": str(PATIENCE),
        "GAMMA_WEBHOOK_SECRETS": SECRET,
    }
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
        except ConnectionError:  # it was closed while we were still sending
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
def test_silent_client_is_disconnected(api: Replica, request_: bytes) -> None:
    assert talk(api, request_)[2] == b""
    with api.client() as client:
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"HELO mail\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    ],
    ids=["TLS", "another protocol", "two Host fields"],
)
def test_invalid_http_gets_a_problem_document(api: Replica, nonsense: bytes) -> None:
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


def test_similar_path_is_not_found(api: Replica) -> None:
    with api.client(KEY) as client:
        answer = client.get("/v1/detections/", headers={"Host": "evil.example"})
    assert_problem(answer, 404, "not_found")
    assert "location" not in answer.headers


# -- damaged requests -----------------------------------------------------------------------------

SEED = int(os.environ.get("FUZZ_SEED", "1"))
REQUESTS = 400


def originals() -> list[bytes]:
    """Sound requests of every kind."""
    parts = (
        ("ref_id", b"a reference"),
        ("view", b"tiled"),
        ("webhook_url", b"https://hooks.example.com/"),
    )
    fields = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + text + b"\r\n"
        for name, text in parts
    )
    head = f"Host: localhost\r\nAuthorization: Bearer {KEY}\r\n".encode()

    def upload(path: str, part: str) -> bytes:
        body = (
            fields
            + f'--b\r\nContent-Disposition: form-data; name="{part}"; filename="x.png"\r\n'.encode()
            + b"Content-Type: image/png\r\n\r\n"
            + encode(photo(16, 16), "PNG")
            + b"\r\n--b--\r\n"
        )
        lines = (
            f"POST {path} HTTP/1.1\r\n".encode()
            + head
            + b"Content-Type: multipart/form-data; boundary=b; charset=utf-8\r\n"
            + b"Prefer: wait=0\r\nIdempotency-Key: key\r\nX-Request-ID: id\r\n"
            + f"traceparent: 00-{'1' * 32}-{'2' * 16}-01\r\n".encode()
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        return lines + body

    others = (
        "GET /v1/detections?limit=5&cursor=1",
        "GET /v1/detections?ids=a,b,c",
        "GET /v1/detections/0123456789abcdef/overlays/ai.png?opacity=0.5&colormap=viridis",
        "DELETE /v1/detections/0123456789abcdef",
    )
    return [
        upload("/v1/detections", "file"),
        upload("/v1/detections/batch", "files"),
        *(f"{line} HTTP/1.1\r\n".encode() + head + b"\r\n" for line in others),
    ]


def damaged(request: bytes, chance: random.Random) -> bytes:
    """A request with some bytes changed, left out, repeated or cut off."""
    data = bytearray(request)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        length = chance.choice((1, 1, 2, 8, 40))
        match chance.randrange(5):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length] * chance.choice((1, 2, 300))
            case 3:
                data[at:at] = chance.choice(
                    (b"\0", b"\r\n", b"\n", b'"', b"%00", b"\xff", b"--b", b";")
                )
            case 4:
                data = data[: at + 1]
    return bytes(data)


def status_of(api: Replica, request: bytes) -> int:
    """The status that a request is answered with; 0: the connection is closed without an answer."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as connection:
        try:
            connection.sendall(request)
            start = connection.recv(65536)
        except ConnectionResetError:
            start = b""
    return int(start.split()[1]) if start else 0


@pytest.mark.timeout(400)
def test_damaged_requests_are_refused_or_read(api: Replica) -> None:
    files, chance = originals(), random.Random(SEED)
    cases = [damaged(chance.choice(files), chance) for _ in range(REQUESTS)]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda case: status_of(api, case), cases))
    worse = [(SEED, case) for case, status in zip(cases, found, strict=True) if status >= 500]
    assert worse == []
    assert {202, 400, 404}.issubset(found), "faults of every depth were made"
    assert api.unexpected_errors() == []
    with api.client(KEY) as client:
        sound = client.post("/v1/detections", files={"file": encode(photo(16, 16, 3))})
    assert sound.status_code == 202


# -- without keys ---------------------------------------------------------------------------------


def test_without_keys_only_local_requests_are_accepted(tmp_path: Path) -> None:
    with (
        private_redis(tmp_path / "redis", 2**28) as (url, _),
        replicas(url, tmp_path, 1) as (api,),
        api.client() as client,
    ):
        for host in (
            "evil.example",
            f"evil.example:{api.port}",
            "10.0.0.1",
            "127.0.0.1.a",
            "[::",
            "",
        ):
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


def test_allow_anonymous_accepts_any_host(tmp_path: Path) -> None:
    with (
        private_redis(tmp_path / "redis", 2**28) as (url, _),
        replicas(url, tmp_path, 1, GAMMA_ALLOW_ANONYMOUS="true") as (api,),
        api.client() as client,
    ):
        answer = client.get("/v1/detections", headers={"Host": "gamma.example"})
    assert answer.status_code == 200
