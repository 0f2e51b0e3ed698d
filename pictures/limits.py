"""Limits of memory and time for decoding, from the size of a picture."""

from dataclasses import dataclass

_MEMORY, _PIXEL_MEMORY, _FILE_COPIES = 192 * 2**20, 24, 3  # bytes, bytes per pixel, file sizes
_CPU_SECONDS, _PIXELS_PER_SECOND = 3, 2_000_000
_WAIT_SECONDS, _WAIT_FACTOR = 10.0, 4  # allowance for a busy machine


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for one picture."""

    memory: int
    """Bytes of address space on top of what the process already uses."""
    cpu_seconds: int
    seconds: float
    """Wall-clock time until the result."""


def limits_for(pixels: int, size: int, work: int = 0) -> Limits:
    """Return the limits for a picture of any format.

    Args:
        pixels: Width times height.
        size: Size of the file in bytes.
        work: Number of pixels to decode, if it is larger: those of several frames.
    """
    cpu = _CPU_SECONDS + max(pixels, work) // _PIXELS_PER_SECOND
    return Limits(
        memory=_MEMORY + _PIXEL_MEMORY * pixels + _FILE_COPIES * size,
        cpu_seconds=cpu,
        seconds=_WAIT_SECONDS + _WAIT_FACTOR * cpu,
    )
