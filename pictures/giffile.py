"""Parser for the frames of GIF files; decompresses nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pictures.errors import UndecodablePictureError
from pictures.source import Source

_SCREEN = 13  # bytes before the global colour table
_EXTENSION, _FRAME, _END = b"!", b",", b";"
_MOST_BLOCKS = 200_000  # data sub-blocks (at most 255 bytes) read at least, about 10 ms
_CONTROL, _CONTROL_SIZE = 0xF9, 4  # label and size of the graphic control extension


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """The first frame."""

    at: int
    """Offset of its image descriptor."""
    width: int
    """Canvas size in pixels, extended to cover the frame."""
    height: int
    palette_end: int
    """End of the global colour table."""
    control: bytes
    """Its graphic control extension, or empty."""


def first_frame(source: Source) -> FirstFrame:
    """Find the first frame.

    Raises:
        PictureError: If there is none.
    """
    width, height, flags = (source.number(at, n, "little") for at, n in ((6, 2), (8, 2), (10, 1)))
    at = palette_end = _SCREEN + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    control = b""
    while (kind := source.read(at, 1)) == _EXTENSION:
        start, label = at, source.number(at + 1, 1)
        at += 2
        if label == _CONTROL and source.number(at, 1) == _CONTROL_SIZE:
            control = source.read(start, 3 + _CONTROL_SIZE) + b"\0"
        while length := source.number(at, 1):
            at += 1 + length
        at += 1
    if kind != _FRAME:
        raise UndecodablePictureError("the GIF has no frame")
    left, top, columns, rows = (source.number(at + n, 2, "little") for n in (1, 3, 5, 7))
    return FirstFrame(
        at=at,
        width=max(width, left + columns),
        height=max(height, top + rows),
        palette_end=palette_end,
        control=control,
    )


class Frame(NamedTuple):
    """A frame of an animation."""

    right: int
    """Pixels from the left edge of the canvas to its right edge."""
    bottom: int
    delay: int
    """Time for which it is displayed, ms; 0 if the file does not say."""


def delays(source: Source) -> Iterator[int]:
    """Iterate over the delays of the frames before the first that is not inside of the canvas.

    Raises:
        PictureError: If the file is truncated or has too many blocks.
    """
    canvas = first_frame(source)
    for frame in frames(source):
        if frame.right > canvas.width or frame.bottom > canvas.height:
            return  # decoders would enlarge the canvas
        yield frame.delay


def frames(source: Source) -> Iterator[Frame]:
    """Iterate over the frames.

    Raises:
        PictureError: If the file is truncated or has too many blocks.
    """
    first = first_frame(source)
    at, left = first.at, max(_MOST_BLOCKS, source.most)
    delay = _delay(first.control)
    while (kind := source.read(at, 1)) != _END:
        if kind == _FRAME:
            box = source.read(at + 1, 9)
            x, y, width, height = (int.from_bytes(box[n : n + 2], "little") for n in (0, 2, 4, 6))
            yield Frame(x + width, y + height, delay)
            delay, flags = 0, box[8]
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        elif kind == _EXTENSION:
            if source.number(at + 1, 1) == _CONTROL:
                delay = _delay(source.data[at : at + 3 + _CONTROL_SIZE])
            at += 2
        else:
            raise UndecodablePictureError("the GIF has a block of an unknown type")
        data = source.data
        while at < len(data) and data[at]:  # a large file has more than `Source` allows
            at += 1 + data[at]
            left -= 1
            if not left:
                raise UndecodablePictureError("the GIF has too many blocks")
        at += 1


def _delay(control: bytes) -> int:
    """Time in a graphic control extension, ms."""
    return 10 * int.from_bytes(control[4:6], "little")


def pixels_only(data: bytes) -> bytes:
    """Remove all extensions before the first frame except its graphic control extension.

    Raises:
        PictureError: If there is no frame.
    """
    frame = first_frame(Source(data))
    return b"".join((data[: frame.palette_end], frame.control, memoryview(data)[frame.at :]))
