"""Pictures with provenance, made with the usual tools."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import c2pa
import numpy as np
import pyexiv2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pictures.origin import Source, Statement
from pictures.provenance import reading
from tests.conftest import photo
from tests.samples import encoded

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MEDIA_TYPES = {
    name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF")
}
PARAMETERS = (
    "a lighthouse at dusk, <b>oil</b>\nNegative prompt: blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Model hash: abc, Model: dreamshaper_8, "
    "Version: v1.9.0"
)


@dataclass(frozen=True)
class Signer:
    """A signer and its root certificate (PEM)."""

    signer: c2pa.Signer
    root: str


@cache
def signer(organisation: str = "Test Generator Inc") -> Signer:
    """A signer with its own authority, conforming to C2PA's certificate profile."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = _name("Test Root", "Test Authority")
    root = (
        _certificate(root_name, root_name, root_key)
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(_usage(signs_certificates=True), True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _certificate(_name("Test Signer", organisation), root_name, key)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(_usage(signs_certificates=False), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
        )
        .sign(root_key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = _pem(leaf) + _pem(root)
    info = c2pa.C2paSignerInfo("es256", chain, secret, None)
    return Signer(c2pa.Signer.from_info(info), _pem(root).decode())


def _name(common: str, organisation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
        ]
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    signs = signs_certificates
    return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def action(name: str, source_type: str | None = None, **more: Any) -> dict[str, Any]:
    kind = {} if source_type is None else {"digitalSourceType": IPTC + source_type}
    return {"action": f"c2pa.{name}", **kind, **more}


OPENED = action("opened", parameters={"ingredientIds": ["before"]})
PLACED = action("placed", parameters={"ingredientIds": ["before"]})


def signed(
    picture: bytes,
    image_format: str,
    *actions: dict[str, Any],
    ingredient: tuple[bytes, str] | None = None,
    by: Signer | None = None,
) -> bytes:
    """Add a signed manifest to a file.

    Args:
        picture: The file.
        image_format: Its format, one of `MEDIA_TYPES`.
        actions: C2PA actions.
        ingredient: A JPEG it was made from, and its relationship: `parentOf` or `componentOf`.
        by: Its signer; None for `signer()`.
    """
    manifest = {
        "claim_generator_info": [{"name": "Test Generator", "version": "1.0"}],
        "title": "lighthouse",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": list(actions)}}],
    }
    context = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
    result = io.BytesIO()
    with c2pa.Builder(manifest, context) as builder:
        if ingredient is not None:
            data, relationship = ingredient
            about = json.dumps(
                {"title": "before.jpg", "relationship": relationship, "instance_id": "before"}
            )
            builder.add_ingredient(about, "image/jpeg", io.BytesIO(data))
        media_type = MEDIA_TYPES[image_format]
        builder.sign((by or signer()).signer, media_type, io.BytesIO(picture), result)
    return result.getvalue()


def generated(image_format: str = "JPEG", seed: int = 0) -> bytes:
    """A signed picture declared as generated."""
    made = encoded(photo(160, 128, seed), image_format)
    return signed(made, image_format, action("created", "trainedAlgorithmicMedia"))


def tampered(seed: int = 0) -> bytes:
    """A signed PNG whose pixels were changed afterwards, with valid CRCs."""
    original = encoded(photo(160, 128, seed), "PNG")
    made = signed(original, "PNG", action("created", "trainedAlgorithmicMedia"))
    other = encoded(photo(160, 128, seed + 1), "PNG")
    at = made.index(b"IDAT") - 4
    return made[:at] + other[other.index(b"IDAT") - 4 :]


def described(
    data: bytes,
    xmp: dict[str, str] | None = None,
    iptc: dict[str, str] | None = None,
    exif: dict[str, str] | None = None,
) -> bytes:
    """Add metadata to a file, by exiv2's names."""
    with pyexiv2.ImageData(data) as image:
        if xmp:
            image.modify_xmp({f"Xmp.{name}": value for name, value in xmp.items()})
        if iptc:
            image.modify_iptc({f"Iptc.Application2.{name}": value for name, value in iptc.items()})
        if exif:
            image.modify_exif({f"Exif.{name}": value for name, value in exif.items()})
        return bytes(image.get_bytes())


CAMERA = {
    "Image.Make": "Canon",
    "Image.Model": "Canon EOS R5",
    "Photo.ExposureTime": "1/200",
    "Photo.DateTimeOriginal": "2024:05:01 10:00:00",
    "GPSInfo.GPSLatitudeRef": "N",
    "GPSInfo.GPSLatitude": "52/1 30/1 36/1",
    "GPSInfo.GPSLongitudeRef": "W",
    "GPSInfo.GPSLongitude": "13/1 15/1 0/1",
}


def captured(seed: int = 0) -> bytes:
    """A photograph with a camera's EXIF data, including its location."""
    return described(encoded(photo(160, 128, seed), "JPEG"), exif=CAMERA)


def with_text(compressed: bool = False, **texts: str) -> bytes:
    """A PNG with these text chunks."""
    info = PngInfo()
    for keyword, text in texts.items():
        if text.isascii():
            info.add_text(keyword, text, zip=compressed)
        else:
            info.add_itxt(keyword, text, zip=compressed)
    return encoded(photo(160, 128), "PNG", pnginfo=info)


def with_stealth(text: bytes, mark: bytes = b"stealth_pngcomp") -> bytes:
    """A PNG with text in the lowest bits of its alpha channel, like those of NovelAI."""
    message = mark + (8 * len(text)).to_bytes(4, "big") + text
    bits = np.unpackbits(np.frombuffer(message, np.uint8))
    width, height = 64, 96
    alpha = np.full(width * height, 254, np.uint8)
    alpha[: len(bits)] |= bits
    picture = photo(width, height).convert("RGBA")
    picture.putalpha(Image.fromarray(alpha.reshape(width, height).T))
    return encoded(picture, "PNG")


def read(data: bytes, image_format: str = "JPEG", *, location: bool = False) -> list[Statement]:
    return reading.read(data, image_format, location=location).statements


def by_source(found: list[Statement]) -> dict[Source, Statement]:
    assert len({one.source for one in found}) == len(found)
    return {one.source: one for one in found}
