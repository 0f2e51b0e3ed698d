"""The layers between the tower and the network, and the network with a prior."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model import checkpoint
from model.glance import GlanceBranch
from model.network import GammaModel

PRIOR = {"prior": "clip_vit_b16"}
CHANNELS = (32, 64, 160, 256)


def levels(count: int = 2, height: int = 64, width: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).float()


def test_network_without_prior_has_no_glance(make_model) -> None:
    model = make_model()
    assert model.glance is None
    with pytest.raises(ValueError, match="no prior"):
        model.look(levels())


def test_tower_is_neither_trained_nor_saved(make_model, small_tower, tmp_path) -> None:
    model = make_model(tower="somewhere", **PRIOR).eval()
    names = {name for name, _ in model.named_parameters()}
    assert not small_tower, "nothing is loaded before it is needed"
    glance = model.look(levels(height=224, width=224))
    assert small_tower == ["somewhere"]
    assert (
        {name for name, _ in model.named_parameters()}
        == names
        == set(
            name
            for name in model.state_dict()
            if "running" not in name and "num_batches" not in name
        )
    )
    checkpoint.save(model, tmp_path)
    again = checkpoint.load(tmp_path).eval()
    assert_close(again.look(levels(height=224, width=224)), glance)


@pytest.mark.parametrize("shape", [(224, 224), (192, 256), (304, 160)])
def test_rows_of_any_shape_can_be_joined(make_model, small_tower, shape) -> None:
    model = make_model(**PRIOR).eval()
    glance = model.look(levels(3, *shape))
    assert glance.vector.shape == (3, 24)
    assert glance.patches.shape == (3, 14, 14, 160 + 256)
    assert model.classify(glance).shape == (3,)


def test_crops_alone_are_whole_pictures(make_model, small_tower) -> None:
    model = make_model(**PRIOR).eval()
    crops = levels(2, 96, 96)
    shrunk = torch.nn.functional.interpolate(crops, (224, 224), mode="bicubic", antialias=True)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    expected = model(crops, glance=model.look(shrunk.clamp(0, 255)), boxes=boxes)
    assert_close(model(crops).logits, expected.logits)


def test_only_glance_layers_have_gradients(make_model, small_tower) -> None:
    model: GammaModel = make_model(**PRIOR).train()
    model(levels(), torch.tensor([0.0, 1.0])).loss.backward()
    branch = model.glance
    assert isinstance(branch, GlanceBranch)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in branch.parameters())
    tower = branch.load_tower(torch.device("cpu"), torch.float32)
    assert not any(p.requires_grad for p in tower.parameters())


def test_patches_are_sampled_at_the_position_of_the_crop() -> None:
    """A map of coordinates shows the sampled positions."""
    branch = GlanceBranch(CHANNELS, 24)
    steps = (torch.arange(14.0) + 0.5) / 14
    ramp = torch.stack([steps[None].expand(14, -1), steps[:, None].expand(-1, 14)], -1)
    patches = torch.zeros(1, 14, 14, 160 + 256)
    patches[0, ..., :2] = patches[0, ..., 160:162] = ramp
    boxes = torch.tensor([[0.25, 0.5, 0.75, 0.9]])
    sizes = [(32, 32), (16, 16), (8, 8), (4, 4)]
    first, second, third, fourth = branch.side_features(patches, boxes, sizes)
    assert first is second is None
    for found, count in ((third, 8), (fourth, 4)):
        assert found is not None
        cells = (torch.arange(float(count)) + 0.5) / count
        assert_close(found[0, 0, :, 0], 0.25 + 0.5 * cells)
        assert_close(found[0, :, 0, 1], 0.5 + 0.4 * cells)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tower_follows_the_precision_of_the_network(make_model, small_tower, dtype) -> None:
    model = torch.nn.Module.to(make_model(**PRIOR).eval(), dtype)
    glance = model.look(levels(1, 224, 224).to(dtype))
    assert glance.vector.dtype == glance.patches.dtype == dtype
    assert len(small_tower) == 1
