"""URLs of a Redis behind Sentinel."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from redis.exceptions import ConnectionError as RedisConnectionError

from app.contract.client import check_url, connect
from app.contract.sentinel import parse
from app.contract.settings import Settings


def test_a_url_names_sentinels_master_database_and_both_passwords() -> None:
    service = parse(
        "redis+sentinel://user:p%40ss@one:1,two,[::1]:3/my-master/2?sentinel_password=other"
    )
    assert service is not None
    assert service.name == "my-master"
    assert service.sentinels == [("one", 1), ("two", 26379), ("::1", 3)]
    assert service.options == {"username": "user", "password": "p@ss", "db": 2}
    assert service.sentinel_options["password"] == "other"
    assert "username" not in service.sentinel_options


def test_tls_is_for_redis_and_sentinels() -> None:
    service = parse("rediss+sentinel://one/main?ssl_ca_certs=/ca.crt")
    assert service is not None
    assert service.options == {"db": 0, "ssl_ca_certs": "/ca.crt"}
    assert service.tls
    assert service.sentinel_options["ssl"] is True
    assert service.sentinel_options["ssl_ca_certs"] == "/ca.crt"


@pytest.mark.parametrize("url", ["redis://host/0", "rediss://host/0", "unix:///run/redis.sock"])
def test_other_urls_are_not_for_sentinel(url: str) -> None:
    assert parse(url) is None
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://one",
        "redis+sentinel://one/",
        "redis+sentinel:///main/0",
        "redis+sentinel://one,/main/0",
        "redis+sentinel://one:x/main/0",
        "redis+sentinel://one/main/zero",
        "redis+sentinel://one/main/0/1",
        "redis+sentinel://one/main/0?unknown=1",
        "sentinel://one/main",
    ],
)
def test_a_malformed_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValidationError, match="is not a Redis URL") as refused:
        Settings(redis_url=url)
    assert url not in str(refused.value)


def test_without_a_sentinel_that_answers_a_command_fails_like_an_outage() -> None:
    url = "redis+sentinel://127.0.0.1:1,127.0.0.1:2/main"
    with (
        connect(url, retries=0) as redis,
        pytest.raises(RedisConnectionError, match="No master found"),
    ):
        redis.ping()
