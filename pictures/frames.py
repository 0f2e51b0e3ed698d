"""Frames of animations and pages of TIFF: how many there are, and which to examine.

Nothing here decodes pixels.
"""

from bisect import bisect_right
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, islice
from typing import NamedTuple

from pictures import giffile, isomedia, pngchunks, tiff
from pictures.errors import PictureError
from pictures.header import Header
from pictures.source import Source

_WEBP_CHUNKS, _WEBP_CHUNK_HEAD = 12, 8  # offset of the first chunk; bytes of type and size
_WEBP_FLAGS, _WEBP_ANIMATED = 20, 2
_WEBP_DELAY = 12  # offset in a frame
_WEBP_SIZE, _WEBP_HEAD = 4, 8  # offset of the size of what follows the head; bytes of the head
_PNG_DELAY = 20, 22  # offsets of numerator and denominator in a frame control chunk (fcTL)
_SMALLEST = 4096  # pixels that a frame counts as at least, for the work besides its pixels
_SHORTEST, _USUAL = 10, 100  # ms; browsers display frames of up to 10 ms for 100 ms


class Moment(NamedTuple):
    """A frame or page."""

    number: int
    """1 is the first that is displayed."""
    time_ms: int | None
    """Time at which it is displayed first; None for a page."""


def count_frames(data: bytes, kind: str) -> int | None:
    """Count the frames of a file that `read_header` accepts.

    Args:
        data: The whole file.
        kind: Its format, one of `header.ALLOWED_FORMATS`.

    Returns:
        1 for a still; None if the file is truncated or has too many parts.
    """
    count = _COUNTERS.get(kind)
    if count is None:
        return 1
    try:
        return count(Source(data))
    except PictureError:
        return None


def choose(
    data: bytes,
    header: Header,
    most: int,
    max_pixels: int,
    *,
    count: int | None = None,
    without: Container[int] = (),
) -> list[Moment]:
    """Choose frames to examine, spread evenly over the time of an animation, or over the pages.

    The frames before the last chosen one, and the chosen pages, have at most `max_pixels` together.
    Pages of another size than the first are never chosen.

    Args:
        data: The whole file.
        header: Its header.
        most: Maximum number of frames.
        max_pixels: Maximum number of pixels.
        count: Number of frames that can be decoded, if known; those without a delay in the file
            count as displayed for 100 ms.
        without: Numbers of frames that are not chosen.

    Returns:
        Numbers and times in order, the first frame unless it is in `without`; frames after a
        damaged part are missing, unless `count` includes them.
    """
    within = max(1, max_pixels // max(_SMALLEST, header.width * header.height))
    source = Source(data, most=len(data))
    if header.format == "TIFF":
        return _pages(source, header, min(most, within))
    total = within if count is None else min(within, count)
    delays: list[int] = []
    if header.format in ANIMATED:
        with suppress(PictureError):
            delays.extend(islice(_DELAYS[header.format](source), total))
    fewest = 1 if count is None else total
    delays += [_USUAL] * (fewest - len(delays))
    delays = [delay if delay > _SHORTEST else _USUAL for delay in delays]
    starts = [0, *accumulate(delays[:-1])]
    free = [at for at in range(len(starts)) if at + 1 not in without]
    places = _spread([starts[at] for at in free], [delays[at] for at in free], most)
    return [Moment(free[place] + 1, starts[free[place]]) for place in places]


def _pages(source: Source, header: Header, most: int) -> list[Moment]:
    sizes: list[tuple[int, int] | None] = [(header.width, header.height)]
    with suppress(PictureError):
        sizes.extend(page.size for page in islice(tiff.pages(source), 1, None))
    alike = [at for at, size in enumerate(sizes) if size == sizes[0]]
    places = _spread(range(len(alike)), [1] * len(alike), most)
    return [Moment(alike[place] + 1, None) for place in places]


def _spread(starts: Sequence[int], lengths: list[int], most: int) -> list[int]:
    """Indices of the frames displayed at `most` times evenly from the first to the last start.

    If one is displayed at several of these times, those displayed longest fill the places.
    """
    if len(starts) <= most:
        return list(range(len(starts)))
    first, last = starts[0], starts[-1]
    times = [first + (last - first) * step // max(1, most - 1) for step in range(most)]
    chosen = {bisect_right(starts, time) - 1 for time in times}
    rest = sorted(set(range(len(starts))) - chosen, key=lambda at: -lengths[at])
    return sorted([*chosen, *rest[: most - len(chosen)]])


def _png_delays(source: Source) -> Iterator[int]:
    declared = left = 0
    for chunk in pngchunks.chunks(source):
        if chunk.kind == b"acTL" and not declared:
            declared = left = pngchunks.declared_frames(pngchunks.body(source, chunk) or b"")
        elif chunk.kind == b"fcTL" and left:
            control = pngchunks.body(source, chunk)
            if control is not None:
                above, below = (int.from_bytes(control[at : at + 2], "big") for at in _PNG_DELAY)
                yield 1000 * above // (below or 100)
                left -= 1
        elif chunk.kind == b"IEND" or (chunk.kind == b"IDAT" and not declared):
            return


def _webp_delays(source: Source) -> Iterator[int]:
    if source.read(_WEBP_CHUNKS, 4) != b"VP8X":
        return
    if not source.number(_WEBP_FLAGS, 1) & _WEBP_ANIMATED:
        return
    at = _WEBP_CHUNKS
    end = min(len(source), _WEBP_HEAD + source.number(_WEBP_SIZE, 4, "little"))
    while at + _WEBP_CHUNK_HEAD <= end:
        start = at + _WEBP_CHUNK_HEAD
        if source.read(at, 4) == b"ANMF":
            yield source.number(start + _WEBP_DELAY, 3, "little")
        size = source.number(at + 4, 4, "little")
        at = start + size + size % 2


_DELAYS = {
    "PNG": _png_delays,
    "WEBP": _webp_delays,
    "GIF": giffile.delays,
    "AVIF": isomedia.delays,
}
ANIMATED = frozenset(_DELAYS)
"""Formats of animations."""
_COUNTERS = {
    "PNG": lambda source: max(1, sum(1 for _ in _png_delays(source))),
    "WEBP": lambda source: max(1, sum(1 for _ in _webp_delays(source))),
    "GIF": lambda source: sum(1 for _ in giffile.frames(source)),
    "TIFF": lambda source: max(1, sum(1 for _ in tiff.pages(source))),
    "AVIF": isomedia.frames,
    "HEIF": isomedia.frames,
}
