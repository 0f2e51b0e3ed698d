"""Colour description in the sequence header of an AV1 stream (AV1 specification, 5.5)."""

_SEQUENCE_HEADER = 1  # OBU type
_HIGH, _PROFESSIONAL = 1, 2  # profiles
_LARGEST_LEVEL_WITHOUT_TIER = 7


def code_points(data: bytes) -> tuple[int, int] | None:
    """Return primaries and transfer (ITU-T H.273) from the first sequence header in `data`.

    None if there is no sequence header or it has no colour description.
    """
    at = 0
    while at + 2 <= len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        at += 1 + extended
        if not sized:
            return None
        size = shift = 0
        while at < len(data):
            byte, at = data[at], at + 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 28:
                break
        if kind == _SEQUENCE_HEADER:
            return _colours(_Bits(data[at : at + size]))
        at += size
    return None


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """Read the next `count` bits as an unsigned number; bits past the end are 0."""
        self._left -= count
        mask = (1 << count) - 1
        return (self._value >> self._left if self._left >= 0 else 0) & mask


def _colours(bits: _Bits) -> tuple[int, int] | None:
    take = bits.take
    profile, _, reduced = take(3), take(1), take(1)
    if reduced:
        take(5)
    elif take(1):  # timing info: still pictures have none
        return None
    else:
        _operating_points(bits)
    width, height = take(4) + 1, take(4) + 1
    take(width + height)
    if not reduced:
        take(7 * take(1))
    take(3)
    if not reduced:
        _tools(bits)
    take(3)
    if take(1) and profile == _PROFESSIONAL:
        take(1)
    if profile != _HIGH:
        take(1)
    return (take(8), take(8)) if take(1) else None


def _operating_points(bits: _Bits) -> None:
    take = bits.take
    delays = take(1)
    for _ in range(take(5) + 1):
        take(12)
        if take(5) > _LARGEST_LEVEL_WITHOUT_TIER:
            take(1)
        if delays and take(1):
            take(4)


def _tools(bits: _Bits) -> None:
    """Skip the coding tool flags, which a reduced still picture header omits."""
    take = bits.take
    take(4)
    order = take(1)
    take(2 * order)
    screen_content = 1 if take(1) else take(1)
    if screen_content and not take(1):
        take(1)
    take(3 * order)
