"""`gamma serve` starts a worker for each device that torch reports.

A stub module replaces torch in the child process that counts devices.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from app.command import supervisor
from app.contract.settings import Settings

_TORCH = """
import os
visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3")
class cuda:
    def device_count(): return len([name for name in visible.split(",") if name])
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a driver and four devices."""
    (tmp_path / "torch.py").write_text(_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(supervisor, "_NVIDIA_DRIVERS", (tmp_path,))


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("2,3", ["cuda:0", "cuda:1"]),  # torch numbers the visible devices from 0
        ("1", ["cuda:0"]),
        ("", ["auto"]),
    ],
)
def test_each_visible_device_is_listed(
    visible: str | None, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert supervisor.devices("auto") == found


@pytest.mark.usefixtures("driver")
def test_explicit_device_is_used_unchecked() -> None:
    assert supervisor.devices("cuda:3") == ["cuda:3"]
    assert supervisor.devices("cpu") == ["cpu"]


@pytest.mark.usefixtures("driver")
def test_one_worker_per_device_with_its_own_metrics_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    children = supervisor._workers(
        Settings(metrics_port=9400, stop_timeout=77), {"GAMMA_QUEUE": "gamma"}
    )
    assert {child.drain for child in children} == {77}
    for number, child in enumerate(children):
        name, arguments, environment = child.name, child.arguments, child.environment
        assert name == ("worker", "worker-1")[number]
        assert arguments == ["worker"]
        assert environment["GAMMA_DEVICE"] == f"cuda:{number}"
        assert environment["GAMMA_METRICS_PORT"] == str(9401 + number)
        assert environment["GAMMA_QUEUE"] == "gamma"
    assert len(children) == 2


def test_without_a_driver_torch_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_NVIDIA_DRIVERS", (tmp_path / "none",))
    monkeypatch.setattr(supervisor, "_COUNT_DEVICES", "raise SystemExit(1)")
    assert supervisor.devices("auto") == ["auto"]
