"""C2PA manifests signed with the official library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pictures.decoders import Decoders, ProvenanceOptions
from pictures.origin import Confidence, Says, Source, Statement
from pictures.provenance.ingredients import Ingredients
from pictures.provenance.manifest import Manifests
from pictures.provenance.statement import Reading
from tests import provenance
from tests.conftest import photo
from tests.provenance import OPENED, PLACED, action, signed
from tests.samples import encoded, every_format, heic


@pytest.fixture(scope="module")
def trust_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "roots.pem"
    path.write_text(provenance.signer().root)
    return path


@pytest.fixture(scope="module")
def manifests(trust_list: Path) -> Manifests:
    return Manifests(trust_list)


def one(found: list[Statement]) -> Statement:
    (statement,) = found
    assert statement.source is Source.C2PA
    return statement


@pytest.mark.parametrize("image_format", provenance.MEDIA_TYPES)
def test_trusted_signature_in_each_format(manifests: Manifests, image_format: str) -> None:
    found = one(manifests.read(provenance.generated(image_format), image_format))
    assert found.says is Says.GENERATED
    assert found.by == "Test Generator Inc"
    assert found.confidence is Confidence.SIGNED_TRUSTED
    details = found.details
    assert (details["valid"], details["trusted"]) == (True, True)
    assert details["signer"] == "Test Signer"
    assert details["claim_generator"] == "Test Generator 1.0"
    assert details["actions"] == [
        {"action": "c2pa.created", "source_type": "trainedAlgorithmicMedia"}
    ]
    assert "problems" not in details


def test_signature_of_an_unknown_signer() -> None:
    found = one(Manifests().read(provenance.generated(), "JPEG"))
    assert found.confidence is Confidence.SIGNED_UNTRUSTED
    assert found.says is Says.GENERATED
    assert found.details["problems"] == ["signingCredential.untrusted"]


def test_changed_pixels_break_the_signature(manifests: Manifests) -> None:
    found = one(manifests.read(provenance.tampered(), "PNG"))
    assert found.confidence is Confidence.UNSIGNED
    assert not found.details["valid"]
    assert "assertion.dataHash.mismatch" in found.details["problems"]


def test_changed_claim_breaks_the_signature(manifests: Manifests) -> None:
    data = provenance.generated()
    changed = data.replace(b"trainedAlgorithmicMedia", b"digitalCaptureByACamera")
    assert changed != data
    found = one(manifests.read(changed, "JPEG"))
    assert found.confidence is Confidence.UNSIGNED
    assert not found.details["valid"]


def test_broken_manifest_is_reported_as_invalid(manifests: Manifests) -> None:
    data = provenance.generated()
    at = data.index(b"jumd") + 20
    broken = data[:at] + bytes(40) + data[at + 40 :]
    found = one(manifests.read(broken, "JPEG"))
    assert not found.details["valid"]
    assert found.details["problems"]


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        ([action("created", "trainedAlgorithmicMedia")], Says.GENERATED),
        ([action("created", "compositeWithTrainedAlgorithmicMedia")], Says.COMPOSITE),
        ([action("created", "digitalCapture")], Says.CAPTURED),
        ([action("created", "digitalCapture"), action("resized")], Says.CAPTURED),
        ([action("created", "digitalCapture"), action("color_adjustments")], Says.EDITED),
        (
            [action("created", "digitalCapture"), action("edited", "trainedAlgorithmicMedia")],
            Says.COMPOSITE,
        ),
        ([action("created", "digitalArt")], None),
        ([action("created", "algorithmicMedia")], None),
    ],
)
def test_actions(manifests: Manifests, actions: list[dict[str, str]], says: Says | None) -> None:
    data = signed(encoded(photo(64, 48), "JPEG"), "JPEG", *actions)
    assert one(manifests.read(data, "JPEG")).says is says


@pytest.mark.parametrize(
    ("relationship", "opening", "says"),
    [
        ("parentOf", [OPENED], Says.GENERATED),
        ("parentOf", [OPENED, action("edited")], Says.GENERATED),
        (
            "componentOf",
            [action("created", "digitalCapture"), PLACED],
            Says.COMPOSITE,
        ),
    ],
)
def test_ingredients(
    manifests: Manifests, relationship: str, opening: list[dict[str, str]], says: Says
) -> None:
    before = provenance.generated()
    later = encoded(photo(64, 48, 1), "JPEG")
    data = signed(later, "JPEG", *opening, ingredient=(before, relationship))
    found = one(manifests.read(data, "JPEG"))
    assert found.says is says
    assert found.confidence is Confidence.SIGNED_TRUSTED
    (ingredient,) = found.details["ingredients"]
    assert ingredient == {
        "title": "before.jpg",
        "relationship": relationship,
        "signer": "Test Generator Inc",
        "valid": True,
        "trusted": True,
        "claim_generator": "Test Generator 1.0",
        "says": "generated",
    }


CREATED = action("created", "digitalCapture")


def stranger(source_type: str) -> bytes:
    """A picture signed in the name of a camera maker, by a signer that is not trusted."""
    later = encoded(photo(64, 48, 2), "JPEG")
    maker = provenance.signer("Leica Camera AG")
    return signed(later, "JPEG", action("created", source_type), by=maker)


def other_pixels(data: bytes) -> bytes:
    """The same file with changed picture data."""
    return data[:-40] + bytes(20) + data[-20:]


@pytest.mark.parametrize(
    ("relationship", "opening", "source_type", "says"),
    [
        ("parentOf", [OPENED], "digitalCapture", None),
        ("parentOf", [OPENED, action("color_adjustments")], "digitalCapture", Says.EDITED),
        ("parentOf", [OPENED], "trainedAlgorithmicMedia", None),
        ("componentOf", [CREATED, PLACED], "trainedAlgorithmicMedia", Says.EDITED),
        ("componentOf", [CREATED, PLACED], "digitalCapture", Says.EDITED),
    ],
)
@pytest.mark.parametrize("kind", ["untrusted", "tampered", "both"])
def test_ingredient_that_is_not_trusted_does_not_count(
    manifests: Manifests,
    relationship: str,
    opening: list[dict[str, str]],
    source_type: str,
    says: Says | None,
    kind: str,
) -> None:
    before = encoded(photo(64, 48, 2), "JPEG")
    before = signed(before, "JPEG", action("created", source_type))
    if kind != "tampered":
        before = stranger(source_type)
    if kind != "untrusted":
        before = other_pixels(before)
    later = encoded(photo(64, 48, 1), "JPEG")
    data = signed(later, "JPEG", *opening, ingredient=(before, relationship))
    found = one(manifests.read(data, "JPEG"))
    assert (found.says, found.confidence) == (says, Confidence.SIGNED_TRUSTED)
    (ingredient,) = found.details["ingredients"]
    assert (ingredient["valid"], ingredient["trusted"]) == (kind == "untrusted", False)
    assert ingredient["says"] in ("captured", "generated")
    if relationship == "parentOf":
        assert "source_types" not in found.details


def test_chain_counts_up_to_the_first_that_is_not_trusted(manifests: Manifests) -> None:
    """The trusted signer in between does not answer for the camera either."""
    for first, says in (
        (provenance.generated(), Says.GENERATED),
        (stranger("digitalCapture"), None),
    ):
        data = first
        for number in range(3):
            later = encoded(photo(64, 48, number), "JPEG")
            data = signed(later, "JPEG", OPENED, ingredient=(data, "parentOf"))
        found = one(manifests.read(data, "JPEG"))
        assert (found.says, found.confidence) == (says, Confidence.SIGNED_TRUSTED)
        (ingredient,) = found.details["ingredients"]
        assert ingredient["trusted"]
        assert ingredient.get("says") == says


def test_signature_of_an_unknown_signer_with_a_trusted_ingredient(manifests: Manifests) -> None:
    later = encoded(photo(64, 48, 1), "JPEG")
    maker = provenance.signer("Leica Camera AG")
    data = signed(later, "JPEG", OPENED, ingredient=(provenance.generated(), "parentOf"), by=maker)
    found = one(manifests.read(data, "JPEG"))
    assert (found.says, found.by) == (Says.GENERATED, "Leica Camera AG")
    assert found.confidence is Confidence.SIGNED_UNTRUSTED
    (ingredient,) = found.details["ingredients"]
    assert ingredient["valid"]


@pytest.mark.parametrize("recorded", ["success", "failure"])
def test_recorded_trust_counts_only_in_a_trusted_manifest(recorded: str) -> None:
    """Whoever signs a manifest also writes its record of the ingredients."""
    codes = {"success": ["claimSignature.validated", "signingCredential.trusted"], "failure": []}
    if recorded == "failure":
        codes["failure"] = ["signingCredential.untrusted"]
        codes["success"] = codes["success"][:1]
    results = {kind: [{"code": code} for code in found] for kind, found in codes.items()}
    entry = {"active_manifest": "b", "validation_results": {"activeManifest": results}}
    store = {"active_manifest": "a", "manifests": {"a": {"ingredients": [entry]}, "b": {}}}
    for state in ("Trusted", "Valid", "Invalid"):
        (found,) = Ingredients({**store, "validation_state": state}).of("a")
        assert found.valid
        assert found.trusted == (state == "Trusted" and recorded == "success")


def test_chain_longer_than_the_limit(manifests: Manifests) -> None:
    data = provenance.generated()
    for number in range(20):
        later = encoded(photo(64, 48, number), "JPEG")
        data = signed(later, "JPEG", OPENED, ingredient=(data, "parentOf"))
    assert one(manifests.read(data, "JPEG")).details["valid"]


@pytest.mark.parametrize("name", every_format())
def test_file_without_a_manifest(manifests: Manifests, name: str) -> None:
    data = heic() if name == "HEIF" else every_format()[name]
    assert manifests.read(data, name) == []


def test_broken_trust_list_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "roots.pem"
    broken.write_text("nothing")
    with pytest.raises(ValueError, match="trust list"):
        Manifests(broken)
    with pytest.raises(OSError, match="absent"):
        Manifests(tmp_path / "absent.pem")


@pytest.fixture(scope="module")
def decoders(trust_list: Path) -> Iterator[Decoders]:
    options = ProvenanceOptions(trust_list, location=True)
    with closing(Decoders(1, max_pixels=1_000_000, provenance=options)) as made:
        yield made


@pytest.mark.parametrize("image_format", provenance.MEDIA_TYPES)
def test_sandboxed_process_reads_the_same(decoders: Decoders, image_format: str) -> None:
    (found,) = decoders.statements(provenance.generated(image_format)).statements
    assert (found.source, found.says) == (Source.C2PA, Says.GENERATED)
    assert found.confidence is Confidence.SIGNED_TRUSTED


def test_sandboxed_process_can_use_codecs(decoders: Decoders) -> None:
    comment = f"charset=Unicode {provenance.PARAMETERS}"
    data = provenance.described(
        provenance.captured(), exif={"Photo.UserComment": comment}, iptc={"Credit": "Agency"}
    )
    found = {one.source.value: one for one in decoders.statements(data).statements}
    assert found["text"].details["model"] == "dreamshaper_8"
    assert found["exif"].by == "Canon EOS R5"
    assert found["exif"].details["latitude"] == "52.510000"
    assert found["iptc"].details == {"credit": "Agency"}
    hidden = provenance.with_stealth(b"x" * 50, b"stealth_pnginfo")
    assert decoders.statements(hidden).statements == []


def test_crash_of_a_reader_loses_only_its_statements(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Decoders._read

    def dies(self: Decoders, task: str, data: bytes) -> Reading | None:
        return None if task == "manifest" else read(self, task, data)

    monkeypatch.setattr(Decoders, "_read", dies)
    data = provenance.described(provenance.generated(), exif=provenance.CAMERA)
    reading = decoders.statements(data)
    assert reading.incomplete
    manifest, camera = reading.statements
    assert (manifest.source, manifest.says) == (Source.C2PA, None)
    assert manifest.details["problems"] == ["reading it takes too much memory or time"]
    assert camera.says is Says.CAPTURED
