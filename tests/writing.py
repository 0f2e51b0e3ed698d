"""Generated pictures of text."""

from __future__ import annotations

import itertools

from PIL import Image, ImageDraw, ImageFont

_TEXT = (
    "It is a truth known to all that a single picture in possession of a good caption must be in "
    "want of a reader, however little known the feelings of such a picture may be on a first look. "
)


def page_of_text(
    width: int,
    height: int,
    size: int,
    ground: str = "white",
    ink: str = "black",
    lines: int | None = None,
) -> Image.Image:
    """A page, slide or screen of text.

    Args:
        width: pixels.
        height: pixels.
        size: font size, pixels.
        ground: background colour.
        ink: text colour.
        lines: maximum number of lines; None fills the page.
    """
    page = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size)
    margin, words = width // 12, itertools.cycle(_TEXT.split())
    tops = range(margin, height - margin - size, size * 7 // 5)
    for top in tops[:lines]:
        line = next(words)
        while draw.textlength(line, font) < width - 2 * margin - size * 4:
            line += f" {next(words)}"
        draw.text((margin, top), line, ink, font)
    return page
