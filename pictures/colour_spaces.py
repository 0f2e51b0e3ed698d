"""Colour spaces that a file declares by numbers instead of an ICC profile.

Primaries and transfer characteristics of ITU-T H.273 (cICP in PNG, nclx in AVIF and HEIF), and
gAMA with cHRM in PNG. No small maintained library maps these code points to colours. The formulas
are those of ITU-R BT.709, BT.1886, BT.2020 and BT.2100, SMPTE ST 240, ST 428-1 and ST 2084 and
IEC 61966-2-1, applied as in Chromium. Nothing here needs Pillow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BT709, SRGB = 1, 13
"""Code points of sRGB: its primaries, its transfer."""

D50 = (0.9642, 1.0, 0.8249)
"""White point of ICC profiles, CIE XYZ."""

_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_PRIMARIES: dict[int, tuple[tuple[float, float], ...]] = {  # white, red, green, blue: x, y
    BT709: (_D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: (_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    10: ((1 / 3, 1 / 3), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    11: (_DCI, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: (_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
_BT2020, _PQ, _HLG = 9, 16, 18
_REFERENCE_WHITE = 203  # cd/m², of HDR pictures by ITU-R BT.2408
_PQ_PEAK = 10_000  # cd/m²
_HLG_PEAK, _HLG_GAMMA = 1000, 1.2  # cd/m² and system gamma of the display of BT.2100
_DEFAULT_PEAK = 1000  # cd/m², of pictures that declare none
_WHITE = 0.5  # of full scale: output of the reference white if the peak is at least the default
_KNEE = 0.65  # how far towards full scale the tone curve's tangent at white is followed
_DARKEST = 1e-9
_SRGB_GAMMA = (0.4545, 0.4546)  # range of gAMA values with which encoders mean sRGB
_LARGEST = 4  # maximum CIE XYZ component of a plausible primary
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


@dataclass(frozen=True, slots=True)
class CodePoints:
    """Supported primaries and transfer characteristics of ITU-T H.273."""

    primaries: int
    transfer: int
    peak: float = _DEFAULT_PEAK
    """Peak luminance of an HDR picture, cd/m²."""

    @classmethod
    def known(cls, primaries: int, transfer: int, peak: float = 0) -> CodePoints | None:
        """Return the code points, or None if one of them is not supported."""
        known = primaries in _PRIMARIES and transfer in (*_TO_LINEAR, _PQ, _HLG)
        return cls(primaries, transfer, peak or _DEFAULT_PEAK) if known else None

    @property
    def hdr(self) -> bool:
        """Whether the transfer is PQ or HLG, which allow colours brighter than reference white."""
        return self.transfer in (_PQ, _HLG)

    def to_xyz(self) -> Floats:
        """Return the matrix (3, 3) from linear RGB to CIE XYZ relative to D50."""
        return _to_xyz(_PRIMARIES[self.primaries])

    def to_linear(self, samples: Floats) -> Floats:
        """Convert samples (0 to 1) to linear light (0 to 1); not for HDR transfers."""
        return _TO_LINEAR[self.transfer](samples)


@dataclass(frozen=True, slots=True)
class Gamma:
    """A power function and primaries, from gAMA and cHRM in PNG."""

    exponent: float
    """Exponent from sample to linear light."""
    primaries: tuple[tuple[float, float], ...]
    """x, y of white, red, green and blue."""

    @classmethod
    def known(cls, gamma: float, chromaticities: tuple[float, ...]) -> Gamma | None:
        """Create one from the values of gAMA and cHRM.

        Args:
            gamma: Exponent of the encoder, e.g. 0.45455.
            chromaticities: x and y of white, red, green and blue, or empty.

        Returns:
            None if the values mean sRGB or are invalid.
        """
        if not gamma:
            return None
        if not chromaticities:
            low, high = _SRGB_GAMMA
            return None if low < gamma < high else cls(1 / gamma, _PRIMARIES[BT709])
        points = tuple(zip(chromaticities[::2], chromaticities[1::2], strict=True))
        try:
            matrix = _to_xyz(points)
        except (ZeroDivisionError, np.linalg.LinAlgError):
            return None
        valid = np.isfinite(matrix).all() and np.abs(matrix).max() < _LARGEST
        valid = valid and max(chromaticities) <= 1  # browsers require this
        return cls(1 / gamma, points) if valid else None

    def to_xyz(self) -> Floats:
        """Return the matrix (3, 3) from linear RGB to CIE XYZ relative to D50."""
        return _to_xyz(self.primaries)

    def to_linear(self, samples: Floats) -> Floats:
        """Convert samples (0 to 1) to linear light (0 to 1)."""
        return samples**self.exponent


Colour = bytes | CodePoints | Gamma | None
"""Colour space declared by a file: ICC profile, code points, gamma, or None for sRGB."""


def hdr_to_srgb(colour: CodePoints, samples: Floats) -> Floats:
    """Tone-map HDR colours as Chromium does: SMPTE ST 2094-50, reference white tone mapping.

    Reference white (203 cd/m²) maps to between 0.5 and 1 of full scale in linear light: the higher
    the peak, the lower. Values below white are scaled linearly; values above follow a curve up to
    the peak. The largest of red, green and blue sets the factor for all three.

    Args:
        colour: Code points with an HDR transfer.
        samples: (…, 3), 0 to 1.

    Returns:
        sRGB (…, 3), 0 to 1.
    """
    to_wide = np.linalg.solve(_to_xyz(_PRIMARIES[_BT2020]), colour.to_xyz())
    if colour.transfer == _PQ:
        linear = _pq(samples) * (_PQ_PEAK / _REFERENCE_WHITE)
    else:
        scene = _hlg(samples)
        luminance = scene @ colour.to_xyz()[1]
        linear = scene * luminance[..., None] ** (_HLG_GAMMA - 1) * (_HLG_PEAK / _REFERENCE_WHITE)
    linear = linear @ to_wide.T
    brightest = np.maximum(linear.max(-1, keepdims=True), _DARKEST)
    linear *= _tone(brightest, colour.peak / _REFERENCE_WHITE) / brightest
    to_srgb = np.linalg.solve(_to_xyz(_PRIMARIES[BT709]), _to_xyz(_PRIMARIES[_BT2020]))
    return _from_linear(np.clip(linear @ to_srgb.T, 0, 1))


def _tone(light: Floats, peak: float) -> Floats:
    """Map light (1 = reference white) to 0 to 1, with 1 at `peak`."""
    if peak <= 1:
        return np.minimum(light, 1)
    headroom = min(np.log2(peak) / np.log2(_DEFAULT_PEAK / _REFERENCE_WHITE), 1)
    white = 1 - (1 - _WHITE) * headroom
    # Quadratic Bézier curve from (1, white) to (peak, 1); its tangents meet at `middle`.
    middle = 1 - _KNEE + _KNEE / white
    a, b = peak - 2 * middle + 1, 2 * (middle - 1)
    t = (np.sqrt(b * b + 4 * a * (np.clip(light, 1, peak) - 1)) - b) / (2 * a)
    above = white * ((1 - t) ** 2 + 2 * t * (1 - t) * middle) + t**2
    return np.asarray(np.where(light < 1, white * light, above))


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> Floats:
    white, *colours = (np.array([x, y, 1 - x - y]) for x, y in primaries)
    columns = np.stack(colours, axis=1)
    white = white / _positive(white[1])
    matrix = columns * np.linalg.solve(columns, white)
    cone = _BRADFORD @ white
    if np.abs(cone).min() < 1e-6:
        raise ZeroDivisionError("invalid white point")
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ D50 / cone) @ _BRADFORD
    return np.asarray(adapted @ matrix)


def _positive(number: float) -> float:
    if number <= 0:
        raise ZeroDivisionError("white point without luminance")
    return number


def _from_linear(light: Floats) -> Floats:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _srgb(samples: Floats) -> Floats:
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def _smpte_240(samples: Floats) -> Floats:
    return np.where(samples < 0.0913, samples / 4, ((samples + 0.1115) / 1.1115) ** (1 / 0.45))


def _pq(samples: Floats) -> Floats:
    """PQ samples to linear light; 1 is 10,000 cd/m²."""
    root = samples ** (32 / 2523)
    numerator = np.maximum(root - 107 / 128, 0)
    return (numerator / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)


def _hlg(samples: Floats) -> Floats:
    """HLG samples to scene light, 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(samples <= 0.5, samples**2 / 3, (np.exp((samples - c) / a) + b) / 12)


def _power(exponent: float, scale: float = 1) -> Callable[[Floats], Floats]:
    return lambda samples: np.minimum(scale * samples**exponent, 1)


_TO_LINEAR: dict[int, Callable[[Floats], Floats]] = {
    **dict.fromkeys((1, 6, 11, 14, 15), _power(2.4)),  # BT.1886 display
    4: _power(2.2),
    5: _power(2.8),
    7: _smpte_240,
    8: _power(1),
    SRGB: _srgb,
    17: _power(2.6, 52.37 / 48),
}
