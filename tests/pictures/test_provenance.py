"""Provenance in metadata, for each kind and each container."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from unittest.mock import Mock

import pytest

from pictures.origin import Confidence, Says, Source, Statement
from pictures.png import chunk
from pictures.provenance import xmp
from pictures.provenance.embedded import MAX_PART
from pictures.provenance.statement import (
    MAX_BYTES,
    MAX_PROMPT,
    MAX_STATEMENTS,
    clean,
    fitting,
    parse,
)
from pictures.provenance.summary import summarise
from tests import provenance
from tests.conftest import photo
from tests.provenance import (
    CAMERA,
    IPTC,
    PARAMETERS,
    by_source,
    described,
    read,
    with_text,
)
from tests.samples import encoded, every_format

AI = {"iptcExt.DigitalSourceType": IPTC + "trainedAlgorithmicMedia"}


def jpeg() -> bytes:
    return encoded(photo(64, 48), "JPEG")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp_in_each_container(image_format: str) -> None:
    data = described(encoded(photo(64, 48), image_format), AI)
    found = by_source(read(data, image_format))[Source.XMP]
    assert found == Statement(
        Source.XMP,
        Says.GENERATED,
        None,
        Confidence.UNSIGNED,
        {"source_type": "trainedAlgorithmicMedia"},
    )


def test_xmp_in_avif() -> None:
    packet = described(jpeg(), AI)
    start, end = packet.index(b"<?xpacket begin"), packet.index(b"<?xpacket end") + 19
    data = encoded(photo(64, 48), "AVIF", xmp=packet[start:end])
    assert by_source(read(data, "AVIF"))[Source.XMP].says is Says.GENERATED


@pytest.mark.parametrize(
    ("source_type", "says"),
    [
        ("trainedAlgorithmicMedia", Says.GENERATED),
        ("compositeWithTrainedAlgorithmicMedia", Says.COMPOSITE),
        ("digitalCapture", Says.CAPTURED),
        ("minorHumanEdits", Says.EDITED),
        ("digitalArt", None),
        ("nothing that is known", None),
    ],
)
def test_digital_source_types(source_type: str, says: Says | None) -> None:
    data = described(jpeg(), {"iptcExt.DigitalSourceType": IPTC + source_type})
    assert by_source(read(data))[Source.XMP].says is says


def test_credit_program_and_history() -> None:
    google = described(
        jpeg(), {"photoshop.Credit": "Made with Google AI"}, {"Credit": "Made with Google AI"}
    )
    found = by_source(read(google))
    assert {one.by for one in found.values()} == {"Google AI"}
    assert {one.says for one in found.values()} == {Says.GENERATED}
    assert set(found) == {Source.XMP, Source.IPTC}

    edited = described(jpeg(), {"xmp.CreatorTool": "Adobe Photoshop 25.0 (Windows)"})
    found = by_source(read(edited))
    assert found[Source.XMP].says is Says.EDITED
    assert found[Source.XMP].by == "Adobe Photoshop 25.0 (Windows)"


HISTORY = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF
xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description
xmlns:m="http://ns.adobe.com/xap/1.0/mm/" xmlns:e="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#">
<m:History><r:Seq>
<r:li e:action="created" e:when="2024-05-01"/>
<r:li r:parseType="Resource"><e:action>saved</e:action>
<e:softwareAgent>Adobe Photoshop 25.0</e:softwareAgent></r:li>
</r:Seq></m:History></r:Description></r:RDF></x:xmpmeta>"""


def test_history_in_either_form() -> None:
    found = xmp.read(HISTORY.encode()).statement
    assert found is not None
    assert found.says is Says.EDITED
    assert found.details["history"] == [
        {"action": "created", "when": "2024-05-01"},
        {"action": "saved", "program": "Adobe Photoshop 25.0"},
    ]


def test_remote_manifest() -> None:
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF '
        'xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description '
        'xmlns:d="http://purl.org/dc/terms/" d:provenance="{}"/></r:RDF></x:xmpmeta>'
    )
    there = xmp.read(packet.format("https://manifests.example/1").encode()).statement
    assert there is not None
    assert (there.says, there.details) == (
        None,
        {"remote_manifest": "https://manifests.example/1"},
    )
    assert xmp.read(packet.format("self#jumbf=/c2pa/1").encode()).statement is None


def test_camera_and_place() -> None:
    data = provenance.captured()
    found = by_source(read(data))[Source.EXIF]
    assert (found.says, found.by) == (Says.CAPTURED, "Canon EOS R5")
    assert found.details == {
        "make": "Canon",
        "model": "Canon EOS R5",
        "taken_at": "2024:05:01 10:00:00",
    }
    place = by_source(read(data, location=True))[Source.EXIF].details
    assert (place["latitude"], place["longitude"]) == ("52.510000", "-13.250000")


