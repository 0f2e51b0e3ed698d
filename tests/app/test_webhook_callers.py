"""Webhooks of several callers, each with its own secret."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.http.problems import ServiceError
from tests.app.receiver import wait_for
from tests.app.test_callers_file import BOB, NEW, OLD, key, replace, table
from tests.app.test_webhooks import THREADS, Stack, running, verifies

ALICES, BOBS, FRESH = (f"whsec_{43 * letter}=" for letter in "AEI")


def callers(alices: str = f'["{ALICES}"]') -> str:
    return (
        table("alice", key(OLD), webhook_secrets=alices)
        + table("bob", key(BOB), webhook_secrets=f'["{BOBS}"]')
        + table("carol", key(NEW))
    )


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    file = tmp_path / "callers.toml"
    file.write_text(callers())
    with running(tmp_path, GAMMA_CALLERS_FILE=str(file)) as stack:
        yield stack


def done(stack: Stack, file: Path, owner: str) -> str:
    return stack.done("/hook", owner=owner, callers_file=file)


def wait_until_loaded(stack: Stack, file: Path) -> None:
    """Wait until the delivery worker has loaded the file; it checks it while delivering."""

    def loaded() -> bool:
        done(stack, file, "bob")
        return "callers_file_loaded" in stack.log.read_text()

    wait_for(loaded)


def genuine(stack: Stack, name: str, *secrets: str) -> list[bool]:
    """Whether the only message about a detection is signed with each secret."""
    stack.wait_for_outcomes(name, "delivered")
    (arrival,) = stack.arrivals(name)
    return [verifies(secret, arrival.headers, arrival.body) for secret in secrets]


def test_no_caller_can_forge_the_message_of_another(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    assert genuine(stack, done(stack, file, "alice"), ALICES, BOBS) == [True, False]
    assert genuine(stack, done(stack, file, "bob"), ALICES, BOBS) == [False, True]
    with pytest.raises(ServiceError, match="secret") as refusal:
        done(stack, file, "carol")
    assert refusal.value.code == "webhook_refused"

    replace(file, callers(f'["{FRESH}", "{ALICES}"]'))
    wait_until_loaded(stack, file)
    assert genuine(stack, done(stack, file, "alice"), FRESH, ALICES, BOBS) == [True, True, False]


def test_delivery_without_secret_is_refused(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    name = stack.submit("/hook", owner="alice", callers_file=file)
    replace(file, table("bob", key(BOB), webhook_secrets=f'["{BOBS}"]'))
    wait_until_loaded(stack, file)
    stack.finish(name)
    stack.wait_for_outcomes(name, "refused")
    assert stack.arrivals(name) == []


def test_silent_hosts_of_one_caller_do_not_delay_others(stack: Stack, tmp_path: Path) -> None:
    file, receiver = tmp_path / "callers.toml", stack.receiver
    with socket.create_server(("0.0.0.0", 0), backlog=100) as silent:
        silents = []
        for number in range(40):
            host = f"127.0.2.{number + 1}:{silent.getsockname()[1]}"
            stack.receiver = SimpleNamespace(url=f"http://{host}")
            silents.append(done(stack, file, "bob"))
        stack.receiver = receiver
        name = done(stack, file, "alice")
        stack.wait_for_outcomes(name, "delivered")
        assert sum(len(stack.outcomes(one)) for one in silents) <= THREADS


def test_dead_host_is_skipped(stack: Stack, tmp_path: Path) -> None:
    file, receiver = tmp_path / "callers.toml", stack.receiver
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    stack.receiver = SimpleNamespace(url=dead)
    for _ in range(5):
        stack.wait_for_outcomes(done(stack, file, "bob"), "retried")
    name = done(stack, file, "bob")
    wait_for(lambda: len(stack.outcomes(name)) == 3)
    reasons = [line["reason"] for line in stack.lines(name)]
    assert [reason.startswith("not sent") for reason in reasons] == [True, True, False]
    stack.receiver = receiver
    stack.wait_for_outcomes(done(stack, file, "alice"), "delivered")
