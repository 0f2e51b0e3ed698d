"""Sanitising of untrusted text."""

from __future__ import annotations

import pytest

from pictures.provenance.statement import clean


@pytest.mark.parametrize(
    "char",
    ["\u2028", "\u2029", "\u3164", "\u115f", "\u1160", "\uffa0", "\ue000", "\U000f0000", "\u202e"],
)
def test_invisible_characters(char: str) -> None:
    assert clean(f"a{char}b\nc", lines=True) == "ab\nc"
    assert clean(char * 3) == ""


def test_combining_marks_in_a_row() -> None:
    assert clean("e" + 50 * "\u0301" + "f" + 2 * "\u0302") == "e" + 4 * "\u0301" + "f\u0302\u0302"
    assert clean("e" + 10 * "\u0301\u200b") == "e" + 4 * "\u0301"  # an invisible one is no end


def test_words_with_combining_marks() -> None:
    for text in ("क्षत्रिय", "Tiếng Việt", "ทั้งที่"):
        assert clean(text) == text
