"""Pages of the documentation, and their code blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "clients", "deploy", "docs", "model", "pictures", "training")
PAGES = {
    str(file.relative_to(ROOT)): file.read_text()
    for pattern in ("*.md", *(f"{folder}/**/*.md" for folder in FOLDERS))
    for file in sorted(ROOT.glob(pattern))
}


def blocks(page: str, language: str) -> list[str]:
    """The contents of a page's fenced blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)
