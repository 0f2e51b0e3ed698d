"""Deleted and expired data is removed from Redis's files in time."""

from __future__ import annotations

import resource
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from app.command.embedded import private_redis
from app.http.aof_rewriter import AofRewriter
from tests.app.receiver import wait_for
from tests.conftest import Serve, encode, photo

WITHIN = 2  # s
RETENTION = 24  # s; long enough to look at what is kept


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Serve]:
    running = Serve(
        tmp_path_factory.mktemp("erasure") / "data",
        GAMMA_CHECKPOINT=str(small_model),
        GAMMA_ERASE_WITHIN=str(WITHIN),
        GAMMA_RETENTION=str(RETENTION),
    )
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


def in_files(folder: Path, secret: bytes) -> bool:
    """Whether any part of 64 bytes is in any file.

    Redis compresses what it can when it writes its file anew: bytes that no compression shortens
    stand in it in pieces of 32 at most.
    """
    assert len(secret) == 64
    pieces = [secret[start : start + 8] for start in range(0, 64, 8)]
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return any(piece in content for piece in pieces for content in contents)


def upload(client: httpx2.Client, seed: int) -> tuple[str, dict[str, bytes]]:
    """A detection, and what must not be found in any file once it is gone: 64 bytes of each."""
    canary = secrets.token_bytes(64)
    picture = encode(photo(512, 384, seed), comment=canary)
    answer = client.post("/v1/detections", files={"file": picture}, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    record = answer.json()
    parts = {"picture": canary}
    for head in ("ai", "manipulation"):
        mask = client.get(record["masks"][head]["mask_url"]).content
        middle = len(mask) // 2
        parts[head] = mask[middle : middle + 64]
    return record["id"], parts


def test_deleted_and_expired_pictures_are_erased_from_all_files(serving: Serve) -> None:
    folder = serving.data_dir
    with serving.client() as client:
        gone, gone_parts = upload(client, 21)
        kept, kept_parts = upload(client, 22)
        deadline = time.time() + RETENTION
        for part in (*gone_parts.values(), *kept_parts.values()):
            wait_for(lambda part=part: in_files(folder, part))
        assert client.delete(f"/v1/detections/{gone}").status_code == 204
        for name, part in gone_parts.items():
            wait_for(lambda part=part: not in_files(folder, part))
            assert client.get(f"/v1/detections/{gone}").status_code == 404, name
        if time.time() < deadline - 1:  # the search finds what is there after a rewrite too
            assert all(in_files(folder, part) for part in kept_parts.values())
        wait_for(lambda: client.get(f"/v1/detections/{kept}").json()["status"] == "expired")
        for part in kept_parts.values():
            wait_for(lambda part=part: not in_files(folder, part))


def test_files_are_readable_by_the_owner_only(serving: Serve) -> None:
    paths = [serving.data_dir, *serving.data_dir.rglob("*")]
    assert any(path.suffix == ".aof" for path in paths)
    for path in paths:
        if path.name != "serve.lock":  # empty
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_permissions_of_old_files_are_fixed(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir").chmod(0o755)
    with private_redis(tmp_path, 2**26):
        assert stat.S_IMODE((tmp_path / "appendonlydir").stat().st_mode) == 0o700


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with private_redis(tmp_path / "data", 2**26) as (url, _), Redis.from_url(url) as connected:
        yield connected


def rewrites(redis: Redis) -> int:
    wait_for(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])
    return redis.info("persistence")["aof_rewrites"]


def test_several_processes_rewrite_once(redis: Redis) -> None:
    processes = [AofRewriter(redis, 60) for _ in range(3)]
    before = rewrites(redis)
    for process in processes:
        process.rewrite_if_due()
    assert rewrites(redis) == before + 1
    assert redis.pttl("gamma:erasure") > 20_000


def test_rewrite_is_repeated_in_time(redis: Redis) -> None:
    process = AofRewriter(redis, 1)
    before = rewrites(redis)
    process.rewrite_if_due()
    assert rewrites(redis) == before + 1
    wait_for(lambda: not redis.exists("gamma:erasure"))
    process.rewrite_if_due()
    assert rewrites(redis) == before + 2


def test_crash_before_a_rewrite_delays_it_briefly(redis: Redis) -> None:
    process = AofRewriter(redis, 60)
    redis.config_set("appendonly", "no")
    process.rewrite_if_due()
    assert 0 < redis.pttl("gamma:erasure") <= 1500
    assert rewrites(redis) == 0


def test_failed_rewrite_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with private_redis(tmp_path, 2**26) as (url, server), Redis.from_url(url) as redis:
        redis.set("large", secrets.token_bytes(3 * 2**20))
        redis.bgrewriteaof()
        rewrites(redis)
        resource.prlimit(
            server.process.pid, resource.RLIMIT_FSIZE, (2**20, 2**20)
        )  # as a full disk
        redis.bgrewriteaof()
        wait_for(lambda: redis.info("persistence")["aof_last_bgrewrite_status"] == "err")
        AofRewriter(redis, 60).rewrite_if_due()
        assert "erasure_failed" in capsys.readouterr().out
