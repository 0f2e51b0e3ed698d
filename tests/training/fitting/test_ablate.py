"""The paper's ablation tables as runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from training.config import ConfigError, Settings, differences, load
from training.data.labels import Kind
from training.fitting.ablate import TABLES, ablate, expand

CONFIGS = Path(__file__).parents[3] / "configs"
ALL = tuple(TABLES)


@pytest.fixture
def paper() -> Settings:
    return load(CONFIGS / "paper.toml")


def test_paper_recipe_is_in_every_table_but_one(paper: Settings, tmp_path: Path) -> None:
    for table in ALL:
        folders = [run.folder.parent.name for run in expand(paper, [table], 1, tmp_path)]
        assert len(folders) == len(set(folders)) == len(TABLES[table][1])
        assert ("base" in folders) == (table != 5)


def test_equal_rows_share_a_run(paper: Settings, tmp_path: Path) -> None:
    runs = list(expand(paper, ALL, 2, tmp_path))
    rows = sum(len(variants) for _, variants in TABLES.values())
    shared = 3 + 2  # the recipe in tables 4, 6, 7, 8; two training sets in 5 and 6
    assert len(runs) == 2 * (rows - shared)
    assert [run.settings.train.seed for run in runs[:2]] == [0, 1]
    assert len({run.folder for run in runs}) == len(runs)


def test_rows_change_the_stated_settings(paper: Settings, tmp_path: Path) -> None:
    runs = {run.folder.parent.name: run.settings for run in expand(paper, ALL, 1, tmp_path)}
    assert differences(paper, runs["table-8-forward"]) == [
        "model.cross_attention: reverse -> forward"
    ]
    assert runs["table-7-2-3-1"].model.ai_weight == 3
    assert runs["table-4-classification"].model.heads == "none"
    assert runs["table-5-0-1"].labels.splice == 1
    without_blended = runs["table-5-0-0"].data.kinds
    assert Kind.BLENDED not in without_blended
    assert Kind.SPLICE in without_blended
    assert Kind.SPLICE not in runs["table-6-inpainting-blended"].data.kinds


def test_unknown_table_is_named(paper: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="table 9"):
        list(expand(paper, [9], 1, tmp_path))


def test_tables_show_results_next_to_paper(
    configure: Callable[..., Settings], tree: Path, tmp_path: Path
) -> None:
    base, console = configure("train.log_every=9"), Console(stderr=True)
    out = tmp_path / "out"
    for seeds in (1, 2):  # the second time, what is there stays
        assert ablate(base, [4], seeds, out, [tree], "validation", console)
    text = (out / "ablation.md").read_text()
    assert "## Table 4: segmentation heads" in text
    assert "| + manipulation + AI | 93.20 | " in text
    assert " ± " in text
    report = json.loads((out / "ablation.json").read_text())
    assert [len(row["runs"]) for row in report["4"]] == [2, 2, 2, 2]
    assert {run["pictures"] for row in report["4"] for run in row["runs"]} == {12}
