"""From pixels to PNG files, in a fraction of the time that Pillow takes.

Pillow tries five filters on each row, which can take longer than compressing it. Here every row has
the cheapest one that suits photographs and probability maps alike, taken over many rows at once,
and what compresses is Intel's ISA-L, four times as fast as zlib at the same size.
"""

from collections.abc import Iterable

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from pictures.pngchunks import SIGNATURE

_LEVEL = 1  # of 0 to 3: higher ones save next to nothing
_UP = 2  # the filter: what a sample differs by from the one above it
_COLOUR_TYPES = {1: 0, 3: 2}  # by samples a pixel: grey, RGB


def encode(bands: Iterable[NDArray[np.uint8]]) -> bytes:
    """Encode a picture.

    Args:
        bands: Its rows from top to bottom, any number at a time: (H, W) grey or (H, W, 3) RGB. Only
            one band and what comes of it are held at once.

    Returns:
        A PNG file, 8 bits a sample.
    """
    compressor = isal_zlib.compressobj(_LEVEL)
    height = width = samples = 0
    above: NDArray[np.uint8] | None = None
    compressed = []
    for band in bands:
        rows, width = band.shape[:2]
        samples = band.size // (rows * width)
        height += rows
        lines = band.reshape(rows, width * samples)
        compressed.append(compressor.compress(_filtered(lines, above).data))
        above = lines[-1]
    compressed.append(compressor.flush())
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header += bytes([8, _COLOUR_TYPES[samples], 0, 0, 0])
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", header),
            chunk(b"IDAT", b"".join(compressed)),
            chunk(b"IEND", b""),
        )
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file, as it is written."""
    check = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return b"".join((len(data).to_bytes(4, "big"), kind, data, check.to_bytes(4, "big")))


def _filtered(lines: NDArray[np.uint8], above: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """The lines (H, W * samples) as PNG has them: each begins with the number of its filter."""
    filtered = np.empty((len(lines), 1 + lines.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = lines[0] if above is None else lines[0] - above  # modulo 256
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    return filtered
