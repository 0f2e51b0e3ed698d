"""The callers file: format, key rotation and reloads."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis

from app.contract.directory import CallerSettings, CallersFileError, Directory
from app.contract.limits import RateLimit
from app.contract.reservation import RECORD_BYTES
from app.contract.settings import Settings
from tests.app.conftest import StandIn, new_picture, post, wait_for
from tests.app.replica import Replica, assert_problem, replicas
from tests.app.test_keys import caller_of
from tests.app.test_webhook_rules import SECRET

OLD, NEW, BOB = "the-old-key-of-alice-1", "the-new-key-of-alice-2", "the-key-of-bob-2222222"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def key(secret: str, expires: datetime | None = None) -> str:
    end = "" if expires is None else f", expires = {expires.isoformat()}"
    return f'{{ sha256 = "{digest(secret)}"{end} }}'


def table(name: str, *keys: str, **settings: str) -> str:
    lines = [f"[{name}]", f"keys = [{', '.join(keys)}]"]
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items()), ""])


def replace(file: Path, text: str) -> None:
    """Replace a file atomically."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "callers.toml"


# -- format ---------------------------------------------------------------------------------------


def test_callers_of_file_and_variable(file: Path) -> None:
    secrets = f'["{SECRET}"]'
    file.write_text(
        table("alice", key(OLD), key(NEW), rate_limit='"5/day"', webhook_secrets=secrets)
        + table('"b.o-b_1"', key(BOB))
    )
    settings = Settings(
        callers_file=file,
        api_keys="carol=the-key-of-carol-3",
        rate_limit="9/day",
        webhook_secrets="whsec_" + 43 * "B" + "=",
    )
    callers = Directory(settings).now
    assert callers.keys is not None
    known = {secret: caller_of(callers.keys, secret) for secret in (OLD, NEW, BOB)}
    assert known == {OLD: "alice", NEW: "alice", BOB: "b.o-b_1"}
    assert caller_of(callers.keys, "the-key-of-carol-3") == "carol"
    assert callers.settings_of("alice").rate_limit == RateLimit(5, 86_400)
    assert callers.settings_of("b.o-b_1").rate_limit == RateLimit(9, 86_400)
    assert callers.settings_of("b.o-b_1").webhook_secrets is None, "no secret of others"
    assert callers.settings_of("carol").webhook_secrets == settings.webhook_secrets
    shown = repr(callers)
    assert not any(part in shown for part in (digest(OLD), SECRET, "MfKQ"))


def test_named_keys_of_a_team(file: Path) -> None:
    named = key(NEW).replace("{", '{ name = "anna",')
    file.write_text(table("news", key(OLD), named))
    keys = Directory(Settings(callers_file=file)).now.keys
    assert keys is not None
    found = [keys.find(secret) for secret in (OLD, NEW)]
    assert [(one.caller, one.name) for one in found if one] == [("news", "news"), ("news", "anna")]


def test_search_links_of_each_caller(file: Path) -> None:
    file.write_text(
        table("alice", key(OLD), search_links="false")
        + table("bob", key(BOB), search_links="true")
        + table("carol", key(NEW))
    )
    for general in (True, False):
        now = Directory(Settings(callers_file=file, search_links=general)).now
        found = [now.settings_of(name).search_links for name in ("alice", "bob", "carol")]
        assert found == [False, True, general]


def test_key_is_valid_until_it_expires(file: Path) -> None:
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    file.write_text(table("alice", key(OLD, now - hour), key(NEW, now + hour)))
    keys = Directory(Settings(callers_file=file)).now.keys
    assert keys is not None
    assert caller_of(keys, OLD) is None
    assert caller_of(keys, NEW) == "alice"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[alice", "not TOML"),
        ("\xff", "not TOML"),
        ("keys = 1", "keys"),
        (table("alice"), "alice.keys"),
        (table("alice", key(OLD), key(NEW), key(BOB)), "alice.keys"),
        (table("alice", key(OLD).replace("{", '{ name = "a b",')), "alice.keys"),
        (table("alice", f'{{ sha256 = "{digest(OLD)[:-1]}" }}'), "alice.keys.0.sha256"),
        (table("alice", f'{{ secret = "{OLD}" }}'), "alice.keys.0.secret"),
        (table("alice", f'"{OLD}"'), "alice.keys.0"),
        (table("alice", key(OLD)[:-2] + ", expires = 2026-01-01T00:00:00 }"), "expires"),
        (table("alice", key(OLD), rate="1"), "alice.rate"),
        (table("alice", key(OLD)) + f'"{OLD}" = 1', "alice.…: Extra"),
        (f"[{OLD}]\n[{OLD}]", "is not TOML"),
        ("x=" + "[" * 3000 + "]" * 3000, "is not TOML"),
        (table("alice", key(OLD), rate_limit='"much"'), "alice.rate_limit"),
        (table("alice", key(OLD), webhook_secrets=f'["{OLD}"]'), "alice.webhook_secrets"),
        (table("anonymous", key(OLD)), "name"),
        (table('"a b"', key(OLD)), "name"),
        (table("alice", key(OLD)) + table("bob", key(OLD)), "same secret"),
        (table("carol", key(OLD)), "GAMMA_API_KEYS"),
    ],
)
def test_invalid_file_is_refused_without_showing_its_content(
    file: Path, text: str, told: str
) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(CallersFileError) as error:
        Directory(Settings(callers_file=file, api_keys="carol=the-key-of-carol-3"))
    assert told in str(error.value)
    assert not any(part in str(error.value) for part in (OLD, digest(OLD)[:-1]))


