"""Command line > environment > file > default."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import RedisUrlMissingError, Settings


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


def test_redis_url_is_needed_where_it_is_used() -> None:
    with pytest.raises(RedisUrlMissingError):
        _ = Settings.load().required_redis_url