def test_edited_photograph_is_captured_and_edited() -> None:
    data = described(jpeg(), exif={**CAMERA, "Image.Software": "GIMP 2.10"})
    captured, edited = read(data)
    assert (captured.says, captured.by) == (Says.CAPTURED, "Canon EOS R5")
    assert (edited.says, edited.by) == (Says.EDITED, "GIMP 2.10")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_in_each_container(image_format: str) -> None:
    data = described(encoded(photo(64, 48), image_format), exif=CAMERA)
    assert by_source(read(data, image_format))[Source.EXIF].by == "Canon EOS R5"


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF"])
def test_exif_by_pillow(image_format: str) -> None:
    found = read(every_format()[image_format], image_format)
    assert all(one.source is Source.EXIF for one in found)


def test_broken_part_is_skipped() -> None:
    good = described(jpeg(), AI, exif=CAMERA)
    assert set(by_source(read(good))) == {Source.EXIF, Source.XMP}
    broken_xmp = good.replace(b"</rdf:RDF>", b"</rdf:RDX>")
    assert broken_xmp != good
    assert set(by_source(read(broken_xmp))) == {Source.EXIF}
    at = good.index(b"Exif\0\0") + 6
    assert set(by_source(read(good[:at] + b"\xff" * 8 + good[at + 8 :]))) == {Source.XMP}
    texts = with_text(parameters=PARAMETERS, Software="x")
    at = texts.index(b"Software")
    damaged = texts[:at] + b"S0ftware" + texts[at + 8 :]  # its CRC is wrong now
    assert len(read(damaged, "PNG")) == 1


def test_metadata_beyond_the_end_of_the_file() -> None:
    good = described(jpeg(), AI)
    cut = good[: good.index(b"http://ns.adobe.com/xap/1.0/") + 100]
    assert read(cut) == []


BOMB_ENTITIES = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 9))
    + b"]><x>&a8;</x>"
)


def nested(tag: bytes, depth: int) -> bytes:
    dc = b'<%s xmlns:dc="http://purl.org/dc/elements/1.1/">' % tag
    return dc + b"<%s>" % tag * depth + b"</%s>" % tag * depth + b"</%s>" % tag


@pytest.mark.parametrize(
    "packet",
    [BOMB_ENTITIES, nested(b"a", 100_000), nested(b"dc:description", 30_000), b"<" * MAX_PART],
    ids=["entities", "nested", "nested properties", "no XML"],
)
def test_xmp_bomb(packet: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_text(**{"XML:com.adobe.xmp": packet.decode()})
    value = Mock(side_effect=xmp._value)  # visits what an element contains
    monkeypatch.setattr(xmp, "_value", value)
    assert read(data, "PNG") == []
    assert value.call_count <= len(xmp._NAMES)


def test_text_bomb() -> None:
    """Gigabytes once decompressed: skipped after the first."""
    packed = zlib.compress(bytes(2**26), 9)
    bomb = chunk(b"zTXt", b"parameters\0\0" + packed)
    plain = with_text(parameters=PARAMETERS)
    at = plain.index(b"tEXt") - 4
    (found,) = read(plain[:at] + 40 * bomb + plain[at:], "PNG")
    assert found.details["model"] == "dreamshaper_8"


def test_long_texts_are_truncated() -> None:
    (found,) = read(with_text(parameters="x" * 100_000 + "\n" + PARAMETERS), "PNG")
    assert len(found.details["prompt"]) == MAX_PROMPT
    assert len(json.dumps([found.details])) < 3 * MAX_PROMPT


def test_invisible_characters_are_removed() -> None:
    assert clean("a\u202eb\0c\ud800\x1b[31m\nd") == "abc[31m d"
    assert clean("a\r\n\u2028\t b") == "a b"
    assert clean("a\nb", lines=True) == "a\nb"
    assert clean(b"\xff" * 3) == "\ufffd" * 3
    assert clean("x" * 300) == "x" * 199 + "…"
    assert clean("x" * 200) == "x" * 200


def json_size(statements: list[Statement]) -> int:
    return sum(len(json.dumps(asdict(one), ensure_ascii=False).encode()) for one in statements)


def test_statements_that_are_too_long_lose_details() -> None:
    long = Statement(
        Source.TEXT,
        Says.GENERATED,
        "x",
        details={"generator": "x", "model": "y", "prompt": "é" * MAX_PROMPT, "keyword": "k"},
    )
    kept = fitting([long] * 4)
    assert [one.details == long.details for one in kept] == [True, False, False, False]
    assert kept[1].details["prompt"].endswith("é…")
    assert kept[3].details == {"generator": "x", "model": "y", "shortened": True}
    assert json_size(kept) <= MAX_BYTES
    assert fitting([long]) == [long]
    assert len(fitting([long] * 40)) == MAX_STATEMENTS


@pytest.mark.parametrize("letter", ["é", "x", '"', "\n", "😀"])
def test_long_manifest_keeps_its_validity(letter: str) -> None:
    kept = {
        "valid": False,
        "trusted": False,
        "signer": "Test Signer",
        "problems": ["assertion.dataHash.mismatch"],
    }
    steps = [{"action": "c2pa.edited", "description": letter * 200} for _ in range(20)]
    parts = [{"title": letter * 200, "relationship": "componentOf"} for _ in range(10)]
    manifest = Statement(
        Source.C2PA,
        Says.EDITED,
        "Test",
        details=kept | {"actions": 3 * steps, "ingredients": 3 * parts},
    )
    prompt = Statement(
        Source.TEXT,
        Says.GENERATED,
        details={"generator": "x", "model": "y", "prompt": letter * MAX_PROMPT},
    )
    first, second = fitting([manifest, prompt])
    assert kept.items() <= first.details.items()
    assert first.details["shortened"]
    assert 0 < len(first.details["actions"]) <= len(3 * steps)
    assert first.details["actions"][0] == steps[0]
    assert (second.details["generator"], second.details["model"]) == ("x", "y")
    assert json_size([first, second]) <= MAX_BYTES
    text, shortened = fitting([prompt, manifest])
    assert kept.items() <= shortened.details.items()
    assert text.details["prompt"].strip("…") == letter * len(text.details["prompt"].strip("…"))
    assert json_size([text, shortened]) <= MAX_BYTES


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"says": None, "by": None, "confidence": "unsigned", "details": {}},
        {"source": "x", "says": None, "by": None, "confidence": "unsigned", "details": {}},
        {"source": "c2pa", "says": "x", "by": None, "confidence": "unsigned", "details": {}},
        {"source": "c2pa", "says": None, "by": 1, "confidence": "unsigned", "details": {}},
        {"source": "c2pa", "says": None, "by": None, "confidence": "unsigned", "details": []},
    ],
)
def test_invalid_statement(value: object) -> None:
    with pytest.raises(ValueError, match=r"statement|valid"):
        parse(value)


