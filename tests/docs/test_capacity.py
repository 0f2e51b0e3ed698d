"""docs/capacity.md: its tables, and its formula compared with a simulation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


WITHOUT_TESTS = """
import runpy, sys
sys.modules |= dict.fromkeys(["pytest", "tests"])
runpy.run_module("benchmarks.capacity", run_name="__main__")
"""


def run(*arguments: str) -> str:
    """Output of the command as from the README's installation, without pytest."""
    command = [sys.executable, "-c", WITHOUT_TESTS, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("check").splitlines()]


def test_the_page_has_the_tables_of_its_formulas() -> None:
    page = (ROOT / "docs/capacity.md").read_text()
    tables = run().strip().split("\n\n")
    assert len(tables) == 2
    for table in tables:
        assert table in page


def test_the_wait_for_one_worker(cases: list[dict[str, Any]]) -> None:
    found = [case for case in cases if case["workers"] == 1 and case["load"] < 1]
    assert len(found) == 12
    for case in found:
        assert case["formula"] == pytest.approx(case["simulated"], rel=0.15), case


def test_for_several_workers_it_is_rarely_longer(cases: list[dict[str, Any]]) -> None:
    found = [case for case in cases if case["workers"] > 1]
    assert len(found) == 6
    for case in found:
        assert case["simulated"] < 1.3 * case["formula"], case


def test_an_overload_waits_forever(cases: list[dict[str, Any]]) -> None:
    found = [case["formula"] for case in cases if case["load"] > 1]
    assert found == [float("inf"), float("inf")]
