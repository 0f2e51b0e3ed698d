"""Redis has little memory: accepted pictures have room for their results."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from redis.exceptions import OutOfMemoryError

from app.command.embedded import private_redis
from app.contract.schemas import Head
from app.http.admission import AdmissionControl
from app.http.problems import ServiceError
from tests.conftest import encode
from tests.faults.stack import OWNER, Stack, opened

SIDE = 220  # pixels; 8 x 8 crops at their own size
MEMORY = 10 * 2**20  # bytes, in addition to what an empty Redis uses
SENT = 80


def noisy(seed: int) -> bytes:
    """A picture of about 145 kB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def send(stack: Stack, count: int) -> list[str]:
    """Upload until the storage is full; returns the ids of the accepted pictures."""
    control = AdmissionControl(stack.service.settings, stack.redis, stack.service.directory)
    accepted: list[str] = []
    for number in range(count):
        refusal = control.admit(OWNER).refusal
        try:
            if refusal is None:
                accepted += stack.submit(noisy(number))
        except ServiceError as error:
            refusal = error
        except OutOfMemoryError:
            return accepted
        if refusal is not None:
            assert refusal.code == "storage_full"
            return accepted
    return accepted


def test_all_accepted_pictures_succeed_even_if_a_worker_is_killed(tmp_path: Path) -> None:
    with private_redis(tmp_path / "data", 2**28) as (url, _), opened(url, tmp_path) as stack:
        used = stack.redis.info("memory")["used_memory"]
        stack.redis.config_set("maxmemory", used + MEMORY)
        names = send(stack, SENT)
        assert 20 < len(names) < SENT
        first = stack.worker(noise=True)
        stack.wait(lambda: len(stack.finished) > 8)
        stack.process(first).kill()
        stack.process(first).join()
        stack.abandon_all()
        stack.worker(noise=True)
        stack.wait_until_final(names)
        stack.assert_outcome(f"{len(names)} of {SENT} accepted", names, succeeded=len(names))
        for name in names:
            for head in Head:
                mask = stack.store.get_mask(name, head)
                assert mask is not None
                assert Image.open(io.BytesIO(mask)).size == (SIDE, SIDE)
        assert stack.redis.zcard("gamma:reservations") == 0
        assert len(send(stack, 1)) == 1, "unused reservations are released"
