"""PNG encoder, faster than Pillow's.

Pillow tries five filters per row, which can take longer than compression. Here all rows use the Up
filter, which suits photographs and probability maps and is computed for many rows at once. Intel's
ISA-L compresses four times as fast as zlib to the same size.
"""

from collections.abc import Iterable

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from pictures.pngchunks import SIGNATURE

_LEVEL = 1  # of 0 to 3; higher levels save almost nothing
_UP = 2  # filter type: difference to the sample above
_COLOUR_TYPES = {1: 0, 3: 2}  # by samples per pixel: grey, RGB


def encode(bands: Iterable[NDArray[np.uint8]]) -> bytes:
    """Encode a picture.

    Args:
        bands: Rows from top to bottom in bands of any height: (H, W) grey or (H, W, 3) RGB. Only
            one band is in memory at a time.

    Returns:
        A PNG file with 8 bits per sample.
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
    """Serialise a chunk with its length and CRC."""
    check = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return b"".join((len(data).to_bytes(4, "big"), kind, data, check.to_bytes(4, "big")))


def _filtered(lines: NDArray[np.uint8], above: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Filter lines (H, W * samples); each result starts with its filter type."""
    filtered = np.empty((len(lines), 1 + lines.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = lines[0] if above is None else lines[0] - above  # modulo 256
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    return filtered
