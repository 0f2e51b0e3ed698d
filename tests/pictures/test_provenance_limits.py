"""Limits of the readers of provenance: what exceeds them costs only its own statements."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import psutil
import pytest

from pictures.decoders import Decoders, ProvenanceOptions
from pictures.origin import Says, Source
from pictures.png import chunk
from pictures.provenance import embedded, reading, watermark, xmp
from pictures.provenance.embedded import MAX_PART, MAX_PARTS, MAX_TOTAL
from pictures.provenance.statement import MAX_OF_SOURCE
from pictures.provenance.summary import summarise
from tests import provenance
from tests.provenance import IPTC, PARAMETERS, with_text

_FIRST = 33  # end of a PNG's header chunk
PACKET = (
    '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"{more}>'
    '<r:Description e:DigitalSourceType="' + IPTC + 'trainedAlgorithmicMedia">{body}'
    "</r:Description></r:RDF>"
)


def packet(more: str = "", body: str = "") -> bytes:
    return PACKET.format(more=more, body=body).encode()


LONG_NAMESPACE = packet(f' xmlns:x="urn:{"x" * 200_000}"', "<x:a/>" * 120_000)
_ATTRIBUTES = " ".join(f"x:a{number}=''" for number in range(60_000))
MANY_ATTRIBUTES = packet(f' xmlns:x="urn:{"x" * 190}"', f"<b {_ATTRIBUTES}/>")


def xmp_chunk(content: bytes) -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + content)


def text_chunk(keyword: str, text: bytes) -> bytes:
    return chunk(b"zTXt", keyword.encode() + b"\0\0" + zlib.compress(text))


def begin_with(*chunks: bytes, picture: bytes | None = None) -> bytes:
    """A PNG with the text of a generator, after other chunks."""
    png = with_text(parameters=PARAMETERS) if picture is None else picture
    return png[:_FIRST] + b"".join(chunks) + png[_FIRST:]


def end_with(*chunks: bytes) -> bytes:
    """A PNG with the text of a generator, before other chunks."""
    png = with_text(parameters=PARAMETERS)
    return png[:-12] + b"".join(chunks) + png[-12:]


def software(name: str) -> bytes:
    """EXIF data with the name of a program."""
    value = name.encode() + b"\0"
    entry = struct.pack("<HHHII", 1, 0x0131, 2, len(value), 26)
    return b"II*\0" + struct.pack("<I", 8) + entry + struct.pack("<I", 0) + value


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    options = ProvenanceOptions()
    with closing(Decoders(1, max_pixels=1_000_000, provenance=options)) as made:
        made.statements(with_text(parameters=PARAMETERS))
        yield made


BOMBS = {
    "long namespace": begin_with(xmp_chunk(LONG_NAMESPACE)),
    "long namespace and texts": end_with(
        xmp_chunk(LONG_NAMESPACE), *[text_chunk("Comment", bytes(MAX_PART + 5))] * 3000
    ),
    "many elements": begin_with(*[xmp_chunk(packet(body="<a/>" * 240_000))] * 8),
    "many attributes": begin_with(*[xmp_chunk(MANY_ATTRIBUTES)] * 8),
    "raw profiles": end_with(*[text_chunk("Raw profile type exif", bytes(MAX_PART + 5))] * 1000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_oversized_parts_cost_only_their_statements(decoders: Decoders, name: str) -> None:
    child = max(psutil.Process().children(), key=lambda child: child.create_time())
    found = decoders.statements(BOMBS[name])
    assert child.is_running(), "it took more CPU time or memory than a reader has"
    assert Source.TEXT in [one.source for one in found.statements]
    assert found.incomplete
    assert "Some metadata could not be read" in summarise(found.statements, incomplete=True).text


@pytest.mark.parametrize(
    ("refused", "enough"),
    [(packet(body="<a/>" * 240_000), 51_000 * len("<a/>")), (LONG_NAMESPACE, 2 * 201_000)],
    ids=["many elements", "long namespace"],
)
def test_complex_packets_are_refused_early(
    refused: bytes, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = 0

    class Parser(xmp.XMLParser):  # type: ignore[misc]
        def feed(self, data: bytes) -> None:
            nonlocal fed
            fed += len(data)
            super().feed(data)

    monkeypatch.setattr(xmp, "XMLParser", Parser)
    with pytest.raises(ValueError, match=r"too (long|many)"):
        xmp.read(refused)
    assert fed < enough + xmp._STEP < len(refused) / 2


def test_packet_within_the_limits_is_read() -> None:
    assert xmp.read(packet(body="<a/>" * 40_000)).statement is not None


def test_names_of_namespaces_have_a_limit() -> None:
    longest = "x" * 200
    assert xmp.read(packet(f' xmlns:x="{longest}"')).statement is not None
    with pytest.raises(ValueError, match="too long"):
        xmp.read(packet(f' xmlns:x="{longest}x"'))


def test_total_size_and_number_of_text_chunks() -> None:
    large = text_chunk("Comment", bytes(MAX_PART))
    found = embedded.read(begin_with(*[large] * 5), "PNG")
    assert sum(len(text) for _, text in found.texts) <= MAX_TOTAL
    assert found.skipped
    found = embedded.read(begin_with(*[text_chunk("a", b"b")] * MAX_PARTS), "PNG")
    assert len(found.texts) == MAX_PARTS
    assert found.skipped


@pytest.mark.parametrize(
    "broken",
    [
        xmp_chunk(b"<x>"),
        text_chunk("Raw profile type exif", b"\nexif\n 2\nzz"),
        chunk(b"zTXt", b"Comment\0\0broken"),
        chunk(b"eXIf", b"broken"),
        chunk(b"tEXt", b"a\0b")[:-1] + b"x",
    ],
)
def test_broken_part_is_reported(broken: bytes) -> None:
    found = reading.read(begin_with(broken), "PNG", location=False)
    assert found.incomplete
    assert [one.source for one in found.statements] == [Source.TEXT]
    whole = reading.read(begin_with(), "PNG", location=False)
    assert (whole.statements, whole.incomplete) == (found.statements, False)


def test_ended_reader_is_reported(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoders, "_read", lambda *_: None)
    found = decoders.statements(with_text(parameters=PARAMETERS))
    assert (found.statements, found.incomplete) == ([], True)
    text = summarise(found.statements, incomplete=found.incomplete).text
    assert text.startswith("Some metadata could not be read; the rest does not say")


def test_decoys_leave_room_for_other_sources() -> None:
    decoys = [chunk(b"eXIf", software(f"Adobe Photoshop {number}")) for number in range(8)]
    found = reading.read(begin_with(*decoys), "PNG", location=False).statements
    assert [one.source for one in found] == [Source.EXIF] * MAX_OF_SOURCE + [Source.TEXT]
    assert found[-1].says is Says.GENERATED


@pytest.mark.parametrize("shape", [(7, 20_000), (20_000, 3), (1, 70_000), (8, 9_000), (9_000, 12)])
def test_narrow_pictures_have_no_watermark(shape: tuple[int, int]) -> None:
    assert watermark.find(np.zeros((*shape, 3), np.uint8)) is None


def test_signed_file_is_complete(decoders: Decoders) -> None:
    assert not decoders.statements(provenance.generated()).incomplete
