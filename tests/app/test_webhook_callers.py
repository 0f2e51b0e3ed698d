"""Webhooks of several callers: each has its own secret."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.command.embedded import private_redis
from app.http.problems import ServiceError
from tests.app.receiver import Receiver, wait_for
from tests.app.test_callers_file import BOB, NEW, OLD, key, replace, table
from tests.app.test_webhooks import THREADS, House, snippet

ALICES, BOBS, FRESH = (f"whsec_{43 * letter}=" for letter in "AEI")


def callers(alices: str = f'["{ALICES}"]') -> str:
    return (
        table("alice", key(OLD), webhook_secrets=alices)
        + table("bob", key(BOB), webhook_secrets=f'["{BOBS}"]')
        + table("carol", key(NEW))
    )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    file = tmp_path / "callers.toml"
    file.write_text(callers())
    with private_redis(tmp_path / "redis", 2**26) as (url, _), Receiver() as receiver:
        house = House(url, tmp_path, receiver)
        house.start(GAMMA_CALLERS_FILE=str(file))
        wait_for(lambda: "webhooks_ready" in house.log.read_text())
        yield house
        house.close()


def done(house: House, file: Path, owner: str) -> str:
    return house.done("/hook", owner=owner, callers_file=file)


def wait_until_loaded(house: House, file: Path) -> None:
    """Until the delivery worker has seen the change, as it does when there is work."""

    def loaded() -> bool:
        done(house, file, "bob")
        return "callers_file_loaded" in house.log.read_text()

    wait_for(loaded)


def genuine(house: House, name: str, *secrets: str) -> list[bool]:
    """Whether the one message about a detection is signed by each of the secrets."""
    house.wait_for_outcomes(name, "delivered")
    (arrival,) = house.arrivals(name)
    return [snippet()["verify"](secret, arrival.headers, arrival.body) for secret in secrets]


def test_no_caller_can_forge_the_message_of_another(house: House, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    assert genuine(house, done(house, file, "alice"), ALICES, BOBS) == [True, False]
    assert genuine(house, done(house, file, "bob"), ALICES, BOBS) == [False, True]
    with pytest.raises(ServiceError, match="no secret") as refusal:
        done(house, file, "carol")
    assert refusal.value.code == "webhook_refused"

    replace(file, callers(f'["{FRESH}", "{ALICES}"]'))
    wait_until_loaded(house, file)
    assert genuine(house, done(house, file, "alice"), FRESH, ALICES, BOBS) == [True, True, False]


def test_what_lost_its_secret_is_not_signed_by_another(house: House, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    name = house.submit("/hook", owner="alice", callers_file=file)
    replace(file, table("bob", key(BOB), webhook_secrets=f'["{BOBS}"]'))
    wait_until_loaded(house, file)
    house.finish(name)
    house.wait_for_outcomes(name, "refused")
    assert house.arrivals(name) == []


def test_silent_hosts_of_one_caller_hold_up_no_other(house: House, tmp_path: Path) -> None:
    file, receiver = tmp_path / "callers.toml", house.receiver
    with socket.create_server(("0.0.0.0", 0), backlog=100) as silent:
        silents = []
        for number in range(40):
            host = f"127.0.2.{number + 1}:{silent.getsockname()[1]}"
            house.receiver = SimpleNamespace(url=f"http://{host}")
            silents.append(done(house, file, "bob"))
        house.receiver = receiver
        name = done(house, file, "alice")
        house.wait_for_outcomes(name, "delivered")
        assert sum(len(house.outcomes(one)) for one in silents) <= THREADS


def test_a_dead_host_is_not_asked_every_time(house: House, tmp_path: Path) -> None:
    file, receiver = tmp_path / "callers.toml", house.receiver
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    house.receiver = SimpleNamespace(url=dead)
    for _ in range(5):
        house.wait_for_outcomes(done(house, file, "bob"), "retried")
    name = done(house, file, "bob")
    wait_for(lambda: len(house.outcomes(name)) == 3)
    reasons = [line["reason"] for line in house.lines(name)]
    assert [reason.startswith("not sent") for reason in reasons] == [True, True, False]
    house.receiver = receiver
    house.wait_for_outcomes(done(house, file, "alice"), "delivered")
