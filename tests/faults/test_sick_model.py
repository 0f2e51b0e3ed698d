"""A model that answers with NaN, or wrongly, says nothing about pictures, and is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from app.command.doctor import machine
from app.command.doctor.findings import State
from app.contract import records
from app.contract.schemas import Detection, ErrorCode, Status, View
from app.contract.settings import Settings
from app.http import metrics
from app.http.service import Order, Service
from model import checkpoint
from model.checkpoint import WEIGHTS_FILE
from model.config import GammaConfig
from model.network import GammaModel
from tests.conftest import encode, free_port
from tests.faults.house import GOOD, LIMIT, OWNER, House
from tests.faults.worker import ODD

pytestmark = pytest.mark.timeout(600)

STRANGE = encode(Image.new("RGB", (32, 32), ODD), "PNG")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The weights of a small checkpoint without a canary."""
    torch.manual_seed(0)
    fields = {"backbone": "mit_b0", "decoder_channels": 32, "crop_size": 64, "version": "1"}
    checkpoint.save(GammaModel(GammaConfig(**fields)), tmp_path / "checkpoint")
    return tmp_path / "checkpoint" / WEIGHTS_FILE


def change(weights: Path, names: list[str], factor: float) -> None:
    tensors = load_file(weights)
    assert names
    for name in names:
        tensors[name] = tensors[name] * factor
    save_file(tensors, weights)


def work(house: House, weights: Path) -> subprocess.CompletedProcess[str]:
    """Let a real `gamma worker` with this checkpoint empty the queue."""
    return subprocess.run(
        [sys.executable, "-m", "app", "worker", "--burst"],
        env={
            **os.environ,
            "GAMMA_REDIS_URL": house.url,
            "GAMMA_METRICS_PORT": str(free_port()),
            "GAMMA_CHECKPOINT": str(weights.parent),
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def sick(house: House) -> float:
    """What the API's metrics say."""
    families = metrics._House(Settings(redis_url=house.url)).collect()
    (found,) = (one for one in families if one.name == "gamma_model_sick")
    return float(found.samples[0].value)


def test_a_checkpoint_with_nan_gives_no_result_and_one_that_is_repaired_does(
    house: House, weights: Path
) -> None:
    whole = weights.read_bytes()
    settings = Settings(redis_url=house.url, checkpoint=str(weights.parent))
    service = Service(settings, house.store, house.jobs, house.service.events)

    def submit() -> Detection:
        return service.submit(Order(OWNER, GOOD, View.CENTER))

    change(
        weights, [name for name in load_file(weights) if "mask_classifier" in name][:3], torch.nan
    )
    name = submit().id
    assert sick(house) == 0
    answer = work(house, weights)
    assert answer.returncode == 1
    assert "model_sick" in answer.stderr
    assert "NaN model" in answer.stderr
    assert house.record(name).status is Status.QUEUED
    assert house.tries_left([name]) == {2}
    assert sick(house) == 1  # GammaModelSick fires
    (finding,) = machine.model(settings)
    assert finding.state is State.WRONG
    assert "NaN model" in finding.found

    weights.write_bytes(whole)
    assert work(house, weights).returncode == 0
    repaired = house.record(name)
    assert repaired.status is Status.SUCCEEDED
    assert repaired.ai_probability is not None
    assert repaired.model is not None
    assert repaired.model.digest == checkpoint.digest(weights.parent)
    assert (machine.model(settings)[0].state, finding.subject) == (State.OK, "model")

    # Other weights that call themselves the same: what is known of the picture answers nothing.
    change(weights, ["classifier.weight"], 2)
    model = repaired.model.model_copy(update={"digest": checkpoint.digest(weights.parent)})
    assert model != repaired.model
    house.redis.set(records.MODEL_KEY, records.model_tag(repaired.model))
    assert submit().cached
    house.redis.set(records.MODEL_KEY, records.model_tag(model))
    assert not submit().cached


def test_a_worker_with_a_sick_model_ends_though_redis_is_full(house: House, weights: Path) -> None:
    change(weights, ["classifier.weight"], torch.nan)
    house.redis.config_set("maxmemory", 1)
    try:
        answer = work(house, weights)
    finally:
        house.redis.config_set("maxmemory", 2**28)
    assert answer.returncode == 1
    assert "model_sick" in answer.stderr


def test_a_model_that_turns_sick_at_work_costs_no_picture_its_tries(house: House) -> None:
    names = house.submit(*[GOOD] * 12)
    orders = house.worker(max_batch=4, nan_at=3)
    house.process(orders).join(LIMIT)
    assert house.process(orders).exitcode == 1, house.end_of_log()
    assert "ModelSickError" in house.log()
    assert house.store.live_workers() == []
    left = [name for name in names if house.record(name).status is not Status.SUCCEEDED]
    assert left
    assert house.started() == 0
    assert house.tries_left(left) == {2}
    assert house.end(house.worker(burst=True), terminate=False) == 0
    house.account(f"{len(left)} given back by a sick model", names, succeeded=12)


def test_an_idle_worker_finds_that_its_model_says_something_else(house: House) -> None:
    orders = house.worker(wrong_at=2, idle_check=0.2)
    house.process(orders).join(LIMIT)
    assert house.process(orders).exitcode == 1, house.end_of_log()
    assert "instead of 0.500" in house.log()
    assert house.store.live_workers() == []


def test_pictures_that_come_now_and_then_do_not_put_the_check_off(house: House) -> None:
    orders = house.worker(wrong_at=3, idle_check=1.0)
    process = house.process(orders)
    house.wait(lambda: house.submit(GOOD) and not process.is_alive(), 20)
    assert process.exitcode == 1
    assert "instead of 0.500" in house.log()


def test_a_picture_that_a_healthy_model_cannot_judge_fails_alone(house: House) -> None:
    names = house.submit(GOOD, STRANGE, GOOD, GOOD)
    orders = house.worker(max_batch=4)
    house.wait_until_final(names)
    assert house.end(orders) == 0
    error = house.record(names[1]).error
    assert error is not None
    assert error.code is ErrorCode.MODEL_OUTPUT_INVALID
    house.account("one picture without finite outputs", names, succeeded=3, failed=1)


def test_several_in_a_row_make_the_worker_count_as_sick(house: House) -> None:
    names = house.submit(*[STRANGE] * 3)
    ends = 0
    while house.end(house.worker(max_batch=4, burst=True), terminate=False):
        ends += 1
        assert ends <= 3
    assert ends
    assert "3 pictures in a row are not finite" in house.log()
    house.account(f"{ends} workers gave up", names, failed=3)
    assert {house.record(name).error.code for name in names} == {ErrorCode.MODEL_OUTPUT_INVALID}
