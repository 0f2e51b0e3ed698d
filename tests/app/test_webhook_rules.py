"""Allowed webhook targets, and signatures."""

from __future__ import annotations

import base64
import ipaddress
import socket

import anyio
import pytest
from pydantic import ValidationError

from app.contract.addresses import Allowlist, is_public
from app.contract.settings import Settings
from app.contract.signing import SigningSecrets
from app.webhooks.targets import TargetRefusedError, Targets

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",  # metadata
        "127.0.0.1",
        "127.8.8.8",
        "168.63.129.16",  # metadata
        "169.254.169.254",  # metadata
        "172.16.0.1",
        "192.0.0.192",  # metadata
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::127.0.0.1",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",  # metadata
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00::1"])
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "https:///path",
        "http://hooks.example.com/",
        "https://user@hooks.example.com/",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com\\@127.0.0.1/",
        "https://hooks.example.com:25/",
        "https://hooks.example.com:80/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:70000/",
        "https://hooks.example.com/" + 2048 * "a",
        "https://hooks example.com/",
        "https://hooks.example.com\n/",
        "https://hooks.example.com/\ud800",
        "https://hooks%2eexample.com/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://api.localhost/",
        "https://redis:6379/",
        "https://127.0.0.1/",
        "https://127.0.0.1./",
        "https://127。0。0。1/",
        "https://①②⑦.⓪.⓪.①/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://1.2.3.4.5/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[fe80::1%25eth0]/",
    ],
)
def test_refused_urls(url: str) -> None:
    with pytest.raises(TargetRefusedError):
        Targets(None).check(url)


def test_urls_have_one_normal_form() -> None:
    check = Targets(None).check
    assert check("https://hooks.example.com/a?b=c#d") == "https://hooks.example.com/a?b=c"
    assert check("HTTPS://Hooks.Example.COM./") == "https://hooks.example.com/"
    assert check("https://hooks.example.com:8443/x") == "https://hooks.example.com:8443/x"
    assert check("https://bücher.example/") == "https://xn--bcher-kva.example/"
    assert check("https://8.8.8.8/") == "https://8.8.8.8/"
    assert check("https://[2606:4700::1111]/") == "https://[2606:4700::1111]/"


def test_allowlist_of_hosts_addresses_and_networks() -> None:
    targets = Targets(Allowlist.parse("hooks.internal, 10.1.0.0/16 ::1"))
    for url in ("http://hooks.internal:81/", "http://10.1.2.3/", "http://[::1]:8000/"):
        assert targets.check(url) == url
    for url in ("http://other.internal/", "https://10.2.0.1/", "https://hooks.internal.:99999/"):
        with pytest.raises(TargetRefusedError):
            targets.check(url)
    for wrong in ("10.1.2.3/16", "http://hooks.internal", "0x7f.1"):
        with pytest.raises(ValueError, match="not a host name"):
            Allowlist.parse(wrong)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Fake DNS with these answers in order; returns the list of queried hosts."""
    asked: list[str] = []

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(None, None, None, "", (address, port)) for address in answers[len(asked) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["2606:4700::1111", "::ffff:169.254.169.254"]],
)
def test_host_with_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    resolving(monkeypatch, addresses)
    with pytest.raises(TargetRefusedError) as refusal:
        anyio.run(Targets(None).resolve, "hooks.example.com", 443)
    assert not any(address in str(refusal.value) for address in addresses)


def test_host_with_public_addresses_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["93.184.216.34", "2606:4700::1111", "93.184.216.34"])
    found = anyio.run(Targets(None).resolve, "hooks.example.com", 443)
    assert found == ["93.184.216.34", "2606:4700::1111"]


def test_allowed_host_may_have_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["10.0.0.1"], ["10.0.0.1"])
    by_name = Targets(Allowlist.parse("hooks.internal"))
    by_network = Targets(Allowlist.parse("10.0.0.0/8"))
    assert anyio.run(by_name.resolve, "hooks.internal", 443) == ["10.0.0.1"]
    assert anyio.run(by_network.resolve, "other.internal", 443) == ["10.0.0.1"]


def test_signature_matches_the_reference_library() -> None:
    """The expected value is from `standardwebhooks` 1.1.0, the reference library."""
    headers = SigningSecrets.parse(SECRET).headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    "given",
    [
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_c2hvcnQ=",
        "whsec_not base64",
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        f"{SECRET},{SECRET},{SECRET}",
    ],
)
def test_invalid_secret_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("GAMMA_WEBHOOK_SECRETS", given)
    with pytest.raises(ValidationError) as error:
        Settings.load()
    assert "secret" in str(error.value)
    assert not any(part in str(error.value) for part in ("MfKQ", "c2hv", "AAAA"))


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMA_WEBHOOK_SECRETS", SECRET)
    settings = Settings.load()
    assert settings.webhook_secrets is not None
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    assert settings.webhook_secrets.keys == (key,)
    assert "MfKQ" not in repr(settings)
    assert repr(key) not in repr(settings)
