"""The queue of reviews: who has what open, and what comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis

from app.contract.reviews import Decision, NewReview
from app.contract.settings import Settings
from app.contract.store import Store
from app.http.reviewing import Reviewing
from app.http.routes.reviews import _facts as facts_of
from app.reviews.reviewer import Reviewer
from tests.app.conftest import StandIn, post
from tests.app.replica import Replica, assert_problem, replicas

ANNA, BEN, EVE = "the-key-of-anna-111", "the-key-of-ben-2222", "the-key-of-eve-33333"


@pytest.fixture(scope="module")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica with a team of two, and somebody else."""
    keys = f"anna@news={ANNA},ben@news={BEN},eve={EVE}"
    with replicas(redis_url, tmp_path_factory.mktemp("team"), 1, GAMMA_API_KEYS=keys) as (one,):
        yield one


@pytest.fixture
def anna(api: Replica) -> Iterator[httpx2.Client]:
    with api.client(ANNA) as client:
        yield client


@pytest.fixture
def ben(api: Replica) -> Iterator[httpx2.Client]:
    with api.client(BEN) as client:
        yield client


@pytest.fixture
def names(redis: Redis, anna: httpx2.Client) -> list[str]:
    """Three finished detections, oldest first."""
    standin = StandIn(redis)
    sent = [post(anna).json()["id"] for _ in range(3)]
    for name in sent:
        assert standin.finish(name)
    return sent


def take_next(client: httpx2.Client, **parameters: str) -> str | None:
    answer = client.post("/v1/reviews/next", params=parameters)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    if found["detection"] is None:
        assert found["assignment"] is None
        return None
    assert found["assignment"]["detection_id"] == found["detection"]["id"]
    return str(found["detection"]["id"])


def decide(client: httpx2.Client, name: str) -> None:
    body = {"decision": "ai"}
    client.post(f"/v1/detections/{name}/review", json=body).raise_for_status()


def assigned(client: httpx2.Client, **parameters: str) -> set[str]:
    found = client.get("/v1/reviews/assigned", params=parameters).json()["assignments"]
    return {one["detection_id"] for one in found}


def test_team_shares_detections_and_is_told_who_decided(
    anna: httpx2.Client, ben: httpx2.Client, api: Replica, names: list[str]
) -> None:
    decide(anna, names[0])
    assert ben.get(f"/v1/detections/{names[0]}").json()["id"] == names[0]
    assert ben.get(f"/v1/detections/{names[0]}/review").json()["review"]["key"] == "anna"
    answer = ben.get(f"/v1/detections/{names[0]}/image")
    assert answer.status_code == 200
    (line,) = api.lines_of(answer.headers["x-request-id"])
    assert (line["caller"], line["key"]) == ("news", "ben")
    with api.client(EVE) as eve:
        assert_problem(eve.get(f"/v1/detections/{names[0]}"), 404, "not_found")
        assert take_next(eve) is None
        assert eve.get("/v1/reviews").json()["reviews"] == []


def test_next_skips_what_is_decided_or_open_elsewhere(
    anna: httpx2.Client, ben: httpx2.Client, names: list[str]
) -> None:
    waiting = post(anna).json()["id"]
    assert take_next(anna) == names[0]
    assert take_next(anna) == names[0], "it is still open"
    assert take_next(ben) == names[1]
    assert take_next(anna, after=names[0]) == names[2]
    assert assigned(anna) == {names[0], names[2]}
    decide(anna, names[0])
    assert assigned(anna) == {names[2]}
    decide(ben, names[1])
    assert take_next(ben) is None, "anna has the rest open, and one is not finished"
    anna.delete(f"/v1/detections/{names[2]}/assignment").raise_for_status()
    assert take_next(ben) == names[2]
    ben.delete(f"/v1/detections/{names[0]}/review").raise_for_status()
    assert take_next(anna) == names[0], "withdrawn, so undecided again"
    assert_problem(anna.post("/v1/reviews/next?after=nowhere"), 404, "not_found")
    assert waiting not in assigned(anna) | assigned(ben)


