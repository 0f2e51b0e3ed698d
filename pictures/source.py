"""A picture file of which only small parts are read, and not many."""

from typing import Literal

from pictures.errors import TruncatedPictureError, UndecodablePictureError

MAX_READS = 8_000
"""Parts of a file that are looked at: about 10 ms. Headers have some dozens."""


class Source:
    """The bytes of a file, for readers of its header.

    Each read costs the same, whatever lies in the file, and their number is limited: no reader
    that uses nothing else can take long, whatever loops a hostile file leads it through.
    """

    def __init__(self, data: bytes, most: int = MAX_READS) -> None:
        """Take a file.

        Args:
            data: The whole file.
            most: Parts that may be read.
        """
        self.data = data
        self._left = most

    def __len__(self) -> int:
        return len(self.data)

    def read(self, at: int, size: int) -> bytes:
        """Some bytes, few.

        Raises:
            TruncatedPictureError: The file ends before.
            UndecodablePictureError: More parts were read than any header has.
        """
        self._count()
        part = self.data[at : at + size]
        if len(part) < size:
            raise TruncatedPictureError("the file ends too early")
        return part

    def number(self, at: int, size: int, order: Literal["big", "little"] = "big") -> int:
        """An unsigned number.

        Raises:
            PictureError: As `read`.
        """
        return int.from_bytes(self.read(at, size), order)

    def find(self, byte: bytes, start: int) -> int:
        """Where a byte comes next.

        Raises:
            PictureError: As `read`.
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
