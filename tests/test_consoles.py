"""File names and other untrusted text are printed literally, not interpreted as markup."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.table import Table

from app.command import console as app_console
from training import output

ROOT = Path(__file__).parents[1]
MAKERS = (ROOT / "app/command/console.py", ROOT / "training/output.py")
TEXT = "[red]a[/red] [/b] [link=x] :smile: 0x1f"


def calls(file: Path, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in names:
                yield node


def test_each_program_creates_consoles_in_one_module() -> None:
    for package in ("app", "model", "pictures", "training", "worker"):
        for file in (ROOT / package).rglob("*.py"):
            if file in MAKERS:
                continue
            names = ("Console", "track", "TextColumn", "from_markup")
            found = [call.lineno for call in calls(file, *names) if not _is_method(call)]
            assert not found, f"{file}: {found}"
            for call in calls(file, "Typer"):
                modes = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert modes.get("rich_markup_mode") == "None", file


def _is_method(call: ast.Call) -> bool:
    """`bar.track` uses the columns of its bar."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "track"


@pytest.mark.parametrize("make", [app_console.console, output.console])
def test_text_is_printed_literally(make: object, capsys: pytest.CaptureFixture[str]) -> None:
    console = make()  # type: ignore[operator]
    table = Table("head", title=TEXT)
    table.add_row(TEXT + "x" * 200)
    console.print(TEXT, style="red")
    console.print(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == TEXT
    assert lines[1].strip() == TEXT
    assert any(TEXT + "x" * 200 in line for line in lines)


def test_progress_shows_descriptions_literally(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress_bar(unit="[steps]") as bar:
        bar.add_task(TEXT)
    assert TEXT in capsys.readouterr().err


def test_error_messages_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain(ValueError(TEXT * 5))
    app_console.complain("gamma", TEXT * 5)
    assert capsys.readouterr().err == f"gamma-train: {TEXT * 5}\ngamma: {TEXT * 5}\n"