def test_next_does_not_look_again_at_what_is_done(
    redis: Redis, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teams decide about hundreds of thousands of detections within the retention time."""
    store, anna = Store(redis), Reviewer("news", "anna", "")
    looks: list[list[str]] = []
    look = Reviewing._look

    async def noted(self: Reviewing, store: Store, reviewer: Reviewer, names: list[str]) -> Any:
        looks.append(names)
        return await look(self, store, reviewer, names)

    async def run() -> list[str | None]:
        reviewing = Reviewing(Settings(data_dir=tmp_path))
        given: list[str | None] = []

        async def take(*, decide: bool = True) -> None:
            found = await reviewing.next(store, anna, None)
            given.append(found and found[0].id)
            if found and decide:
                facts = {found[0].id: facts_of(found[0])}
                await reviewing.reviews.append(anna, facts, NewReview(decision=Decision.AI))

        async with reviewing.running():
            await take()
            await take()
            await take(decide=False)
            await take(decide=False)
            await reviewing.withdraw(anna, names[0], lambda newest: True)
            await take()
        return given

    monkeypatch.setattr(Reviewing, "_look", noted)
    assert asyncio.run(run()) == [*names, names[2], names[0]]
    assert looks[0] == names
    assert looks[3] == names[2:]  # the fourth call begins after the two that are decided
    assert looks[4] == names


def test_a_team_sees_what_each_has_open(
    anna: httpx2.Client, ben: httpx2.Client, api: Replica, names: list[str]
) -> None:
    assert (take_next(anna), take_next(ben)) == (names[0], names[1])
    for one in (anna, ben):
        assert assigned(one, team="true") >= set(names[:2])
    with api.client(EVE) as eve:
        assert assigned(eve, team="true") == set()
    anna.delete(f"/v1/detections/{names[0]}").raise_for_status()
    assert names[0] not in assigned(anna) | assigned(ben, team="true")
    assert names[1] in assigned(ben)


def test_people_who_share_a_key_are_told_apart_by_name(
    anna: httpx2.Client, names: list[str]
) -> None:
    assert take_next(anna, reviewer="Anna") == names[0]
    assert take_next(anna, reviewer="Zoë") == names[1]
    assert assigned(anna, reviewer="Zoë") == {names[1]}
    assert not assigned(anna) & set(names)


def test_many_at_once_get_different_detections(
    anna: httpx2.Client, ben: httpx2.Client, redis: Redis, names: list[str]
) -> None:
    standin = StandIn(redis)
    more = [post(anna).json()["id"] for _ in range(5)]
    for name in more:
        assert standin.finish(name)
    people = [(client, {"reviewer": str(one)}) for one in range(4) for client in (anna, ben)]
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda one: take_next(one[0], **one[1]), people))
    assert sorted(map(str, given)) == sorted(names + more)


def test_assignment_can_be_taken_over(
    anna: httpx2.Client, ben: httpx2.Client, names: list[str]
) -> None:
    path = f"/v1/detections/{names[0]}/assignment"
    mine = anna.put(path, params={"reviewer": "Anna"}).json()
    assert (mine["reviewer"], mine["key"]) == ("Anna", "anna")
    renewed = anna.put(path, params={"reviewer": "Anna"}).json()
    assert renewed["expires_at"] > mine["expires_at"]
    refused = assert_problem(ben.put(path), 409, "assignment_taken")
    assert refused["detail"].startswith("Anna has it open until ")
    assert ben.delete(path).status_code == 204
    assert anna.get(f"/v1/detections/{names[0]}/review").json()["assignment"] == renewed
    assert ben.put(path, params={"takeover": "true"}).json()["key"] == "ben"
    listed = anna.get("/v1/reviews", params={"ids": names[0]}).json()
    assert [one["key"] for one in listed["assignments"]] == ["ben"]
    decide(anna, names[0])  # a soft lock
    assert names[0] not in assigned(ben)
