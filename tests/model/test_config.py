import pytest

from model.config import GammaConfig
from pictures.findings import Thresholds


def test_untrained_thresholds_give_no_verdicts():
    assert Thresholds(**GammaConfig().thresholds) == Thresholds(0.0, 1.0, 0.5, 1.0)
    assert not GammaConfig().trained
    assert GammaConfig().version == "untrained"


def test_config_round_trip(tmp_path):
    config = GammaConfig(heads="ai", thresholds={"mask": 0.3}, temperature=1.5, version="7")
    config.save_pretrained(tmp_path)
    loaded = GammaConfig.from_pretrained(tmp_path)
    for name in ("heads", "thresholds", "temperature", "version", "decoder_channels"):
        assert getattr(loaded, name) == getattr(config, name)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"backbone": "resnet"}, "backbone must be one of"),
        ({"cross_attention": "sideways"}, "cross_attention must be one of"),
        ({"pooling": "median"}, "pooling must be one of"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"ai_weight": -1.0}, "ai_weight must not be negative"),
        ({"crop_size": 500}, "crop_size must be a multiple of 32"),
        ({"image_std": (0.2, 0.2, 0.0)}, "image_std"),
        ({"thresholds": {"mask": 1.5}}, r"mask must lie in \[0, 1\]"),
        ({"thresholds": {"uncertain": 0.9, "ai_generated": 0.5}}, "uncertain must not exceed"),
    ],
)
def test_invalid_values_are_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        GammaConfig(**fields)
