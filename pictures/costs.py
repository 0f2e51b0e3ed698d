"""What decoding a picture may cost, by what its header tells."""

from dataclasses import dataclass

_MEMORY, _PIXEL_MEMORY, _FILE_COPIES = 192 * 2**20, 24, 3  # bytes, bytes a pixel, times its bytes
_CPU_SECONDS, _PIXELS_PER_SECOND = 3, 2_000_000
_WAIT_SECONDS, _WAIT_FACTOR = 10.0, 4  # a busy machine is not at fault


@dataclass(frozen=True, slots=True)
class Costs:
    """Limits of the work on one picture."""

    memory: int
    """Bytes of address space beyond what the process holds before."""
    cpu_seconds: int
    seconds: float
    """Until there has to be a result."""


def costs(pixels: int, size: int) -> Costs:
    """What a picture may cost, whatever its format.

    Args:
        pixels: Its width times height.
        size: Bytes of its file.
    """
    cpu = _CPU_SECONDS + pixels // _PIXELS_PER_SECOND
    return Costs(
        memory=_MEMORY + _PIXEL_MEMORY * pixels + _FILE_COPIES * size,
        cpu_seconds=cpu,
        seconds=_WAIT_SECONDS + _WAIT_FACTOR * cpu,
    )
