"""Validity of the ingredients of a C2PA manifest, by its validation results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_VALID, _TRUSTED = "claimSignature.validated", "signingCredential.trusted"
_UNTRUSTED = "signingCredential.untrusted"
MAX_INGREDIENTS = 10
"""Maximum number of ingredients of a manifest; the first ones are read."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """An ingredient of a manifest."""

    entry: Mapping[str, Any]
    """Its entry in the manifest that refers to it."""
    valid: bool
    """Whether its own manifest matched its file when it was added, and is unchanged since."""
    trusted: bool
    """Whether it is valid and signed by a trusted signer."""

    @property
    def label(self) -> str | None:
        """Label of its own manifest; None if it has none."""
        label = self.entry.get("active_manifest")
        return label if isinstance(label, str) else None

    @property
    def relationship(self) -> str:
        """`parentOf`, `componentOf` or `inputTo`."""
        return str(self.entry.get("relationship") or "")


class Ingredients:
    """Ingredients of the manifests of a file, validated from the active manifest downwards.

    The library reports only the results that the manifests of the file do not record already.
    A record counts as evidence of trust only if the manifest that contains it is trusted.
    """

    def __init__(self, store: Mapping[str, Any]) -> None:
        """Validate them.

        Args:
            store: What the library read, as JSON.
        """
        self._manifests: Mapping[str, Any] = store.get("manifests") or {}
        self._found: dict[str, list[Ingredient]] = {}
        trusted = store.get("validation_state") == "Trusted"
        results = [_deltas(store.get("validation_results"))]  # the newest first
        waiting: list[tuple[Any, bool, list[_Results]]] = [
            (store.get("active_manifest"), trusted, results)
        ]
        for label, trusted, results in waiting:
            if label not in self._found and label in self._manifests:
                found = self._found[label] = self._validated(label, trusted, results)
                waiting += [
                    (one.label, True, [*results, _deltas(one.entry.get("validation_results"))])
                    for one in found
                    if one.trusted
                ]

    def of(self, label: Any) -> list[Ingredient]:
        """Ingredients of a manifest; unvalidated if a manifest above it is not trusted."""
        if label not in self._found:
            return [Ingredient(one, valid=False, trusted=False) for one in self._entries(label)]
        return self._found[label]

    def _entries(self, label: Any) -> list[Mapping[str, Any]]:
        entries = (self._manifests.get(label) or {}).get("ingredients") or []
        return [one for one in entries[:MAX_INGREDIENTS] if isinstance(one, dict)]

    def _validated(
        self, label: str, trusted: bool, results: Sequence[_Results]
    ) -> list[Ingredient]:
        found = []
        for entry in self._entries(label):
            own = str(entry.get("active_manifest") or "")
            newer = [one.get(own, _NOTHING) for one in results]
            recorded = _recorded(entry)
            layers = [*newer, recorded]
            failures = {code for _, failed in layers for code in failed} - {_UNTRUSTED}
            valid = (
                own in self._manifests
                and not failures
                and any(_VALID in passed for passed, _ in layers)
            )
            trust = _trusted(layers if trusted else newer)
            found.append(Ingredient(entry, valid=valid, trusted=valid and trust))
        return found


_Codes = tuple[frozenset[str], frozenset[str]]
"""Codes of passed and failed checks."""
_Results = Mapping[str, _Codes]
"""Codes by label of the manifest."""
_NOTHING: _Codes = (frozenset(), frozenset())


def _trusted(layers: Sequence[_Codes]) -> bool:
    """Whether the newest result that decides it says that the signer is trusted."""
    for passed, failed in layers:
        if _UNTRUSTED in failed or _TRUSTED in passed:
            return _UNTRUSTED not in failed
    return False


def _deltas(results: Any) -> _Results:
    """The results on ingredients, which complete those recorded before."""
    passed: dict[str, set[str]] = {}
    failed: dict[str, set[str]] = {}
    for delta in (results or {}).get("ingredientDeltas") or []:
        changes = delta.get("validationDeltas") or {}
        for kind, codes in (("success", passed), ("failure", failed)):
            for one in changes.get(kind) or []:
                codes.setdefault(_label(one.get("url")), set()).add(str(one.get("code")))
    return {
        label: (frozenset(passed.get(label, ())), frozenset(failed.get(label, ())))
        for label in {*passed, *failed}
    }


def _label(url: object) -> str:
    """The label of the manifest in `self#jumbf=/c2pa/LABEL/c2pa.signature`."""
    return str(url or "").partition("/c2pa/")[2].partition("/")[0]


def _recorded(entry: Mapping[str, Any]) -> _Codes:
    """The results when the ingredient was added; older manifests list failures only."""
    results = (entry.get("validation_results") or {}).get("activeManifest") or {}
    failures = [*(results.get("failure") or []), *(entry.get("validation_status") or [])]
    return frozenset(_codes(results.get("success") or [])), frozenset(_codes(failures))


def _codes(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return (str(one.get("code")) for one in entries)
