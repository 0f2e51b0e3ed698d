"""Damaged files of every format: refused or read, and nothing else happens.

`FUZZ_SEED` and `FUZZ_CASES` choose others: `FUZZ_SEED=7 FUZZ_CASES=20000 pytest
tests/app/test_fuzz.py -k decoders`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.app import fuzzing
from tests.conftest import Serve, encode, photo

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CASES = int(os.environ.get("FUZZ_CASES", "6000"))
UPLOADS = 80
MOST_GROWTH = 64  # MiB


@pytest.mark.slow
@pytest.mark.timeout(400)  # seconds of work; but a busy machine is not a hang
def test_decoders_only_read_or_refuse() -> None:
    child = subprocess.run(
        [sys.executable, "-m", "tests.app.fuzzing", str(SEED), str(CASES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = child.stdout.splitlines()
    ended = signal.Signals(-child.returncode).name if child.returncode < 0 else child.returncode
    assert child.returncode == 0, (
        f"{ended} in FUZZ_SEED={SEED}, case {lines[-1:]}:\n{child.stderr[-4000:]}"
    )
    result = json.loads(lines[-1])
    assert result["growth"] < MOST_GROWTH, f"FUZZ_SEED={SEED}: grew by {result['growth']:.0f} MiB"
    assert sum(result["outcomes"].values()) == CASES
    # Faults of every depth were made, or nothing of the above means much.
    for outcome in ("not_an_image", "image_truncated", "image_undecodable", "too_many_pixels"):
        assert result["outcomes"][outcome] > CASES / 1000
    for outcome in ("TruncatedPictureError", "UndecodablePictureError", "decoded"):
        assert result["outcomes"][outcome] > CASES / 100


def test_the_same_seed_makes_the_same_files() -> None:
    files = fuzzing.originals()
    assert files == fuzzing.originals()
    once = [fuzzing.damaged(files, SEED, case) for case in range(200)]
    assert once == [fuzzing.damaged(files, SEED, case) for case in range(200)]
    assert len(set(once)) > 195
    assert once != [fuzzing.damaged(files, SEED + 1, case) for case in range(200)]


@pytest.mark.timeout(400)
def test_the_service_only_accepts_or_refuses(service: Serve, client: httpx2.Client) -> None:
    processes = [  # decoders may end, and are replaced
        process
        for process in psutil.Process(service.process.pid).children(recursive=True)
        if "pictures.process" not in process.cmdline()
    ]
    files = fuzzing.originals()
    accepted, refused = [], 0
    for case in range(UPLOADS):
        data = fuzzing.damaged(files, SEED, case)
        answer = client.post(
            "/v1/detections", files={"file": data or b"-"}, data={"view": "center"}
        )
        assert answer.status_code in (202, 400, 413, 415, 422), (SEED, case, answer.text)
        if answer.status_code == 202:
            location = answer.headers["location"]
            accepted.append((case, location))
            shown = client.get(f"{location}/image", params={"size": 32})
            assert shown.status_code in (200, 422), (SEED, case, shown.text)
        else:
            refused += 1
    assert len(accepted) > UPLOADS / 10
    assert refused > UPLOADS / 10
    deadline = time.monotonic() + 300
    for case, location in accepted:
        while (record := client.get(location).json())["status"] in ("queued", "processing"):
            assert time.monotonic() < deadline, (SEED, case, record)
            time.sleep(0.05)
        assert record["status"] in ("succeeded", "failed"), (SEED, case, record)
        if record["status"] == "failed":
            assert record["error"]["code"] in (
                "image_truncated",
                "image_undecodable",
                "decoding_aborted",
            ), (
                SEED,
                case,
                record,
            )
    good = client.post(
        "/v1/detections",
        files={"file": encode(photo(300, 200, seed=9))},
        headers={"Prefer": "wait=60"},
    )
    assert good.status_code == 200, good.text
    assert good.json()["status"] == "succeeded"
    assert [process.pid for process in processes if not process.is_running()] == []