def test_missing_file_prevents_the_start(tmp_path: Path) -> None:
    replica = Replica("unix:///nowhere", tmp_path / "log", GAMMA_CALLERS_FILE="/nowhere/callers")
    assert replica.process.wait(60) == 1
    assert "/nowhere/callers cannot be read" in " ".join(replica.log().split())
    assert "Traceback" not in replica.log()


# -- changes --------------------------------------------------------------------------------------


@pytest.fixture
def api(redis_url: str, file: Path, tmp_path: Path) -> Iterator[Replica]:
    file.write_text(table("alice", key(OLD)))
    with replicas(redis_url, tmp_path, 1, GAMMA_CALLERS_FILE=str(file)) as (one,):
        yield one


def opens(api: Replica, secret: str) -> bool:
    with api.client(secret) as client:
        answer = client.get("/v1/detections")
    if answer.status_code != 200:
        assert_problem(answer, 403, "key_invalid")
    return answer.status_code == 200


def test_a_key_is_replaced_without_a_restart(api: Replica, file: Path) -> None:
    assert opens(api, OLD)
    assert not opens(api, NEW)
    replace(file, table("alice", key(OLD), key(NEW)))
    wait_for(lambda: opens(api, NEW))
    assert opens(api, OLD), "both count meanwhile"
    replace(file, table("alice", key(OLD, datetime.now(UTC) + timedelta(seconds=3)), key(NEW)))
    wait_for(lambda: not opens(api, OLD))
    assert opens(api, NEW)
    replace(file, table("bob", key(BOB)))
    wait_for(lambda: opens(api, BOB))
    assert not opens(api, NEW)


def test_a_limit_changes_without_a_restart(api: Replica, file: Path) -> None:
    with api.client(OLD) as client:
        assert post(client).status_code == 202
        replace(file, table("alice", key(OLD), rate_limit='"1/day"'))
        wait_for(lambda: "ratelimit" in post(client).headers)
        assert_problem(post(client), 429, "rate_limited")
        replace(file, table("alice", key(OLD), rate_limit='"900/day"'))
        wait_for(lambda: post(client).status_code == 202)


def test_invalid_change_of_the_file_is_ignored(api: Replica, file: Path) -> None:
    replace(file, "[alice")
    wait_for(lambda: opens(api, OLD) and "callers_file_refused" in api.log())
    file.unlink()
    wait_for(lambda: opens(api, OLD) and "cannot be read" in api.log())
    replace(file, table("bob", key(BOB)))
    wait_for(lambda: opens(api, BOB))


def test_usage_of_each_caller(api: Replica, file: Path) -> None:
    # Nobody else of this file: what alice has uploaded in other tests counts for a day.
    limits = {"rate_limit": '"9/day"', "queue_limit": "7", "storage_limit": '"1MiB"'}
    replace(file, table("carol", key(OLD), weight="2", **limits) + table("bob", key(BOB)))
    wait_for(lambda: opens(api, BOB))
    picture = new_picture()
    with api.client(OLD) as alice, api.client(BOB) as bob:
        before = alice.get("/v1/usage").json()
        for _ in range(2):
            assert post(alice, picture).status_code == 202
        after = alice.get("/v1/usage").json()
        others = bob.get("/v1/usage").json()
    assert after.pop("oldest_wait") >= 0
    assert after == {
        "caller": "carol",
        "waiting": before["waiting"] + 2,
        "kept_bytes": before["kept_bytes"] + len(picture),
        "reserved_bytes": before["reserved_bytes"] + 2 * (RECORD_BYTES + 2 * 16 * 16),
        "uploads_left": 7,
        "rate_limit": "9/day",
        "queue_limit": 7,
        "storage_limit": 2**20,
        "weight": 2.0,
    }
    assert (others["caller"], others["waiting"], others["kept_bytes"]) == ("bob", 0, 0)
    assert others["rate_limit"] is others["uploads_left"] is None


def test_search_links_are_announced_to_each_caller(api: Replica, file: Path, redis: Redis) -> None:
    StandIn(redis)
    replace(file, table("alice", key(OLD), search_links="false") + table("bob", key(BOB)))
    wait_for(lambda: opens(api, BOB))
    with api.client(OLD) as alice, api.client(BOB) as bob:
        found = [client.get("/v1/model").json()["search_links"] for client in (alice, bob)]
    assert found == [False, True]


# -- documentation --------------------------------------------------------------------------------


def test_documented_file_is_valid_and_complete(file: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "callers.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    file.write_text(example)
    assert list(Directory(Settings(callers_file=file)).now.settings) == ["newsroom", "archive"]
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(["keys", *CallerSettings.model_fields])
