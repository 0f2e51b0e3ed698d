"""Command line > environment > file > default."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.contract.keys import Keys
from app.contract.limits import RateLimit
from app.contract.settings import RedisUrlMissingError, Settings, UnknownSettingError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_priority(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().port == 8000
    (elsewhere / "gamma.toml").write_text("port = 1\nqueue_limit = 7\n")
    assert Settings.load().port == 1
    monkeypatch.setenv("GAMMA_PORT", "2")
    assert Settings.load().port == 2
    assert Settings.load(port=3).port == 3
    assert Settings.load(port=None).port == 2
    assert Settings.load().queue_limit == 7


def test_file_named_by_the_environment(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "other.toml").write_text('max_upload = "3MiB"\n')
    monkeypatch.setenv("GAMMA_CONFIG", str(elsewhere / "other.toml"))
    assert Settings.load().max_upload == 3 * 2**20


def test_unknown_key_in_the_file_is_an_error(elsewhere: Path) -> None:
    (elsewhere / "gamma.toml").write_text("prot = 1\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings.load()


def test_out_of_range_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMA_MAX_BATCH", "0")
    with pytest.raises(ValidationError, match="max_batch"):
        Settings.load()


def test_secret_file_is_read_and_never_shown(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "gamma_redis_url").write_text("redis://:hush@somewhere/0")
    monkeypatch.setenv("GAMMA_SECRETS_DIR", str(elsewhere))
    settings = Settings.load()
    assert settings.required_redis_url == "redis://:hush@somewhere/0"
    assert "hush" not in repr(settings)


def test_keys_and_rate_limit_from_every_source(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load().api_keys is None
    assert Settings.load().rate_limit is None
    keys = [f"{name}=secret-of-{name}-0123456789" for name in "abc"]
    (elsewhere / "gamma.toml").write_text(f'api_keys = {keys[:2]}\nrate_limit = "5/day"\n')
    assert Settings.load().api_keys == Keys.parse(keys[:2])
    assert Settings.load().rate_limit == RateLimit(5, 86_400)
    (elsewhere / "gamma_api_keys").write_text("\n".join(keys[1:]) + "\n")
    monkeypatch.setenv("GAMMA_SECRETS_DIR", str(elsewhere))
    assert Settings.load().api_keys == Keys.parse(keys[1:])
    monkeypatch.setenv("GAMMA_API_KEYS", keys[0])
    assert Settings.load().api_keys == Keys.parse(keys[0])


def test_a_file_without_keys_is_an_error_and_an_empty_variable_is_none(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAMMA_API_KEYS", "")
    monkeypatch.setenv("GAMMA_RATE_LIMIT", "")
    assert Settings.load().api_keys is None
    (elsewhere / "gamma_api_keys").write_text("\n")
    monkeypatch.setenv("GAMMA_SECRETS_DIR", str(elsewhere))
    with pytest.raises(ValidationError, match="no key"):
        Settings.load()


def test_an_error_does_not_show_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMA_API_KEYS", "alice:hush-hush-hush-hush")
    monkeypatch.setenv("GAMMA_RATE_LIMIT", "much")
    with pytest.raises(ValidationError) as error:
        Settings.load()
    assert "api_keys" in str(error.value)
    assert "600/minute" in str(error.value)
    assert "hush" not in str(error.value)


def test_redis_url_is_needed_where_it_is_used() -> None:
    with pytest.raises(RedisUrlMissingError):
        _ = Settings.load().required_redis_url


def test_a_misspelt_variable_is_an_error_with_a_suggestion(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAMMA_QUEUE_LIMT", "hush")
    monkeypatch.setenv("GAMMA_XYZZY", "hush")
    (elsewhere / "gamma_redis_ulr").write_text("hush")
    (elsewhere / "grafana_password").write_text("hush")
    monkeypatch.setenv("GAMMA_SECRETS_DIR", str(elsewhere))
    with pytest.raises(UnknownSettingError) as error:
        Settings.load()
    assert sorted(str(error.value).splitlines()) == [
        "GAMMA_QUEUE_LIMT is not a setting; did you mean GAMMA_QUEUE_LIMIT?",
        "GAMMA_XYZZY is not a setting",
        "the secret file gamma_redis_ulr is not a setting; did you mean gamma_redis_url?",
    ]


SERVICE_LINKS = {
    "GAMMA_SERVICE_HOST": "10.0.0.1",
    "GAMMA_SERVICE_PORT": "8000",
    "GAMMA_REDIS_SERVICE_HOST": "10.0.0.2",
    "GAMMA_REDIS_SERVICE_PORT": "6379",
    "GAMMA_REDIS_SERVICE_PORT_REDIS": "6379",
    "GAMMA_REDIS_PORT": "tcp://10.0.0.2:6379",
    "GAMMA_API_PORT_8000_TCP": "tcp://10.0.0.3:8000",
    "GAMMA_API_PORT_8000_TCP_PROTO": "tcp",
    "GAMMA_API_PORT_8000_TCP_PORT": "8000",
    "GAMMA_API_PORT_8000_TCP_ADDR": "10.0.0.3",
}


def test_kubernetes_service_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GAMMA_KEY", "of a client")
    assert Settings.load().port == 8000
    monkeypatch.setenv("GAMMA_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(UnknownSettingError, match=r"^GAMMA_PORT .*enableServiceLinks"):
        Settings.load()
    monkeypatch.delenv("GAMMA_PORT")
    monkeypatch.setenv("GAMMA_REDIS_PORT", "6379")
    with pytest.raises(UnknownSettingError, match="GAMMA_REDIS_PORT"):
        Settings.load()
