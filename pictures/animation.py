"""Decoding of several frames of an animation, or pages of a TIFF."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

from PIL import Image

from pictures import decoding, frames, pngfile
from pictures.errors import PictureError, UndecodablePictureError
from pictures.frames import Moment
from pictures.header import Header, read_header

_PAGES = "TIFF"


def decode(data: bytes, *, most: int, max_pixels: int) -> Iterator[tuple[Moment, Image.Image]]:
    """Decode the frames that `frames.choose` chooses, until one cannot be decoded.

    The first is decoded as `decoding.upright` does, the others in the same way. A page that cannot
    be decoded is left out.

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
    first, *others = frames.choose(data, header, most, max_pixels)
    with decoding.upright(data, max_pixels=max_pixels) as picture:
        yield first, picture
    if header.format == _PAGES:
        for page in others:
            try:
                with decoding.upright(data, max_pixels=max_pixels, page=page.number) as picture:
                    yield page, picture
            except (PictureError, MemoryError):
                continue
        return
    try:
        yield from zip(others, _later(data, header, [one.number for one in others]), strict=True)
    except Exception:  # decoders raise undocumented errors on hostile files
        return


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
        with decoding.upright(data, max_pixels=max_pixels, side=side, page=frame) as picture:
            yield picture
        return
    try:
        (picture,) = _later(data, header, [frame])
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        raise UndecodablePictureError(f"frame {frame} cannot be decoded") from error
    if side is not None:
        picture.thumbnail((side, side))
    yield picture


def _later(data: bytes, header: Header, numbers: Sequence[int]) -> Iterator[Image.Image]:
    """Decode frames after the first, in order. Raises any exception."""
    if not numbers:
        return
    still = pngfile.still(data) if header.format == "PNG" else None
    file = data if still else decoding.pixels_only(data, header)[0]
    with Image.open(BytesIO(file), formats=(header.format,)) as image:
        if header.format == "WEBP":  # browsers ignore the profile of an animation
            image.info.pop("icc_profile", None)
        size = image.size
        hidden = int(getattr(image, "default_image", False))  # not part of an animated PNG
        for number in numbers:
            image.seek(number - 1 + hidden)
            image.load()
            declared = image.info.get("icc_profile") or header.colour
            loaded = decoding.turned(decoding.to_srgb(image, declared, still), header)
            if image.size != size or loaded.size != (header.width, header.height):
                raise UndecodablePictureError("a frame has another size")
            yield loaded.copy() if loaded is image else loaded