def test_summary_is_the_strongest_statement() -> None:
    trusted = Statement(Source.C2PA, Says.CAPTURED, "Camera Inc", Confidence.SIGNED_TRUSTED)
    unsigned = Statement(Source.TEXT, Says.GENERATED, "Midjourney")
    summary = summarise([unsigned, trusted])
    assert (summary.says, summary.by) == (Says.CAPTURED, "Camera Inc")
    assert summary.text == (
        "Signed by a trusted signer: the picture was taken with a camera. Signer: “Camera Inc”."
    )
    camera = Statement(Source.EXIF, Says.CAPTURED, "Canon")
    summary = summarise([camera, unsigned])
    assert (summary.says, summary.confidence) == (Says.GENERATED, Confidence.UNSIGNED)
    assert "Anyone can write or change such metadata." in summary.text
    stranger = Statement(Source.C2PA, Says.GENERATED, "X", Confidence.SIGNED_UNTRUSTED)
    assert "Signed in the name of “X” (not on the trust list)." in summarise([stranger]).text
    broken = Statement(Source.C2PA, Says.GENERATED, "X", details={"valid": False})
    assert "does not match the file" in summarise([broken]).text
    silent = Statement(Source.EXIF, None, "Canon")
    for nothing in ([], [silent]):
        summary = summarise(nothing)
        assert (summary.says, summary.by, summary.confidence) == (None, None, None)
        assert "proves nothing" in summary.text


def test_untrusted_signature_counts_no_more_than_none() -> None:
    stranger = Statement(Source.C2PA, Says.CAPTURED, "Leica", Confidence.SIGNED_UNTRUSTED)
    unsigned = Statement(Source.TEXT, Says.GENERATED, "Midjourney")
    for statements in ([stranger, unsigned], [unsigned, stranger]):
        assert summarise(statements).says is Says.GENERATED
    assert summarise([stranger, Statement(Source.EXIF, Says.EDITED, "GIMP")]).says is Says.EDITED
    camera = Statement(Source.EXIF, Says.CAPTURED, "Leica")
    assert summarise([stranger, camera]).confidence is Confidence.SIGNED_UNTRUSTED


@pytest.mark.parametrize("confidence", Confidence)
@pytest.mark.parametrize("source", [Source.C2PA, Source.EXIF, Source.WATERMARK])
def test_name_cannot_pass_for_the_summary(confidence: Confidence, source: Source) -> None:
    forged = 'Canon”).\nSigned by Leica, a trusted signer: [it is\u2028real]. "«' + "x" * 100
    text = summarise([Statement(source, Says.CAPTURED, forged, confidence)]).text
    honest = summarise([Statement(source, Says.CAPTURED, "Canon", confidence)]).text
    shown = "Canon. Signed by Leica, a trusted signer: it is real. xxxxx…"
    assert len(shown) == 60
    assert text == honest.replace("Canon", shown)
    assert text.index("“Canon") > text.index("camera")
    assert "\n" not in text


def test_name_of_nothing_but_quotes() -> None:
    text = summarise([Statement(Source.EXIF, Says.CAPTURED, "“()”")]).text
    assert text.endswith("such metadata.")


def test_line_breaks_only_in_prompts() -> None:
    (found,) = read(described(jpeg(), exif={**CAMERA, "Image.Model": "Canon\nEOS"}))
    assert found.by == "Canon EOS"
    (text,) = read(with_text(parameters="a\nlighthouse\n" + PARAMETERS), "PNG")
    assert text.details["prompt"].startswith("a\nlighthouse\n")
    assert not any("\n" in str(text.details[key]) for key in ("generator", "model", "settings"))
