"""Requests to webhook receivers: checked addresses, TLS, timeouts and redirects."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from app.contract.addresses import Allowlist
from app.webhooks.sending import USER_AGENT, NoAnswerError, Sender
from app.webhooks.targets import TargetRefusedError, Targets
from tests.app.receiver import Receiver
from tests.app.test_webhook_rules import resolving


def sender(allow: str = "127.0.0.0/8", timeout: float = 30) -> Sender:
    return Sender(Targets(Allowlist.parse(allow)), timeout)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def test_request(receiver: Receiver) -> None:
    assert sender().post(f"{receiver.url}/hook?key=1", b"{}", {"webhook-id": "msg_1"}) == 200
    (arrival,) = receiver.arrivals
    assert (arrival.path, arrival.body) == ("/hook?key=1", b"{}")
    assert arrival.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert arrival.headers["content-type"] == "application/json"
    assert arrival.headers["user-agent"] == USER_AGENT
    assert USER_AGENT.startswith("GAMMA/")
    assert arrival.headers["webhook-id"] == "msg_1"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that senders created from now on trust."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return ca


def certify(receiver: Receiver, authority: trustme.CA, name: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)


def test_tls_verifies_the_host_name(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, *[["127.0.0.1"]] * 2)
    unstarted = Receiver()
    certify(unstarted, authority, "hooks.example.com")
    with unstarted as receiver:
        url = f"https://hooks.example.com:{receiver.port}/"
        assert sender().post(url, b"{}", {}) == 200
        (arrival,) = receiver.arrivals
        assert arrival.headers["host"] == f"hooks.example.com:{receiver.port}"
        with pytest.raises(NoAnswerError, match="certificate"):
            sender().post(f"https://other.example.com:{receiver.port}/", b"{}", {})
        assert len(receiver.arrivals) == 1


def test_untrusted_certificate_is_refused(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, ["127.0.0.1"])
    unstarted = Receiver()
    certify(unstarted, trustme.CA(), "hooks.example.com")
    with unstarted as receiver, pytest.raises(NoAnswerError, match="certificate"):
        sender().post(f"https://hooks.example.com:{receiver.port}/", b"{}", {})


def test_dns_rebinding_is_prevented(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection uses the address that was checked."""
    asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    unstarted = Receiver()
    certify(unstarted, authority, "hooks.example.com")
    with unstarted as receiver:
        url = f"https://hooks.example.com:{receiver.port}/"
        assert sender("127.0.0.1").post(url, b"{}", {}) == 200
        assert asked == ["hooks.example.com"]
        with pytest.raises(TargetRefusedError):
            sender("127.0.0.1").post(url, b"{}", {})


def test_rules_are_checked_before_sending(receiver: Receiver) -> None:
    with pytest.raises(TargetRefusedError):
        Sender(Targets(None), 30).post(receiver.url, b"{}", {})
    with pytest.raises(TargetRefusedError):
        sender("::1").post(f"http://[::ffff:127.0.0.1]:{receiver.port}/", b"{}", {})
    assert not receiver.arrivals


@pytest.mark.parametrize("location", ["{url}/inner", "http://169.254.169.254/latest/meta-data/"])
def test_redirects_are_not_followed(receiver: Receiver, location: str) -> None:
    receiver.answers["/moved"] = [location.format(url=receiver.url)]
    assert sender().post(f"{receiver.url}/moved", b"{}", {}) == 302
    assert [arrival.path for arrival in receiver.arrivals] == ["/moved"]


def test_proxy_variables_are_ignored(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert sender().post(f"{receiver.url}/", b"{}", {}) == 200
        assert not proxy.arrivals
    assert len(receiver.arrivals) == 1


def test_the_next_address_is_tried(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["127.0.0.77", "127.0.0.1"], ["127.0.0.77"])
    url = f"http://hooks.internal:{receiver.port}/"
    assert sender("hooks.internal").post(url, b"{}", {}) == 200
    with pytest.raises(NoAnswerError):
        sender("hooks.internal").post(url, b"{}", {})


@contextlib.contextmanager
def talking(first: bytes, again: bytes) -> Iterator[str]:
    """A server that sends `first`, then `again` repeatedly; yields its URL."""
    closing = threading.Event()

    def talk() -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.sendall(first)
                while not closing.wait(0.05):
                    connection.sendall(again)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            closing.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_timeout_covers_an_endless_response() -> None:
    with (
        talking(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a") as url,
        pytest.raises(NoAnswerError, match="no answer within 1 s"),
    ):
        sender(timeout=1).post(url, b"{}", {})


def test_response_body_is_not_awaited() -> None:
    head = b"HTTP/1.1 204 No Content\r\n\r\n"
    with talking(b"HTTP/1.1 202 Accepted\r\nContent-Length: 1000000000\r\n\r\n", b"a") as url:
        assert sender().post(url, b"{}", {}) == 202
    with talking(head, b"more than was announced") as url:
        assert sender().post(url, b"{}", {}) == 204


@pytest.mark.parametrize("first", [b"220 mail.example.com ESMTP\r\n", b"\x00" * 100])
def test_server_without_http(first: bytes) -> None:
    with talking(first, b"\r\n") as url, pytest.raises(NoAnswerError):
        sender(timeout=5).post(url, b"{}", {})


def test_connection_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NoAnswerError, match="ConnectError"):
        sender().post(f"http://127.0.0.1:{port}/", b"{}", {})


def test_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NoAnswerError, match="not known"):
        sender().post("https://hooks.example.com/", b"{}", {})
