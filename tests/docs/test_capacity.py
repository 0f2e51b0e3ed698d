"""docs/capacity.md: its tables, and its formula beside a simulation."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.capacity import Device, simulate, tables, wait

PAGE = (Path(__file__).parents[2] / "docs" / "capacity.md").read_text()


def test_the_page_has_the_tables_of_its_formulas() -> None:
    for table in tables().split("\n\n"):
        assert table in PAGE


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.9])
@pytest.mark.parametrize("device", [Device(1, 0.5), Device(8, 0.08), Device(32, 0.1)], ids=str)
def test_the_wait_before_one_worker(device: Device, share: float) -> None:
    rate = share * device.rate
    simulated = simulate(rate, device, 1, arrivals=20_000, seed=2)
    assert wait(rate, 1, device, 1) == pytest.approx(simulated, rel=0.15)


@pytest.mark.parametrize(("device", "count"), [(Device(1, 0.5), 3), (Device(8, 0.08), 4)], ids=str)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_before_several_workers_it_is_rarely_longer(
    device: Device, count: int, share: float
) -> None:
    rate = share * count * device.rate
    simulated = simulate(rate, device, count, arrivals=20_000, seed=2)
    assert simulated < 1.3 * wait(rate, 1, device, count)


def test_a_load_beyond_what_they_can_do_waits_for_ever() -> None:
    device = Device(8, 0.08)
    assert wait(101, 1, device, 1) == float("inf")
    assert wait(17, 6, device, 1) == float("inf")
