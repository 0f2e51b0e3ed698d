import random
import struct
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from model.pictures import (
    ALLOWED_FORMATS,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UndecodablePictureError,
    UnsupportedFormatError,
    decode,
)

LIMIT = 1_000_000
LOSSLESS = ("PNG", "BMP", "TIFF", "WEBP")


def encoded(image, file_format="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def read(image, file_format="PNG", **options):
    return decode(encoded(image, file_format, **options), max_pixels=LIMIT)


@pytest.mark.parametrize("file_format", ALLOWED_FORMATS)
def test_every_allowed_format_is_read(photo, file_format):
    picture = photo(48, 80)
    options = {"lossless": True} if file_format == "WEBP" else {}
    pixels = read(Image.fromarray(picture), file_format, **options)
    assert pixels.shape == (48, 80, 3)
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(int) - picture)
    assert difference.max() == 0 if file_format in LOSSLESS else difference.mean() < 12


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(file_format, orientation):
    # A dark corner at the top left of the upright picture, stored as the tag says.
    upright = np.full((40, 60, 3), 220, np.uint8)
    upright[:16, :16] = 20
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif)
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 5


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9])
    assert (read(clear) == 255).all()
    assert (read(half) == 127).all()
    assert (read(Image.new("LA", (4, 4), (0, 0))) == 255).all()
    assert (read(palette, transparency=0) == 255).all()
    assert (read(palette, "GIF", transparency=0) == 255).all()


@pytest.mark.parametrize(
    ("image", "file_format", "expected"),
    [
        (Image.fromarray(np.full((4, 4), 0x8080, np.uint16)), "PNG", 128),
        (Image.fromarray(np.full((4, 4), 0x8080, np.uint16)), "TIFF", 128),
        (Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF", 128),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF", 0),
        (Image.new("1", (4, 4), 1), "PNG", 255),
        (Image.new("L", (4, 4), 77), "PNG", 77),
        (Image.new("CMYK", (4, 4), (0, 0, 0, 155)), "TIFF", 100),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 155)), "JPEG", 100),
    ],
    ids=["I;16 png", "I;16 tiff", "float", "nan", "bilevel", "grey", "cmyk tiff", "cmyk jpeg"],
)
def test_other_modes_are_scaled_to_eight_bits(image, file_format, expected):
    pixels = read(image, file_format)
    assert pixels.shape[2] == 3
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_sixteen_bits_a_channel_are_read():
    row = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8000, 0) * 4
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(row * 4)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    assert decode(data, max_pixels=LIMIT)[0, 0].tolist() == [255, 128, 0]


def test_colour_profile_is_converted_to_srgb():
    # In linear light, half the intensity is 188 in sRGB. XYZ colours need no gamut of their own.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.new("RGB", (4, 4), (100, 150, 200))
    assert read(grey, icc_profile=profile)[0, 0].tolist() == [100, 150, 200]
    linear = bytearray(profile)
    # Turn the tone curve 'para' into a gamma of 1 and rename the profile.
    at = linear.index(b"para")
    linear[at + 8 : at + 16] = struct.pack(">HHi", 0, 0, 1 << 16)
    renamed = bytes(linear).replace("sRGB".encode("utf-16-be"), "line".encode("utf-16-be"))
    pixels = read(Image.new("RGB", (4, 4), (128, 128, 128)), icc_profile=renamed)
    assert abs(int(pixels[0, 0, 0]) - 188) <= 2


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_profile_and_broken_exif_are_ignored(photo):
    image = Image.fromarray(photo(16, 16))
    assert (read(image, icc_profile=b"not a profile") == photo(16, 16)).all()
    assert read(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff").shape == (16, 16, 3)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        pixels = read(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert pixels[4, 4, 0] > 200
        assert pixels[4, 4, 2] < 50


def test_pixels_are_counted_before_any_is_decoded():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(TooManyPixelsError):
        decode(bomb, max_pixels=LIMIT)
    with pytest.raises(TooManyPixelsError, match="20 x 10"):
        decode(encoded(Image.new("L", (20, 10))), max_pixels=199)
    assert decode(encoded(Image.new("L", (20, 10))), max_pixels=200).shape == (10, 20, 3)


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"%PDF-1.7", b"\x89PNG", b"\xff\xd8"])
def test_other_files_are_unsupported(data):
    with pytest.raises(UnsupportedFormatError):
        decode(data, max_pixels=LIMIT)


def test_formats_that_pillow_knows_but_we_do_not_allow():
    with pytest.raises(UnsupportedFormatError):
        decode(encoded(Image.new("RGB", (4, 4)), "PPM"), max_pixels=LIMIT)


@pytest.mark.parametrize("file_format", ALLOWED_FORMATS)
def test_half_a_file_is_truncated(photo, file_format):
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    data = encoded(Image.fromarray(photo(64, 64)), file_format)
    with pytest.raises(TruncatedPictureError):
        decode(data[: len(data) * 2 // 3], max_pixels=LIMIT)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_avif_ends_too_early_wherever_it_ends(photo, share):
    data = encoded(Image.fromarray(photo(64, 64)), "AVIF")
    with pytest.raises(TruncatedPictureError):
        decode(data[: int(len(data) * share)], max_pixels=LIMIT)


def test_whole_avif_that_nothing_is_wrong_with_but_its_boxes(photo):
    data = encoded(Image.fromarray(photo(64, 64)), "AVIF")
    for length in (0, 2, 1):  # to the end of the file; impossible; 64 bits, of which 0 are here
        broken = data.replace(data[32:40], length.to_bytes(4, "big") + b"free" + bytes(8))
        with pytest.raises(PictureError) as raised:
            decode(broken, max_pixels=LIMIT)
        assert not isinstance(raised.value, TruncatedPictureError)


def test_damaged_data_is_undecodable(photo):
    data = bytearray(encoded(Image.fromarray(photo(64, 64))))
    at = data.index(b"IDAT") + 4
    data[at : at + 40] = b"\xff" * 40
    with pytest.raises(UndecodablePictureError):
        decode(bytes(data), max_pixels=LIMIT)


@pytest.mark.parametrize("file_format", ALLOWED_FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_hostile_bytes_raise_nothing_but_picture_errors(photo, file_format):
    generator = random.Random(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(photo(24, 24)), file_format, exif=exif)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 12)):
            damaged[generator.randrange(min(len(data), 300))] = generator.randrange(256)
        if generator.random() < 0.3:
            del damaged[generator.randrange(len(damaged)) :]
        with suppress(PictureError):
            assert decode(bytes(damaged), max_pixels=LIMIT).ndim == 3
