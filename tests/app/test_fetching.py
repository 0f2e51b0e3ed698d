"""Fetching of pictures by URL: what is fetched, and from where."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.contract.settings import Settings
from app.http import fetching
from app.http.fetching import Fetcher
from app.http.problems import ServiceError
from tests.app.conftest import KEYS, MAX_UPLOAD, new_picture
from tests.app.replica import Replica, assert_problem, replicas
from tests.app.test_webhook_rules import resolving

PICTURE = new_picture()


class Host:
    """A web server with pictures, redirects and other answers."""

    def __init__(self) -> None:
        host = self
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.held = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                host.headers = dict(self.headers)
                name = self.path.removeprefix("/")
                if name.startswith("to:"):
                    self.send_response(302)
                    self.send_header("Location", name.removeprefix("to:"))
                    self.end_headers()
                    return
                if name == "held":
                    host.held.wait(60)
                self.send_response(404 if name == "gone" else 200)
                kind = {"page": "text/html; charset=utf-8", "bytes": "application/octet-stream"}
                self.send_header("Content-Type", kind.get(name, "image/png"))
                self.end_headers()
                self.wfile.write(bytes(MAX_UPLOAD + 1) if name == "large" else PICTURE)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.held.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    running = Host()
    yield running
    running.close()


def fetch(url: str, allow: str | None = "127.0.0.0/8") -> bytes:
    async def read() -> bytes:
        fetcher = Fetcher(Settings(fetch=True, fetch_allow=allow))
        return b"".join([piece async for piece in fetcher.fetch(url)])

    return asyncio.run(read())


def refusal(url: str, allow: str | None = "127.0.0.0/8") -> tuple[str, str]:
    with pytest.raises(ServiceError) as refused:
        fetch(url, allow)
    return refused.value.code, refused.value.detail


@pytest.mark.parametrize("path", ["photo", "bytes", "to:/photo", "to:/to:/to:/photo"])
def test_pictures_are_fetched(host: Host, path: str) -> None:
    assert fetch(f"{host.url}/{path}") == PICTURE
    assert host.headers["user-agent"] == fetching.USER_AGENT
    assert not {"Authorization", "Cookie", "Referer"} & host.headers.keys()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("gone", "status 404"),
        ("page", "text/html, not a picture"),
        ("to:/to:/to:/to:/photo", "more than 3 redirects"),
        ("to://[::1", "the redirect is invalid"),
        ("to:https://a:b/", "the redirect is invalid"),
    ],
)
def test_other_answers_fail(host: Host, path: str, why: str) -> None:
    code, detail = refusal(f"{host.url}/{path}")
    assert code == "fetch_failed"
    assert why in detail


@pytest.mark.parametrize(
    "url",
    [
        "http://www.example.com/photo.jpg",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://0x7f000001/",
        "https://localhost/",
        "https://user@www.example.com/",
        "https://www.example.com:25/",
        "file:///etc/passwd",
        "no url",
    ],
)
def test_urls_that_are_not_public_are_refused(url: str) -> None:
    assert refusal(url, None)[0] == "fetch_refused"


def test_redirects_are_checked_too(host: Host) -> None:
    code, _ = refusal(f"{host.url}/to:http://169.254.169.254/latest/meta-data")
    assert code == "fetch_refused"


def test_addresses_are_checked_after_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["93.184.215.14", "192.168.1.1"])
    code, detail = refusal("https://www.example.com/photo.jpg", None)
    assert code == "fetch_refused"
    assert "192.168" not in detail


def test_a_slow_host_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_TIMEOUT", 0.2)
    assert refusal(f"{host.url}/held")[0] == "fetch_failed"


def test_time_limit_does_not_cancel_the_reader(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_TIMEOUT", 3)

    async def read() -> str:
        fetcher = Fetcher(Settings(fetch=True, fetch_allow="127.0.0.0/8"))
        async with contextlib.aclosing(fetcher.fetch(f"{host.url}/photo")) as pieces:
            await anext(pieces)
            await asyncio.sleep(3.1)  # as a reader that waits for the disk
            return "not cancelled"

    assert asyncio.run(read()) == "not cancelled"


@pytest.fixture(scope="module")
def fetching_api(
    pair_redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    environment = {
        "GAMMA_API_KEYS": f"alice={KEYS['alice']}",
        "GAMMA_MAX_UPLOAD": str(MAX_UPLOAD),
        "GAMMA_FETCH": "on",
        "GAMMA_FETCH_ALLOW": "127.0.0.1",
    }
    with replicas(pair_redis_url, tmp_path_factory.mktemp("fetching"), 1, **environment) as (api,):
        yield api


def test_a_url_is_an_upload_of_its_picture(fetching_api: Replica, host: Host) -> None:
    with fetching_api.client(KEYS["alice"]) as client:
        given = {"url": f"{host.url}/photo", "ref_id": "pasted"}
        for answer in (
            client.post("/v1/detections", json=given),
            client.post("/v1/detections", params=given),
            client.post("/v1/detections", files={name: (None, v) for name, v in given.items()}),
        ):
            assert answer.status_code == 202, answer.text
            record = answer.json()
            assert record["ref_id"] == "pasted"
            stored = client.get(f"/v1/detections/{record['id']}/image")
            assert stored.content == PICTURE
        both = client.post("/v1/detections", data=given, files={"file": PICTURE})
        assert_problem(both, 400, "malformed_request")
        large = client.post("/v1/detections", json={"url": f"{host.url}/large"})
        assert_problem(large, 413, "upload_too_large")
