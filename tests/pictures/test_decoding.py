import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from pictures.decoding import decode, upright
from pictures.errors import (
    PictureError,
    TooElongatedError,
    TooManyPixelsError,
    TruncatedPictureError,
    UndecodablePictureError,
    UnsupportedFormatError,
)
from pictures.header import ALLOWED_FORMATS, read_header
from tests import samples
from tests.samples import QUARTERS, corners, heic, png, quarters

LIMIT = 1_000_000
ENCODABLE = [name for name in ALLOWED_FORMATS if name != "HEIF"]  # HEIC files are in samples
LOSSLESS = ("PNG", "BMP", "TIFF", "WEBP")


def encoded(image, file_format="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def read(image, file_format="PNG", **options):
    return decode(encoded(image, file_format, **options), max_pixels=LIMIT)


@pytest.mark.parametrize("file_format", ENCODABLE)
def test_every_supported_format_is_decoded(photo, file_format):
    picture = photo(48, 80)
    options = {"lossless": True} if file_format == "WEBP" else {}
    pixels = read(Image.fromarray(picture), file_format, **options)
    assert pixels.shape == (48, 80, 3)
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(int) - picture)
    assert difference.max() == 0 if file_format in LOSSLESS else difference.mean() < 12


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(file_format, orientation):
    # The upright picture has a dark corner at the top left; it is stored rotated.
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


def test_transparency_is_composited_onto_white():
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


def test_sixteen_bits_per_channel_are_decoded():
    row = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8000, 0) * 4
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(row * 4)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    assert decode(data, max_pixels=LIMIT)[0, 0].tolist() == [255, 128, 0]


def test_colour_profile_is_converted_to_srgb():
    # Half of the intensity in linear light is 188 in sRGB.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.new("RGB", (4, 4), (100, 150, 200))
    assert read(grey, icc_profile=profile)[0, 0].tolist() == [100, 150, 200]
    linear = bytearray(profile)
    # Change the tone curve 'para' to gamma 1 and rename the profile.
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


def test_pixel_limit_is_checked_before_decoding():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(TooManyPixelsError):
        decode(bomb, max_pixels=LIMIT)
    with pytest.raises(TooManyPixelsError, match="20 × 10"):
        decode(encoded(Image.new("L", (20, 10))), max_pixels=199)
    assert decode(encoded(Image.new("L", (20, 10))), max_pixels=200).shape == (10, 20, 3)


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"%PDF-1.7", b"\x89PIG", b"\xff\xd8"])
def test_other_files_are_unsupported(data):
    with pytest.raises(UnsupportedFormatError):
        decode(data, max_pixels=LIMIT)


def test_other_formats_of_pillow_are_unsupported():
    with pytest.raises(UnsupportedFormatError):
        decode(encoded(Image.new("RGB", (4, 4)), "PPM"), max_pixels=LIMIT)


