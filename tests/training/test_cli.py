"""Errors of commands: what a user can fix is one line, everything else a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import app
from training.data import manifest


def fails(*arguments: object) -> str:
    """Run a command that must fail, and return its one line."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("gamma-train: ")
    return lines[-1]


@pytest.mark.parametrize("command", ["audit", "split"])
def test_manifest_that_is_not_utf8(tmp_path: Path, command: str) -> None:
    file = tmp_path / "manifest.jsonl"
    file.write_bytes(b'{"path": "\xff"}\n')
    options = ["--out", tmp_path / "out.jsonl"] if command == "split" else []
    assert f"{file}: row 1" in fails("data", command, file, *options)


def test_table_that_is_not_parquet(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    table.write_bytes(b"nothing")
    assert str(table) in fails("data", "import", "coco-inpaint", tmp_path, "--table", table)


def test_checkpoint_that_is_missing(tree: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    line = fails("evaluate", empty, tree, "--split", "validation", "--out", tmp_path / "out")
    assert "config.json: missing" in line


def test_report_of_another_kind(tree: Path, tmp_path: Path) -> None:
    report = tmp_path / "summary.json"
    report.write_text("{}")
    line = fails("export", tmp_path, tmp_path / "out", "--evaluation", report)
    assert str(report) in line


def test_unexpected_errors_are_not_hidden(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Path) -> None:
        raise KeyError("a mistake in the program")

    monkeypatch.setattr(manifest, "read", fail)
    done = CliRunner().invoke(app, ["data", "audit", str(tree)])
    assert isinstance(done.exception, KeyError)
