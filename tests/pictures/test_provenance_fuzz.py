"""Damaged files that say where they come from: statements or none, and nothing worse.

`FUZZ_SEED` and `FUZZ_CASES` choose others, as in tests/app/test_fuzz.py.
"""

from __future__ import annotations

import gzip
import json
import os
from contextlib import closing
from dataclasses import asdict

import psutil
import pytest

from pictures.decoders import Decoders, ProvenanceOptions
from pictures.origin import Confidence, Source
from pictures.provenance.statement import MAX_BYTES
from tests import provenance
from tests.app.fuzzing import damaged

SEED = int(os.environ.get("FUZZ_SEED", "1"))
CASES = int(os.environ.get("FUZZ_CASES", "900"))


def originals() -> list[bytes]:
    described = provenance.described(
        provenance.captured(),
        {"iptcExt.DigitalSourceType": provenance.IPTC + "trainedAlgorithmicMedia"},
        {"Credit": "Made with Google AI"},
        {"Photo.UserComment": f"charset=Unicode {provenance.PARAMETERS}"},
    )
    return [
        described,
        provenance.with_text(parameters=provenance.PARAMETERS),
        provenance.with_text(compressed=True, prompt='{"1":{"class_type":"x","inputs":{}}}'),
        provenance.with_stealth(gzip.compress(provenance.PARAMETERS.encode())),
        *map(provenance.generated, provenance.MEDIA_TYPES),
    ]


@pytest.mark.timeout(400)
def test_readers_only_state_or_do_not() -> None:
    files = originals()
    counts = dict.fromkeys((*map(str, Source), "unreadable manifest"), 0)
    options = ProvenanceOptions(location=True)
    with closing(Decoders(1, max_pixels=1_000_000, provenance=options)) as decoders:
        decoders.statements(files[0])
        child = max(psutil.Process().children(), key=lambda child: child.create_time())
        for case in range(CASES):
            found = decoders.statements(damaged(files, SEED, case)).statements
            assert len(json.dumps([asdict(one) for one in found])) < 2 * MAX_BYTES, (SEED, case)
            for one in found:
                counts[one.source] += 1
                # No signature in these files chains to the default trust list.
                assert one.confidence is not Confidence.SIGNED_TRUSTED
                counts["unreadable manifest"] += one.details.get("valid") is False
        assert child.is_running(), f"FUZZ_SEED={SEED}: a case brought the reader down"
    # Faults left every kind readable in some, or nothing of the above means much. Hidden text
    # lies in the pixels, which seldom survive one.
    rare = (Source.WATERMARK, Source.ALPHA)
    assert min(count for kind, count in counts.items() if kind not in rare) > 0, counts
