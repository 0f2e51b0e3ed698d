"""How glance and tiles give one logit."""

import pytest
import torch

from model.pooling import combine, either, pool


def test_either_is_the_probability_of_at_least_one_event():
    first, second = torch.linspace(-6, 6, 13)[:, None], torch.linspace(-6, 6, 13)
    expected = 1 - (1 - first.sigmoid()) * (1 - second.sigmoid())
    assert torch.allclose(either(first, second).sigmoid(), expected, atol=1e-6)


def test_either_of_large_logits_is_finite():
    found = either(torch.tensor([1e4, -1e4, 1e4]), torch.tensor([1e4, -1e4, -1e4]))
    assert found.isfinite().all()
    assert (found > 0).tolist() == [True, False, True]


def test_glance_and_part_are_alternatives():
    glance = torch.tensor([-3.0, 4.0])
    found = combine(glance + 2, glance, -4.0)
    assert torch.allclose(found, either(glance, torch.tensor(-2.0)))


def test_weak_parts_do_not_change_the_order_of_glances():
    glance, part = torch.tensor([3.0, 4.0]), torch.tensor([2.0, -2.0])
    summed = combine(glance + part, glance, None)
    alternatives = combine(glance + part, glance, -6.0)
    assert summed[0] > summed[1]
    assert alternatives[0] < alternatives[1]


@pytest.mark.parametrize(("pooling", "expected"), [("mean", 1.0), ("max", 9.0), ("top3", 5.0)])
def test_every_pooling_of_many_tiles(pooling, expected):
    assert pool(torch.tensor([-12.0, 4.0, 9.0, 2.0, 2.0]), pooling) == expected
    assert pool(torch.tensor([7.0]), pooling) == 7
