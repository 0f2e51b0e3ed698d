"""C2PA manifests, read and verified by the official library without network access."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from c2pa import C2paError, Context, Reader

from pictures.origin import Confidence, Says, Source, Statement
from pictures.provenance import source_type
from pictures.provenance.ingredients import Ingredient, Ingredients
from pictures.provenance.statement import clean, present, unreadable_manifest

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
_MAX_MANIFESTS, _MAX_ACTIONS, _MAX_PROBLEMS = 16, 20, 10
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
    label = store.get("active_manifest")
    active = (store.get("manifests") or {}).get(label) or {}
    state = store.get("validation_state")
    valid, trusted = state in ("Valid", "Trusted"), state == "Trusted"
    signature = active.get("signature_info") or {}
    history = _History(store)
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
            ingredients=[history.ingredient(one) for one in history.ingredients.of(label)],
            source_types=list(dict.fromkeys(history.source_types(label, trusted)))[:_MAX_ACTIONS],
            problems=_problems(store),
        ),
    }
    confidence = Confidence.UNSIGNED
    if valid:
        confidence = Confidence.SIGNED_TRUSTED if trusted else Confidence.SIGNED_UNTRUSTED
    return Statement(Source.C2PA, history.says(label, trusted), signer or None, confidence, details)


class _History:
    """Manifests of a file: the active one and those of its ingredients.

    With `trusted`, only ingredients count that are themselves signed by trusted signers: a trusted
    signature of a later version does not make earlier ones trusted.
    """

    def __init__(self, store: Mapping[str, Any]) -> None:
        self._manifests: Mapping[str, Any] = store.get("manifests") or {}
        self.ingredients = Ingredients(store)

    def says(self, label: Any, trusted: bool) -> Says | None:
        """How the picture was made, according to its own history and its components."""
        chain = list(self._chain(label, trusted))
        meanings = [source_type.SAYS.get(one) for one in self.source_types(label, trusted)]
        components = [
            one
            for each in chain
            for one in self.ingredients.of(each)
            if one.relationship == "componentOf"
        ]
        counted = [one for one in components if one.trusted or not trusted]
        if Says.COMPOSITE in meanings:
            return Says.COMPOSITE
        if Says.GENERATED in meanings:
            return Says.COMPOSITE if Says.CAPTURED in meanings else Says.GENERATED
        if any(self._has_generated(one, trusted) for one in counted):
            return Says.COMPOSITE
        changed = any(
            one.get("action") not in _NO_CHANGE for each in chain for one in self._actions(each)
        )
        if Says.EDITED in meanings or changed or len(counted) < len(components):
            return Says.EDITED
        return Says.CAPTURED if Says.CAPTURED in meanings else None

    def source_types(self, label: Any, trusted: bool) -> Iterator[str]:
        """Digital source types of the picture's own history."""
        for each in self._chain(label, trusted):
            for action in self._actions(each):
                if isinstance(action.get("digitalSourceType"), str):
                    yield clean(source_type.name(action["digitalSourceType"]))

    def ingredient(self, one: Ingredient) -> dict[str, Any]:
        """Details of an ingredient."""
        manifest = self._manifests.get(one.label or "") or {}
        says = self.says(one.label, one.trusted) if manifest else None
        return present(
            title=clean(one.entry.get("title") or ""),
            relationship=clean(one.relationship),
            signer=clean((manifest.get("signature_info") or {}).get("issuer") or ""),
            valid=one.valid if manifest else None,
            trusted=one.trusted if manifest else None,
            claim_generator=_claim_generator(manifest),
            says=None if says is None else says.value,
        )

    def _chain(self, label: Any, trusted: bool) -> Iterator[str]:
        """Labels of a manifest and those of its parents, from the latest to the first."""
        seen: set[str] = set()
        while isinstance(label, str) and label not in seen and len(seen) < _MAX_MANIFESTS:
            seen.add(label)
            if not isinstance(self._manifests.get(label), dict):
                return
            yield label
            parents = (
                one
                for one in self.ingredients.of(label)
                if one.relationship in ("parentOf", "inputTo")
            )
            parent = next(parents, None)
            if parent is None or (trusted and not parent.trusted):
                return
            label = parent.label

    def _has_generated(self, one: Ingredient, trusted: bool) -> bool:
        meanings = (source_type.SAYS.get(kind) for kind in self.source_types(one.label, trusted))
        return Says.GENERATED in meanings

    def _actions(self, label: str) -> Iterator[Mapping[str, Any]]:
        return _actions(self._manifests[label])


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
