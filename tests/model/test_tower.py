"""The built-in tower, and towers from other sources."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import CLIPVisionConfig, CLIPVisionModel

from model import tower
from model.tower import BLOCKS, DEPTH, GRID, TOKENS, WIDTH, Tower, TowerError


@pytest.fixture(scope="module")
def drawn() -> CLIPVisionModel:
    """A ViT-B/16 with random weights."""
    torch.manual_seed(0)
    return CLIPVisionModel(CLIPVisionConfig(patch_size=16)).eval()


def test_built_in_tower_is_complete(real_tower: Tower) -> None:
    assert sum(p.numel() for p in real_tower.parameters()) == 71_623_680
    assert not any(p.requires_grad for p in real_tower.parameters())
    assert all(p.isfinite().all() for p in real_tower.parameters())
    assert tower.BUILT_IN.stat().st_size < 75_000_000


def test_features_match_those_of_the_original_weights(real_tower: Tower) -> None:
    """The largest tokens of a random picture with OpenAI's weights in float32."""
    y, x = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    waves = 127 + 100 * torch.sin(x / 20), 127 + 100 * torch.cos(y / 15)
    features = real_tower(torch.stack([(x + y) / 2, *waves])[None])
    assert features.tokens.shape == (1, TOKENS)
    assert features.patches.shape == (1, 14, 14, WIDTH)
    expected = {930: -19.33, 162: -18.97, 2010: 17.01, 1698: -15.80, 1242: 6.61, 510: -6.51}
    found = features.tokens[0, list(expected)]
    assert_close(found, torch.tensor([*expected.values()]), atol=0.1, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(192, 256), (304, 160)])
def test_any_grid_of_patches(real_tower: Tower, height: int, width: int) -> None:
    features = real_tower(torch.full((1, 3, height, width), 90.0))
    assert features.patches.shape == (1, GRID, GRID, WIDTH)
    assert features.patches.isfinite().all()
    assert features.tokens.isfinite().all()


def test_features_match_library(drawn: CLIPVisionModel) -> None:
    levels = torch.randint(0, 256, (1, 3, 224, 224)).float()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    with torch.no_grad():
        expected = drawn((levels / 255 - mean) / std, output_hidden_states=True)
    found = Tower(drawn)(levels)
    states = expected.hidden_states
    tokens = [states[block][:, 0] for block in BLOCKS]
    assert_close(found.tokens, torch.cat([standard(some) for some in tokens], 1))
    assert_close(found.patches.flatten(1, 2), standard(states[DEPTH][:, 1:]))


def standard(numbers: torch.Tensor) -> torch.Tensor:
    """The numbers along the last axis, with mean 0 and variance 1."""
    centred = numbers - numbers.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def test_matrices_are_rounded_to_the_nearest_number(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "wide.weight": torch.randn(512, 768, generator=generator),
        "wide.bias": torch.randn(512, generator=generator),
        "flat.weight": torch.zeros(512, 768),
        "embeddings.position.weight": torch.randn(8, 16, generator=generator),
    }
    file = tmp_path / "folder" / "tower.safetensors"
    tower.write(weights, file)
    assert load_file(file)["wide.weight"].dtype == torch.int8
    found = tower.read(file)
    assert found.keys() == weights.keys()
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    step = weights["wide.weight"].abs().amax(1) / 127
    error = (found["wide.weight"] - weights["wide.weight"]).abs().amax(1)
    assert (error <= 0.51 * step).all()
    assert (found["flat.weight"] == 0).all()
    for name in ("wide.bias", "embeddings.position.weight"):
        assert_close(found[name], weights[name], atol=1e-3, rtol=1e-3)


def test_writing_and_reading_are_lossless_the_second_time(
    real_tower: Tower, tmp_path: Path
) -> None:
    tower.write(tower.read(tower.BUILT_IN), tmp_path / "again.safetensors")
    first, again = load_file(tower.BUILT_IN), load_file(tmp_path / "again.safetensors")
    assert first.keys() == again.keys()
    for name, tensor in first.items():
        assert_close(tensor, again[name], atol=0, rtol=1e-5)


def test_library_checkpoint_can_be_read(drawn: CLIPVisionModel, tmp_path: Path) -> None:
    drawn.save_pretrained(tmp_path)
    loaded = tower.load(str(tmp_path))
    levels = torch.full((1, 3, 224, 224), 60.0)
    assert_close(loaded(levels).tokens, Tower(drawn)(levels).tokens)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TowerError, match="nowhere"):
        tower.load(str(tmp_path / "nowhere"))
    config = CLIPVisionConfig(
        patch_size=32,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    CLIPVisionModel(config).save_pretrained(tmp_path / "other")
    with pytest.raises(TowerError, match="not a CLIP ViT-B/16"):
        tower.load(str(tmp_path / "other"))
    config = CLIPVisionConfig(patch_size=16, num_hidden_layers=DEPTH - 1)
    CLIPVisionModel(config).save_pretrained(tmp_path / "shallow")
    with pytest.raises(TowerError, match="not a CLIP ViT-B/16"):
        tower.load(str(tmp_path / "shallow"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((tmp_path / "other" / "config.json").read_text())
    (broken / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(TowerError, match="broken"):
        tower.load(str(broken))
