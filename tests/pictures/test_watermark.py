"""Detection of the Stable Diffusion watermark, with a reimplementation of its encoder."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pictures.origin import Says, Source
from pictures.provenance import watermark
from pictures.provenance.watermark import FALSE_POSITIVES, MESSAGES, Message, find
from tests.conftest import photo

Pixels = NDArray[np.uint8]


def marked(pixels: Pixels, message: Message) -> Pixels:
    """Encode like `dwtDct` in `invisible-watermark` 0.2.0: Haar wavelet, blocks of 4 x 4."""
    height, width = (side // 4 * 4 for side in pixels.shape[:2])
    values = pixels.astype(float)
    luma = values @ (0.299, 0.587, 0.114)
    chroma = np.rint(0.492 * (values[..., 2] - luma) + 128)[:height, :width]
    corners = [chroma[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    low = sum(corners) / 2
    shift = np.zeros_like(low)
    columns = low.shape[1] // 4
    for row in range(low.shape[0] // 4):
        for column in range(columns):
            bit = message.bits[(row * columns + column) % len(message.bits)]
            block = low[4 * row :, 4 * column :][:4, :4]
            at = np.unravel_index(np.argmax(np.abs(block.ravel()[1:])) + 1, (4, 4))
            value = (block[at] // 36 + 0.25 + 0.5 * bit) * 36
            shift[4 * row + at[0], 4 * column + at[1]] = value - block[at]
    moved = np.zeros(pixels.shape[:2])
    moved[:height, :width] = shift.repeat(2, 0).repeat(2, 1) / 2
    blue, green = moved / 0.492, moved * -0.114 / 0.587 / 0.492
    values[..., 2] += blue
    values[..., 1] += green  # keeps the luma unchanged
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def natural(seed: int, height: int = 512, width: int = 512) -> Pixels:
    return np.asarray(photo(width, height, seed))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: one.program)
@pytest.mark.parametrize("size", [(512, 512), (1024, 768), (515, 650)])
def test_each_message_is_detected(message: Message, size: tuple[int, int]) -> None:
    found = find(marked(natural(3, *size), message))
    assert found is not None
    assert (found.source, found.says, found.by) == (
        Source.WATERMARK,
        Says.GENERATED,
        message.program,
    )
    assert found.details["right_bits"] >= found.details["needed_bits"] == message.threshold


def test_message_with_red_and_blue_swapped() -> None:
    found = find(marked(natural(3)[..., ::-1], MESSAGES[0])[..., ::-1])
    assert found is not None
    assert found.by == "Stable Diffusion XL"


def test_messages_equal_the_published_ones() -> None:
    bits = {one.program: "".join(str(int(bit)) for bit in one.bits) for one in MESSAGES}
    assert bits["Stable Diffusion XL"] == "101100111110110010010000011110111011000110011110"
    assert bits["FLUX.1"] == "001010101111111010000111100111001111010100101110"
    assert len(bits["Stable Diffusion 1"]) == 8 * len("StableDiffusionV1")


def test_false_positive_rate_is_below_the_limit() -> None:
    """In a binomial model, for all messages and both channel orders, with a margin of 100."""
    chance = 0.0
    for message in MESSAGES:
        size = len(message.bits)
        tail = sum(comb(size, right) for right in range(message.threshold, size + 1))
        chance += 2 * tail / 2**size
    assert chance <= FALSE_POSITIVES / 100


def test_pictures_without_a_watermark() -> None:
    """Nothing is detected, and matching bits are distributed as by chance."""
    scores = []
    for seed in range(100):
        pixels = natural(seed, 256, 256)
        assert find(pixels) is None
        for votes in watermark._votes(pixels):
            for message in MESSAGES:
                size = len(message.bits)
                right = int((watermark._read(votes, size) == message.bits).sum())
                scores.append((right - size / 2) / (size / 4) ** 0.5)
    assert abs(np.mean(scores)) < 0.3
    assert np.std(scores) < 1.3
    assert np.max(np.abs(scores)) < 4.8


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((512, 512, 3), 127, np.uint8),
        np.zeros((512, 512, 3), np.uint8),
        np.indices((512, 512)).sum(0)[..., None].repeat(3, 2).astype(np.uint8),
        (np.indices((512, 512)).sum(0) // 8 % 2 * 255)[..., None].repeat(3, 2).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8),
        np.asarray(Image.effect_mandelbrot((512, 512), (-2, -1.5, 1, 1.5), 100).convert("RGB")),
        np.zeros((8, 9000, 3), np.uint8),
        np.zeros((9000, 8, 3), np.uint8),
        np.zeros((100, 100, 3), np.uint8),
    ],
    ids=["grey", "black", "slope", "squares", "noise", "fractal", "flat", "tall", "small"],
)
def test_unusual_pictures_have_no_watermark(pixels: Pixels) -> None:
    assert find(pixels) is None


def test_detection_does_not_change_pixels() -> None:
    pixels = natural(1)
    before = pixels.copy()
    find(pixels)
    assert (pixels == before).all()