@pytest.mark.parametrize("file_format", ENCODABLE)
def test_half_a_file_is_truncated(photo, file_format):
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    data = encoded(Image.fromarray(photo(64, 64)), file_format)
    with pytest.raises(TruncatedPictureError):
        decode(data[: len(data) * 2 // 3], max_pixels=LIMIT)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_avif_truncated_anywhere(photo, share):
    data = encoded(Image.fromarray(photo(64, 64)), "AVIF")
    with pytest.raises(TruncatedPictureError) as raised:
        decode(data[: int(len(data) * share)], max_pixels=LIMIT)
    assert "object" not in str(raised.value)  # nothing of the decoder's inside


def test_complete_avif_with_invalid_boxes_is_not_truncated(photo):
    data = encoded(Image.fromarray(photo(64, 64)), "AVIF")
    for length in (0, 2, 1):  # to the end of the file; too short; a 64-bit length of 0
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


# -- HEIC -----------------------------------------------------------------------------------------


def test_samples_cover_every_supported_format():
    assert tuple(samples.every_format()) == ALLOWED_FORMATS


@pytest.mark.parametrize("brand", [b"heix", b"heic", b"mif1"])
def test_heic_of_any_brand_has_its_colours(brand):
    data = heic().replace(b"ftypheix", b"ftyp" + brand)
    assert read_header(data, max_pixels=LIMIT).format == "HEIF"
    assert np.abs(corners(decode(data, max_pixels=LIMIT)) - QUARTERS).max() <= 2


def test_heic_with_ten_bits_with_several_pictures_or_in_grey():
    for name in ("ten", "two"):
        assert np.abs(corners(decode(heic(name), max_pixels=LIMIT)) - QUARTERS).max() <= 2
    grey = np.asarray(quarters().convert("L").convert("RGB"))
    assert np.abs(decode(heic("grey"), max_pixels=LIMIT).astype(int) - grey).max() <= 3


def test_heic_rotation_is_applied_once():
    header = read_header(heic("turned"), max_pixels=LIMIT)
    assert (header.width, header.height) == (48, 64)
    top_left, top_right, bottom_left, bottom_right = QUARTERS
    expected = [bottom_left, top_left, bottom_right, top_right]  # clockwise
    assert np.abs(corners(decode(heic("turned"), max_pixels=LIMIT)) - expected).max() <= 2


def test_heic_transparency_is_composited_onto_white():
    found = corners(decode(heic("alpha"), max_pixels=LIMIT))
    half = [(value + 255) / 2 for value in QUARTERS[2]]
    expected = [QUARTERS[0], (255, 255, 255), half, QUARTERS[3]]
    assert np.abs(found - expected).max() <= 3


def test_heic_of_tiles():
    pixels = decode(samples.heif_grid(2, 3, 192, 128), max_pixels=LIMIT)
    assert pixels.shape == (128, 192, 3)
    assert (pixels[:48, :64] == pixels[64:112, 128:192]).all()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["rgb", "turned", "alpha"])
def test_heic_truncated_anywhere(name, share):
    data = heic(name)
    with pytest.raises(TruncatedPictureError):
        decode(data[: int(len(data) * share)], max_pixels=LIMIT)


def test_heic_with_another_codec_is_undecodable():
    other = heic().replace(b"hvc1", b"vvc1").replace(b"hvcC", b"vvcC")
    with pytest.raises(UndecodablePictureError):
        decode(other, max_pixels=LIMIT)


def test_heic_with_a_wrong_size_in_its_header():
    data = heic()
    at = data.index(b"ispe") + 8
    with pytest.raises(UndecodablePictureError):
        decode(data[:at] + struct.pack(">II", 40, 40) + data[at + 8 :], max_pixels=LIMIT)


# -- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_header_has_the_size_of_the_decoded_picture(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(quarters(60, 40), file_format, exif=exif)
    header = read_header(data, max_pixels=LIMIT)
    sideways = orientation >= 5
    assert (header.width, header.height) == ((40, 60) if sideways else (60, 40))
    assert decode(data, max_pixels=LIMIT).shape[:2] == (header.height, header.width)


def test_exif_after_the_pixels_of_a_png_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = zlib.compress(b"".join(b"\0" + bytes(3 * 60) for _ in range(40)))
    data = png(60, 40, (b"IDAT", rows), (b"eXIf", exif.tobytes()[6:]))
    header = read_header(data, max_pixels=LIMIT)
    assert (header.width, header.height) == (60, 40)
    assert decode(data, max_pixels=LIMIT).shape == (40, 60, 3)


def test_reading_a_header_decodes_no_pixels():
    broken = png(60, 40, (b"IDAT", b"no pixels"))
    assert read_header(broken, max_pixels=LIMIT).width == 60
    with pytest.raises(UndecodablePictureError):
        decode(broken, max_pixels=LIMIT)


def test_gif_frame_larger_than_the_canvas_counts():
    gif = b"GIF89a" + struct.pack("<HH", 10, 10) + b"\0\0\0,"
    gif += struct.pack("<HHHH", 0, 0, 2000, 2000) + b"\0\2\2D\1\0;"
    with pytest.raises(TooManyPixelsError):
        read_header(gif, max_pixels=LIMIT)


def test_mpo_is_a_jpeg():
    data = encoded(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    assert Image.open(BytesIO(data)).format == "MPO"
    assert read_header(data, max_pixels=LIMIT).format == "JPEG"
    assert np.abs(corners(decode(data, max_pixels=LIMIT)) - QUARTERS).max() <= 12


# -- colours --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "file_format", "options"),
    [
        (quarters().quantize(4), "PNG", {}),
        (quarters().quantize(4), "GIF", {}),
        (quarters().quantize(4), "BMP", {}),
        (quarters().convert("RGBA"), "WEBP", {"lossless": True}),
        (quarters().convert("RGBA"), "AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        (quarters(), "TIFF", {"compression": "tiff_deflate", "tiffinfo": {322: 16, 323: 16}}),
        (quarters(), "TIFF", {"compression": "tiff_jpeg", "quality": 95}),
        (quarters(), "TIFF", {"compression": "packbits"}),
        (quarters().convert("CMYK"), "TIFF", {}),
        (quarters().convert("CMYK"), "JPEG", {"quality": 100, "subsampling": 0}),
        (quarters().convert("YCbCr"), "TIFF", {}),
        (quarters(), "JPEG", {"quality": 100, "subsampling": 0, "progressive": True}),
        (quarters(), "JPEG", {"quality": 100, "keep_rgb": True}),
        (quarters(), "PNG", {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]}),
        (quarters(), "TIFF", {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}),
    ],
)
def test_colours_are_right_in_every_mode(image, file_format, options):
    data = encoded(image, file_format, **options)
    assert np.abs(corners(decode(data, max_pixels=LIMIT)) - QUARTERS).max() <= 6


def test_tiff_with_lab_colours():
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    data = encoded(ImageCms.applyTransform(quarters(), to_lab), "TIFF")
    assert np.abs(corners(decode(data, max_pixels=LIMIT)) - QUARTERS).max() <= 8


def test_transparency_of_grey_and_of_a_palette():
    grey = Image.merge("LA", (Image.new("L", (4, 4), 100), Image.new("L", (4, 4), 128)))
    assert abs(int(read(grey)[0, 0, 0]) - 177) <= 1
    palette = quarters().quantize(4)
    clear = palette.getpixel((0, 0))
    found = corners(read(palette, "PNG", transparency=clear))
    assert found[0].tolist() == [255, 255, 255]
    assert found[1:].tolist() == [list(colour) for colour in QUARTERS[1:]]
    sixteen = Image.fromarray(np.full((4, 4), 0x4000, np.uint16))
    assert (read(sixteen, "PNG") == 64).all()


def test_profile_with_other_primaries_is_converted_to_srgb():
    # Red and green of the profile are swapped.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = {name: profile.index(name, 128) + 4 for name in (b"rXYZ", b"gXYZ")}
    places = {name: bytes(profile[i : i + 4]) for name, i in at.items()}
    for name, other in ((b"rXYZ", b"gXYZ"), (b"gXYZ", b"rXYZ")):
        profile[at[name] : at[name] + 4] = places[other]
    swapped = bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    expected = [(green, red, blue) for red, green, blue in QUARTERS]
    for file_format in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encoded(quarters(), file_format, icc_profile=swapped, **options)
        assert np.abs(corners(decode(data, max_pixels=LIMIT)) - expected).max() <= 1
    clear = quarters().convert("RGBA")
    assert np.abs(corners(read(clear, icc_profile=swapped)) - expected).max() <= 1
    indexed = quarters().quantize(4)
    assert np.abs(corners(read(indexed, icc_profile=swapped)) - expected).max() <= 1


def test_tall_transparent_picture_is_complete():
    tall = Image.new("RGBA", (300, 13_000), (10, 20, 30, 255))
    tall.putpixel((299, 12_999), (0, 0, 0, 0))
    pixels = decode(encoded(tall), max_pixels=10**7)
    assert (pixels[-1, -1] == 255).all()
    assert (pixels[:-1] == (10, 20, 30)).all()


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (20, 1001), (1, 51)])
def test_lines_are_too_elongated(size):
    data = encoded(Image.new("L", size))
    for function in (read_header, decode):
        with pytest.raises(TooElongatedError, match="50 times"):
            function(data, max_pixels=10**6)


@pytest.mark.parametrize("size", [(16_000, 1000), (1080, 40_000), (20, 1000), (50, 1)])
def test_panoramas_and_long_screenshots_are_accepted(size):
    data = encoded(Image.new("L", size))
    assert read_header(data, max_pixels=10**8).width == size[0]
    assert decode(data, max_pixels=10**8).shape[1::-1] == size


# -- previews -------------------------------------------------------------------------------------


def preview(data, side):
    with upright(data, max_pixels=LIMIT, side=side) as picture:
        return picture.copy()


@pytest.mark.parametrize("file_format", ALLOWED_FORMATS)
def test_preview_of_every_format(file_format):
    data = samples.every_format()[file_format]
    whole, small = (preview(data, side) for side in (None, 24))
    assert (np.asarray(whole) == decode(data, max_pixels=LIMIT)).all()
    assert max(small.size) == 24
    assert small.mode == "RGB"
    difference = corners(np.asarray(small)) - corners(np.asarray(whole))
    assert np.abs(difference).max() <= 6
    assert preview(data, 500).size == whole.size
