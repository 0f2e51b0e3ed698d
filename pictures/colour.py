"""Conversion of decoded pictures to sRGB."""

import struct
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFilter

from pictures.colour_spaces import D50, CodePoints, Colour, Gamma, hdr_to_srgb

MAX_PROFILE = 4 * 2**20
"""Maximum size of an ICC profile in bytes; printer profiles have up to 2 MiB."""

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
_SPACES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}  # Pillow mode by profile colour space
_LUT_SIDE = 65  # side of the 3D lookup table for HDR colours
_STEPS = 256  # entries of a curve in a profile: one per sample value
_ICC_VERSION = 4 << 24
_TAGS, _TAG = 128, 12  # offset of a profile's tag table; bytes per entry


def to_srgb(image: Image.Image, colour: Colour) -> Image.Image:
    """Convert an 8-bit picture to sRGB; a colour space that does not fit its mode is ignored.

    Args:
        image: L, LA, RGB, RGBA, CMYK, or any mode that Pillow converts to RGB.
        colour: Colour space declared by its file.

    Returns:
        RGB, or RGBA if the picture has an alpha channel.
    """
    if image.mode == "LAB":
        return _applied(image, ImageCms.buildTransform(_LAB, _SRGB, "LAB", "RGB"))
    if image.mode in ("LA", "La"):
        grey = image.convert("LA")
        result = to_srgb(grey.getchannel("L"), colour)
        result.putalpha(grey.getchannel("A"))
        return result
    if isinstance(colour, CodePoints) and colour.hdr:
        return _rgb(image).filter(_tone_map(colour))
    if isinstance(colour, CodePoints | Gamma):
        colour = _profile(colour)
    space = _space(colour) if colour else None
    if space == "RGB" and image.mode != "CMYK":
        image = _rgb(image)
    if colour and space == image.mode.removesuffix("A"):
        transform = _transform(colour, image.mode)
        if transform is not None:
            image = _applied(image, transform)
    return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB or RGBA; copies only if the mode changes."""
    if image.mode in ("RGB", "RGBA"):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # noqa: S101 - None is returned only for in-place transforms
    return converted


@lru_cache(maxsize=2)
def _space(profile: bytes) -> str | None:
    """Pillow mode of the pictures an ICC profile is for; None if it is broken or unsupported."""
    if not int.from_bytes(profile[:4], "big") <= len(profile) <= MAX_PROFILE:
        return None
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return _SPACES.get(opened.profile.xcolor_space)


@lru_cache(maxsize=2)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Transform to sRGB; None if it would change nothing or cannot be built."""
    output = "RGBA" if mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, _SRGB, mode, output)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if _matrix_only(profile) and _changes_nothing(transform, mode) else transform


def _matrix_only(profile: bytes) -> bool:
    """Whether a profile has only curves and a matrix; testing ramps is then sufficient."""
    count = int.from_bytes(profile[_TAGS : _TAGS + 4], "big")
    tags = profile[_TAGS + 4 : _TAGS + 4 + _TAG * count]
    return not any(tags[at : at + 3] in (b"A2B", b"D2B") for at in range(0, len(tags), _TAG))


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the transform changes ramps of each channel and of grey by at most 1."""
    if mode == "CMYK":
        return False
    values = np.arange(_STEPS, dtype=np.uint8)
    ramps = np.zeros((4, _STEPS, 3), np.uint8)
    ramps[3] = values[:, None]
    for channel in range(3):
        ramps[channel, :, channel] = values
    picture = Image.fromarray(ramps if mode.startswith("RGB") else ramps[3:, :, 0])
    before, after = (
        np.asarray(one.convert("RGB"), np.int16)
        for one in (picture, _applied(picture.convert(mode), transform))
    )
    return bool(np.abs(before - after).max() <= 1)


@lru_cache(maxsize=2)
def _profile(colour: CodePoints | Gamma) -> bytes:
    """Build an ICC profile with three curves and a matrix."""
    curve = np.rint(colour.to_linear(np.linspace(0, 1, _STEPS)) * 0xFFFF).astype(">u2").tobytes()
    tags = {
        name: b"XYZ \0\0\0\0" + np.rint(column * 0x10000).astype(">i4").tobytes()
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colour.to_xyz().T, strict=True)
    }
    tags |= dict.fromkeys(
        (b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + struct.pack(">I", _STEPS) + curve
    )
    at = _TAGS + 4 + _TAG * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(">I4xI", at + len(body), _ICC_VERSION) + b"mntrRGB XYZ "
    head = head.ljust(36, b"\0") + b"acsp"
    white = np.rint(np.array(D50) * 0x10000).astype(">i4").tobytes()
    return bytes((head.ljust(68, b"\0") + white).ljust(_TAGS, b"\0") + table + body)


@lru_cache(maxsize=2)
def _tone_map(colour: CodePoints) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, _LUT_SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    table = hdr_to_srgb(colour, np.stack((red, green, blue), axis=-1))
    return ImageFilter.Color3DLUT(_LUT_SIDE, table.astype(np.float32).ravel(), _copy_table=False)
