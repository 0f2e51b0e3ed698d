"""C2PA manifests, read and verified by the official library without network access."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from c2pa import C2paError, Context, Reader

from pictures.provenance import source_type
from pictures.provenance.statement import (
    Confidence,
    Says,
    Source,
    Statement,
    clean,
    present,
    unreadable_manifest,
)

TRUST = Path(__file__).parent / "trust"
"""Default trust lists; their dates are in README.md there."""

_FORMATS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
}
_ABSENT = ("ManifestNotFound", "Remote")  # the second: stored elsewhere, according to XMP
_MAX_MANIFESTS, _MAX_ACTIONS, _MAX_INGREDIENTS, _MAX_PROBLEMS = 16, 20, 10, 10
_NO_CHANGE = frozenset(
    (
        *("c2pa.created", "c2pa.opened", "c2pa.published", "c2pa.converted", "c2pa.transcoded"),
        *("c2pa.repackaged", "c2pa.resized", "c2pa.resized.proportional", "c2pa.orientation"),
        *("c2pa.watermarked", "c2pa.watermarked.bound", "c2pa.watermarked.unbound"),
        *("c2pa.managed", "c2pa.saved", "c2pa.printed", "c2pa.unknown"),
        "c2pa.placed",  # the ingredient's manifest says more
    )
)
"""Actions that do not change the content of a picture."""


class Manifests:
    """Reads manifests and verifies them with a trust list."""

    def __init__(self, trust_list: Path | None = None) -> None:
        """Load the trust list.

        Args:
            trust_list: Root certificates of trusted signers (PEM); None for those in the package.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it contains no certificate.
        """
        trust: dict[str, str] = {}
        if trust_list is None:
            trust["trust_anchors"] = "\n".join(
                one.read_text() for one in sorted(TRUST.glob("anchors-*.pem"))
            )
            trust["allowed_list"] = (TRUST / "allowed.pem").read_text()
        else:
            trust["trust_anchors"] = trust_list.read_text()
        settings = {
            "version": 1,
            "trust": trust,
            "verify": {"verify_trust": True, "ocsp_fetch": False, "remote_manifest_fetch": False},
            "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
        }
        try:
            self._context = Context.from_dict(settings)
        except C2paError as error:
            raise ValueError(f"the trust list is invalid: {error}") from error

    def read(self, data: bytes, picture_format: str) -> list[Statement]:
        """Read the manifest of a file; an empty list if the file contains none."""
        media_type = _FORMATS.get(picture_format)
        if media_type is None:
            return []
        try:
            with Reader(media_type, BytesIO(data), context=self._context) as reader:
                store = json.loads(reader.json())
        except C2paError as error:
            if str(error).startswith(_ABSENT):
                return []
            return [unreadable_manifest(str(error))]
        return [_statement(store)]


def _statement(store: Mapping[str, Any]) -> Statement:
    manifests = store.get("manifests") or {}
    label = store.get("active_manifest")
    active = manifests.get(label) or {}
    state = store.get("validation_state")
    valid, trusted = state in ("Valid", "Trusted"), state == "Trusted"
    signature = active.get("signature_info") or {}
    chain = list(_chain(manifests, label))
    signer = clean(signature.get("issuer") or signature.get("common_name") or "")
    details = {
        "valid": valid,
        "trusted": trusted,
        **present(
            signer=clean(signature.get("common_name") or ""),
            organisation=clean(signature.get("issuer") or ""),
            signed_at=clean(signature.get("time") or ""),
            title=clean(active.get("title") or ""),
            claim_generator=_claim_generator(active),
            actions=[_action(one) for one in _actions(active)][:_MAX_ACTIONS],
            ingredients=_ingredients(active, manifests),
            source_types=list(dict.fromkeys(_source_types(chain)))[:_MAX_ACTIONS],
            problems=_problems(store),
        ),
    }
    confidence = Confidence.UNSIGNED
    if valid:
        confidence = Confidence.SIGNED_TRUSTED if trusted else Confidence.SIGNED_UNTRUSTED
    return Statement(Source.C2PA, _says(manifests, label), signer or None, confidence, details)


def _chain(manifests: Mapping[str, Any], label: Any) -> Iterator[Mapping[str, Any]]:
    """A manifest and those of its parents, from the latest to the first."""
    seen: set[str] = set()
    while isinstance(label, str) and label not in seen and len(seen) < _MAX_MANIFESTS:
        seen.add(label)
        manifest = manifests.get(label)
        if not isinstance(manifest, dict):
            return
        yield manifest
        label = next(
            (
                one.get("active_manifest")
                for one in manifest.get("ingredients") or []
                if one.get("relationship") in ("parentOf", "inputTo")
            ),
            None,
        )


def _says(manifests: Mapping[str, Any], label: Any) -> Says | None:
    """How the picture was made, according to its own history and its components."""
    chain = list(_chain(manifests, label))
    meanings = [source_type.SAYS.get(one) for one in _source_types(chain)]
    parts = [
        Says.COMPOSITE
        for manifest in chain
        for one in (manifest.get("ingredients") or [])[:_MAX_INGREDIENTS]
        if one.get("relationship") == "componentOf"
        and Says.GENERATED in _meanings(manifests, one.get("active_manifest"))
    ]
    if Says.COMPOSITE in meanings:
        return Says.COMPOSITE
    if Says.GENERATED in meanings:
        return Says.COMPOSITE if Says.CAPTURED in meanings else Says.GENERATED
    if parts:
        return Says.COMPOSITE
    changed = any(
        one.get("action") not in _NO_CHANGE for manifest in chain for one in _actions(manifest)
    )
    if Says.EDITED in meanings or changed:
        return Says.EDITED
    return Says.CAPTURED if Says.CAPTURED in meanings else None


def _meanings(manifests: Mapping[str, Any], label: Any) -> list[Says | None]:
    return [source_type.SAYS.get(one) for one in _source_types(list(_chain(manifests, label)))]


def _source_types(chain: list[Mapping[str, Any]]) -> Iterator[str]:
    for manifest in chain:
        for action in _actions(manifest):
            if isinstance(action.get("digitalSourceType"), str):
                yield clean(source_type.name(action["digitalSourceType"]))


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for assertion in manifest.get("assertions") or []:
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in (assertion.get("data") or {}).get("actions") or []:
                if isinstance(action, dict):
                    yield action


def _action(action: Mapping[str, Any]) -> dict[str, str]:
    agent = action.get("softwareAgent") or ""
    kind = action.get("digitalSourceType")
    return present(
        action=clean(action.get("action") or ""),
        when=clean(action.get("when") or ""),
        program=clean(agent.get("name", "") if isinstance(agent, dict) else agent),
        source_type=clean(source_type.name(kind)) if isinstance(kind, str) else None,
        description=clean(action.get("description") or ""),
    )


def _ingredients(active: Mapping[str, Any], manifests: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    for one in (active.get("ingredients") or [])[:_MAX_INGREDIENTS]:
        label = one.get("active_manifest")
        manifest = manifests.get(label) or {}
        says = _says(manifests, label) if manifest else None
        found.append(
            present(
                title=clean(one.get("title") or ""),
                relationship=clean(one.get("relationship") or ""),
                signer=clean((manifest.get("signature_info") or {}).get("issuer") or ""),
                claim_generator=_claim_generator(manifest),
                says=None if says is None else says.value,
            )
        )
    return found


def _claim_generator(manifest: Mapping[str, Any]) -> str | None:
    known = manifest.get("claim_generator_info") or []
    if known and isinstance(known[0], dict):
        return clean(f"{known[0].get('name', '')} {known[0].get('version', '')}")
    return clean(manifest.get("claim_generator") or "") or None


def _problems(store: Mapping[str, Any]) -> list[str]:
    """The library's codes of failed checks, e.g. `assertion.dataHash.mismatch`."""
    results = (store.get("validation_results") or {}).get("activeManifest") or {}
    codes = [clean(one.get("code") or "") for one in results.get("failure") or []]
    return list(dict.fromkeys(codes))[:_MAX_PROBLEMS]
