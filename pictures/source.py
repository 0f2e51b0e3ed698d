"""Bounded access to the bytes of a picture file."""

from typing import Literal

from pictures.errors import TruncatedPictureError, UndecodablePictureError

MAX_READS = 8_000
"""Maximum number of reads, which take about 10 ms. Headers need some dozens."""


class Source:
    """Reads a file in small parts, for header parsers.

    The number of reads is limited, so a parser that uses nothing else ends soon even if a hostile
    file leads it into loops.
    """

    def __init__(self, data: bytes, most: int = MAX_READS) -> None:
        """Wrap a file.

        Args:
            data: The whole file.
            most: Maximum number of reads.
        """
        self.data = data
        self.most = most
        self._left = most

    def __len__(self) -> int:
        return len(self.data)

    def read(self, at: int, size: int) -> bytes:
        """Read `size` bytes at offset `at`.

        Raises:
            TruncatedPictureError: If the file ends before.
            UndecodablePictureError: If the number of reads exceeds the limit.
        """
        self._count()
        part = self.data[at : at + size]
        if len(part) < size:
            raise TruncatedPictureError("the file ends too early")
        return part

    def number(self, at: int, size: int, order: Literal["big", "little"] = "big") -> int:
        """Read an unsigned integer of `size` bytes at offset `at`.

        Raises:
            PictureError: Like `read`.
        """
        return int.from_bytes(self.read(at, size), order)

    def find(self, byte: bytes, start: int) -> int:
        """Return the offset of the next `byte` from `start` on.

        Raises:
            TruncatedPictureError: If there is none.
            UndecodablePictureError: If the number of reads exceeds the limit.
        """
        self._count()
        at = self.data.find(byte, start)
        if at < 0:
            raise TruncatedPictureError("the file ends too early")
        return at

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise UndecodablePictureError("the header has more parts than any encoder writes")
