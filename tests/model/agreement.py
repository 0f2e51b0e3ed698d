"""Comparison of tensors with those of the reference implementation."""

from __future__ import annotations

from torch import Tensor
from torch.testing import assert_close


def assert_agree(ours: Tensor, reference: Tensor, tolerance: float = 1e-5) -> None:
    """Compare relative to the largest value of the reference, if that is above 1."""
    scale = max(reference.abs().max().item(), 1.0)
    assert_close(ours / scale, reference / scale, atol=tolerance, rtol=0)
