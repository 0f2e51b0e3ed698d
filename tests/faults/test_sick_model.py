"""A model with NaN or wrong outputs is detected and gives no results."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from app.command.doctor import machine
from app.command.doctor.findings import State
from app.contract import records
from app.contract.schemas import Detection, ErrorCode, Status
from app.contract.settings import Settings
from app.contract.submission import Submission
from app.http import metrics
from app.http.service import Service
from model import checkpoint
from model.checkpoint import WEIGHTS_FILE
from model.config import GammaConfig
from model.network import GammaModel
from pictures.findings import View
from tests.conftest import encode, free_port
from tests.faults.stack import GOOD, LIMIT, OWNER, Stack
from tests.faults.worker import NAN_COLOUR
from tests.forks import gamma

pytestmark = pytest.mark.timeout(600)

NAN_PICTURE = encode(Image.new("RGB", (32, 32), NAN_COLOUR), "PNG")


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


def work(stack: Stack, weights: Path, **environment: str) -> CompletedProcess[str]:
    """Run `gamma worker` with this checkpoint until the queue is empty."""
    return gamma(
        *("worker", "--burst", "--checkpoint", str(weights.parent)),
        GAMMA_REDIS_URL=stack.url,
        GAMMA_METRICS_PORT=str(free_port()),
        **environment,
    )


def sick(stack: Stack, what: str = "gamma_model_sick") -> float:
    """The value of a metric of the API."""
    families = metrics._QueueCollector(Settings(redis_url=stack.url)).collect()
    (found,) = (one for one in families if one.name == what)
    return float(found.samples[0].value)


def test_failed_device_is_seen_after_its_worker_has_ended(stack: Stack, weights: Path) -> None:
    assert sick(stack, "gamma_device_failed") == 0
    ended = work(stack, weights, GAMMA_DEVICE="cuda:99")
    assert ended.returncode == 1
    assert "cannot be used" in ended.stderr
    assert (sick(stack, "gamma_device_failed"), sick(stack)) == (1, 0)


def test_checkpoint_with_nan_gives_no_result_until_it_is_repaired(
    stack: Stack, weights: Path
) -> None:
    whole = weights.read_bytes()
    settings = Settings(redis_url=stack.url, checkpoint=str(weights.parent))
    service = Service(settings, stack.store, stack.jobs, stack.service.events)

    def submit() -> Detection:
        return service.submit(Submission(OWNER, GOOD, View.CENTER))

    change(
        weights, [name for name in load_file(weights) if "mask_classifier" in name][:3], torch.nan
    )
    name = submit().id
    assert sick(stack) == 0
    answer = work(stack, weights)
    assert answer.returncode == 1
    assert "model_sick" in answer.stderr
    assert "NaN model" in answer.stderr
    assert stack.record(name).status is Status.QUEUED
    assert stack.retries_left([name]) == {2}
    assert sick(stack) == 1  # GammaModelSick fires
    (finding,) = machine.model(settings)
    assert finding.state is State.WRONG
    assert "NaN model" in finding.found

    weights.write_bytes(whole)
    assert work(stack, weights).returncode == 0
    repaired = stack.record(name)
    assert repaired.status is Status.SUCCEEDED
    assert repaired.ai_probability is not None
    assert repaired.model is not None
    assert repaired.model.digest == checkpoint.digest(weights.parent)
    assert (machine.model(settings)[0].state, finding.subject) == (State.OK, "model")

    # Other weights with the same name and version: the cached result is not used.
    change(weights, ["classifier.weight"], 2)
    model = repaired.model.model_copy(update={"digest": checkpoint.digest(weights.parent)})
    assert model != repaired.model
    stack.redis.set(records.MODEL_KEY, records.model_tag(repaired.model))
    assert submit().cached
    stack.redis.set(records.MODEL_KEY, records.model_tag(model))
    assert not submit().cached


def test_worker_with_a_sick_model_ends_even_if_redis_is_full(stack: Stack, weights: Path) -> None:
    change(weights, ["classifier.weight"], torch.nan)
    stack.redis.config_set("maxmemory", 1)
    try:
        answer = work(stack, weights)
    finally:
        stack.redis.config_set("maxmemory", 2**28)
    assert answer.returncode == 1
    assert "model_sick" in answer.stderr


def test_model_that_becomes_sick_uses_no_retries(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 12)
    options = stack.worker(max_batch=4, nan_at=3)
    stack.process(options).join(LIMIT)
    assert stack.process(options).exitcode == 1, stack.end_of_log()
    assert "ModelSickError" in stack.log()
    assert stack.store.workers.live() == []
    left = [name for name in names if stack.record(name).status is not Status.SUCCEEDED]
    assert left
    assert stack.started() == 0
    assert stack.retries_left(left) == {2}
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    stack.assert_outcome(f"{len(left)} put back by a sick model", names, succeeded=12)


def test_idle_worker_detects_wrong_outputs(stack: Stack) -> None:
    options = stack.worker(wrong_at=2, idle_check=0.2)
    stack.process(options).join(LIMIT)
    assert stack.process(options).exitcode == 1, stack.end_of_log()
    assert "instead of 0.500" in stack.log()
    assert stack.store.workers.live() == []


def test_occasional_pictures_do_not_postpone_the_check(stack: Stack) -> None:
    options = stack.worker(wrong_at=3, idle_check=1.0)
    process = stack.process(options)
    stack.wait(lambda: stack.submit(GOOD) and not process.is_alive())
    assert process.exitcode == 1
    assert "instead of 0.500" in stack.log()


def test_picture_with_nonfinite_outputs_fails_alone(stack: Stack) -> None:
    names = stack.submit(GOOD, NAN_PICTURE, GOOD, GOOD)
    options = stack.worker(max_batch=4)
    stack.wait_until_final(names)
    assert stack.end(options) == 0
    error = stack.record(names[1]).error
    assert error is not None
    assert error.code is ErrorCode.MODEL_OUTPUT_INVALID
    stack.assert_outcome("one picture without finite outputs", names, succeeded=3, failed=1)


def test_consecutive_nonfinite_outputs_make_the_model_sick(stack: Stack) -> None:
    names = stack.submit(*[NAN_PICTURE] * 3)
    ends = 0
    while stack.end(stack.worker(max_batch=4, burst=True), terminate=False):
        ends += 1
        assert ends <= 3
    assert ends
    assert "3 consecutive pictures are not finite" in stack.log()
    stack.assert_outcome(f"{ends} workers gave up", names, failed=3)
    assert {stack.record(name).error.code for name in names} == {ErrorCode.MODEL_OUTPUT_INVALID}
