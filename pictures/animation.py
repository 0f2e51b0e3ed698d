"""Decoding of several frames of an animation, or pages of a TIFF."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice

from PIL import Image, ImageFile

from pictures import decoding, frames, pngfile, tiff
from pictures.errors import PictureError, UndecodablePictureError
from pictures.frames import Moment
from pictures.header import Header, read_header
from pictures.source import Source

_PAGES = "TIFF"


def decode(data: bytes, *, most: int, max_pixels: int) -> Iterator[tuple[Moment, Image.Image]]:
    """Decode the frames that `frames.choose` chooses.

    The first is decoded as `decoding.upright` does, the others in the same way. If a frame of an
    animation cannot be decoded, frames before it, in order, take the places of the missing ones. A
    page that cannot be decoded is left out.

    Args:
        data: The whole file.
        most: Maximum number of frames.
        max_pixels: Maximum width times height, and of all frames up to the last chosen one.

    Yields:
        RGB images of the same size, valid until the next.

    Raises:
        PictureError: If the first frame cannot be decoded.
    """
    header = read_header(data, max_pixels=max_pixels)
    with decoding.upright(data, max_pixels=max_pixels) as picture:
        yield Moment(1, None if header.format == _PAGES else 0), picture
    if most == 1:
        return
    if header.format == _PAGES:
        yield from _pages(data, header, most, max_pixels)
    elif header.format in frames.ANIMATED:
        yield from _animated(data, header, most, max_pixels)


@contextmanager
def upright(
    data: bytes, *, max_pixels: int, side: int | None = None, frame: int = 1
) -> Iterator[Image.Image]:
    """As `decoding.upright`, for any frame or page.

    Raises:
        PictureError: If it cannot be decoded, or `frames.choose` would not choose it.
    """
    header = read_header(data, max_pixels=max_pixels)
    if frame == 1 or header.format == _PAGES:
        place = None if frame == 1 else _places(data, [frame]).get(frame)
        if frame > 1 and place is None:
            raise UndecodablePictureError(f"page {frame} cannot be found")
        with decoding.upright(data, max_pixels=max_pixels, side=side, directory=place) as picture:
            yield picture
        return
    try:
        with _opened(data, header) as film:
            picture = next(one for one in film.frames([frame]) if one is not None)
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        raise UndecodablePictureError(f"frame {frame} cannot be decoded") from error
    if side is not None:
        picture.thumbnail((side, side))
    yield picture


def _pages(
    data: bytes, header: Header, most: int, max_pixels: int
) -> Iterator[tuple[Moment, Image.Image]]:
    """Decode the chosen pages after the first."""
    chosen = frames.choose(data, header, most, max_pixels)[1:]
    places = _places(data, [page.number for page in chosen])
    for page in chosen:
        try:
            directory = places[page.number]
            with decoding.upright(data, max_pixels=max_pixels, directory=directory) as picture:
                yield page, picture
        except (PictureError, MemoryError):
            continue


def _places(data: bytes, numbers: Collection[int]) -> dict[int, int]:
    """Offsets of the directories of pages, by number, without those after a damaged one."""
    found = {}
    last = max(numbers, default=0)
    with suppress(PictureError):
        pages = tiff.pages(Source(data, most=len(data)))
        for number, page in enumerate(islice(pages, last), 1):
            if number in numbers:
                found[number] = page.at
    return found


def _animated(
    data: bytes, header: Header, most: int, max_pixels: int
) -> Iterator[tuple[Moment, Image.Image]]:
    """Decode the chosen frames after the first."""
    done: set[int] = set()
    count = None
    for _ in range(2):  # the second time, frames before a damaged one
        reached = 1
        try:
            with _opened(data, header) as film:
                count = film.count if count is None else count
                chosen = frames.choose(
                    data, header, most - len(done), max_pixels, count=count, without=done
                )
                pending = {one.number: one for one in chosen if one.number > 1}
                done.add(1)
                for number, picture in enumerate(film.frames(pending), 2):
                    reached = number
                    if picture is not None:
                        done.add(number)
                        yield pending[number], picture
            return
        except Exception:  # decoders raise undocumented errors on hostile files
            count = reached


@dataclass(frozen=True, slots=True)
class _Film:
    """An animation opened by Pillow."""

    image: ImageFile.ImageFile
    header: Header
    still: pngfile.Still | None

    @property
    def count(self) -> int | None:
        """Number of frames; None if Pillow would have to decode them."""
        if self.header.format == "GIF":
            return None
        return int(getattr(self.image, "n_frames", 1)) - self._hidden

    @property
    def _hidden(self) -> int:
        return int(getattr(self.image, "default_image", False))  # not part of an animated PNG

    def frames(self, numbers: Collection[int]) -> Iterator[Image.Image | None]:
        """Decode all frames from the second to the last of `numbers`. Raises any exception.

        Yields:
            The frames in `numbers`, and None for the others.
        """
        size, hidden = self.image.size, self._hidden
        for number in range(2, max(numbers, default=1) + 1):
            self.image.seek(number - 1 + hidden)
            self.image.load()
            yield self._upright(size) if number in numbers else None

    def _upright(self, size: tuple[int, int]) -> Image.Image:
        image, header = self.image, self.header
        declared = image.info.get("icc_profile") or header.colour
        loaded = decoding.turned(decoding.to_srgb(image, declared, self.still), header)
        if image.size != size or loaded.size != (header.width, header.height):
            raise UndecodablePictureError("a frame has another size")
        return loaded.copy() if loaded is image else loaded


@contextmanager
def _opened(data: bytes, header: Header) -> Iterator[_Film]:
    """Open an animation. Raises any exception."""
    still = pngfile.still(data) if header.format == "PNG" else None
    file = pngfile.animation(data) if still else decoding.pixels_only(data, header)[0]
    with Image.open(BytesIO(file), formats=(header.format,)) as image:
        if header.format == "WEBP":  # browsers ignore the profile of an animation
            image.info.pop("icc_profile", None)
        yield _Film(image, header, still)
