"""How long it takes to read what a file says of its origin: `python -m benchmarks.provenance`.

Pictures like photographs, at native and at larger sizes, with metadata and with a C2PA manifest
where one can be signed; each in the confined process that workers use.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pictures.decoders import Decoders, ProvenanceOptions
from pictures.provenance import watermark

_MOST_PLAIN, _MOST_SIGNED = 15.0, 60.0  # ms, p95, that reading may take


def main() -> None:
    """Print p95 by kind, and the share of decoding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="pictures")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"plain": [], "signed": [], "decode": []}
    with closing(Decoders(1, max_pixels=10**8, provenance=ProvenanceOptions())) as decoders:
        for file in arguments.files:
            data = file.read_bytes()
            pixels = decoders.decode(data)  # warm
            for _ in range(arguments.repeat):
                statements = decoders.statements(data).statements
                signed = any(one.source == "c2pa" for one in statements)
                read = _timed(lambda data=data: decoders.statements(data))
                read += _timed(lambda pixels=pixels: watermark.find(pixels))
                times["signed" if signed else "plain"].append(read)
                times["decode"].append(_timed(lambda data=data: decoders.decode(data)))
    decoding = statistics.median(times["decode"])
    for kind, most in (("plain", _MOST_PLAIN), ("signed", _MOST_SIGNED)):
        if len(times[kind]) > 1:
            p95 = statistics.quantiles(times[kind], n=20)[-1]
            middle = statistics.median(times[kind])
            print(
                f"{kind}: {len(times[kind])} readings, median {middle:.1f} ms, p95 {p95:.1f} ms "
                f"(bar {most:.0f}), median {middle / decoding:.2f} of decoding"
            )


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
