import pytest
import torch
from torch.testing import assert_close

from model import checkpoint
from model.config import GammaConfig
from model.engine import normalise, scaling
from model.network import GammaModel
from model.prior import ImagePrior

CPU = torch.device("cpu")
SIZES = (32, 64, 160, 256)  # of MiT-B0


@pytest.fixture
def levels(photo):
    return torch.from_numpy(photo(75, 100)).permute(2, 0, 1)[None].float()


def build(**options):
    torch.manual_seed(0)
    config = GammaConfig(backbone="mit_b0", prior="efficientnet_lite0", **options)
    model = GammaModel(config).eval()
    for layer in model.prior.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    return model


def test_maps_have_the_shapes_of_the_encoder(levels):
    lent = ImagePrior(SIZES)(levels)
    expected = [
        (1, -(-75 // r), -(-100 // r), c) for r, c in zip((4, 8, 16, 32), SIZES, strict=True)
    ]
    assert [tuple(maps.shape) for maps in lent] == expected


def test_only_what_adapts_the_maps_is_learned(levels):
    model = build()
    model(levels, labels=torch.ones(1)).loss.backward()
    for name, parameter in model.prior.named_parameters():
        assert parameter.requires_grad == name.startswith("adapters.")
        assert (parameter.grad is None) != parameter.requires_grad
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("seen", ["rgb", "cooccurrence"])
def test_the_classifier_sees_levels_whatever_the_encoder_sees(photo, seen):
    model = build(input=seen)
    tiles = torch.from_numpy(photo(64, 64))[None]
    heard = []
    model.prior.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    model(normalise(tiles, scaling(model.config, CPU)))
    assert_close(heard[0], tiles.permute(0, 3, 1, 2).float(), atol=1e-3, rtol=0)


def test_what_is_lent_matters(levels):
    model = build()
    before = model(levels)
    torch.nn.init.zeros_(model.prior.adapters[3].weight)
    after = model(levels)
    assert after.logits != before.logits
    # A map of the last stage reaches every place of the masks.
    assert (after.ai != before.ai).float().mean() > 0.9


def test_it_travels_with_the_checkpoint(levels, tmp_path):
    model = build()
    checkpoint.save(model, tmp_path)
    assert_close(checkpoint.load(tmp_path)(levels).logits, model(levels).logits)


def test_other_encoders_have_no_place_for_it():
    with pytest.raises(ValueError, match="prior: not for pvt_v2_b2"):
        GammaConfig(backbone="pvt_v2_b2", prior="efficientnet_lite0")
