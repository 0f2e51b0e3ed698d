"""The notice about a model's reliability."""

from __future__ import annotations

from app.contract.models import Measured

_UNTRAINED = (
    "This model is untrained: its weights are random, so its scores mean nothing. "
    "They only show that the service works."
)
_UNMEASURED = "Scores are no proof. The accuracy of this model was not measured."


def notice(*, trained: bool, measured: Measured | None) -> str:
    """Return the notice for a model with these measurements (None: not measured)."""
    if not trained:
        return _UNTRAINED
    if measured is None:
        return _UNMEASURED
    everything = measured.rows[0]
    return (
        f"Scores are no proof. Measured on {everything.n} AI-generated pictures and "
        f"{measured.photographs} photographs: of 100 AI-generated pictures it finds "
        f"{100 * everything.tpr_at_fpr_5:.0f} while calling 5 of 100 photographs AI-generated "
        f"(AUC {everything.auc:.2f}, where 0.5 is guessing and 1 is perfect)."
    )
