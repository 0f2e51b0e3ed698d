"""Sets, suites and splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.conftest import make_tree
from training.data import manifest
from training.measuring.suites import SuiteError, check_sizes, load_sets


def test_set_name_is_folder_or_file_name(tree: Path) -> None:
    other = tree.with_name("genimage.jsonl")
    manifest.write(manifest.read(tree), other)
    sets = load_sets([tree, other], "validation")
    assert [s.name for s in sets] == ["data", "genimage"]
    assert all(row.split == "validation" for s in sets for row in s.rows)


def test_suite_paths_are_relative_to_its_file(tree: Path, tmp_path: Path) -> None:
    make_tree(tmp_path / "more", 1)
    suite = tmp_path / "suite.toml"
    suite.write_text('[sets]\nfirst = "data/manifest.jsonl"\nsecond = "more/manifest.jsonl"\n')
    sets = load_sets([suite], "train")
    assert {s.name: len(s.rows) for s in sets} == {"first": 12, "second": 6}
    assert sets[1].folder == tmp_path / "more"
    with pytest.raises(SuiteError, match="two sets are called 'first'"):
        load_sets([suite, suite], "train")


def test_manifest_without_splits_is_used_whole(tree: Path) -> None:
    rows = [row.model_copy(update={"split": None}) for row in manifest.read(tree)]
    manifest.write(rows, tree)
    assert len(load_sets([tree], "test")[0].rows) == len(rows)


def test_empty_split_error_lists_available_splits(tree: Path) -> None:
    with pytest.raises(SuiteError, match=r"no rows of split test \(12 train, 12 validation\)"):
        load_sets([tree], "test")


@pytest.mark.parametrize(
    ("text", "message"), [("sets = 3", "sets"), ("[sets", "suite.toml"), ("[set]", "extra")]
)
def test_invalid_suite_error_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(text)
    with pytest.raises(SuiteError, match=message):
        load_sets([suite], "test")
    with pytest.raises(SuiteError, match="absent"):
        load_sets([tmp_path / "absent.jsonl"], "test")


def test_too_large_crop_error_names_the_maximum(tree: Path) -> None:
    sets = load_sets([tree], "train")
    check_sizes(sets, 96)
    check_sizes(sets, None)
    with pytest.raises(SuiteError, match="11 more; the largest possible crop is 96"):
        check_sizes(sets, 97)
