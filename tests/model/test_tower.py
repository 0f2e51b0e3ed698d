"""The tower that ships: its packed file, and towers from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from model import tower
from model.tower import BLOCKS, GRID, PATCH_BLOCK, TOKENS, WIDTH, Tower, TowerError


@pytest.fixture(scope="module")
def drawn() -> CLIPVisionModelWithProjection:
    """A ViT-B/16 with drawn weights."""
    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=16, projection_dim=512)).eval()


def test_the_tower_that_ships_is_whole(real_tower: Tower) -> None:
    assert sum(p.numel() for p in real_tower.parameters()) == 86_192_640
    assert not any(p.requires_grad for p in real_tower.parameters())
    assert all(p.isfinite().all() for p in real_tower.parameters())
    assert tower.BUILT_IN.stat().st_size < 90_000_000


def test_it_sees_nearly_what_the_original_weights_see(real_tower: Tower) -> None:
    """The largest numbers of the embedding of a drawn picture, by OpenAI's weights in float32."""
    y, x = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    waves = 127 + 100 * torch.sin(x / 20), 127 + 100 * torch.cos(y / 15)
    features = real_tower(torch.stack([(x + y) / 2, *waves])[None])
    assert features.tokens.shape == (1, TOKENS)
    assert features.patches.shape == (1, 14, 14, WIDTH)
    embedding = features.tokens[0, -512:]
    expected = {442: 15.80, 103: -3.92, 382: 3.58, 178: 3.30, 350: 2.76, 251: -2.51}
    assert_close(embedding[list(expected)], torch.tensor([*expected.values()]), atol=1.8, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(192, 256), (304, 160)])
def test_any_grid_of_patches(real_tower: Tower, height: int, width: int) -> None:
    features = real_tower(torch.full((1, 3, height, width), 90.0))
    assert features.patches.shape == (1, GRID, GRID, WIDTH)
    assert features.patches.isfinite().all()
    assert features.tokens.isfinite().all()


def test_features_are_those_of_the_library(drawn: CLIPVisionModelWithProjection) -> None:
    levels = torch.randint(0, 256, (1, 3, 224, 224)).float()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    with torch.no_grad():
        expected = drawn((levels / 255 - mean) / std, output_hidden_states=True)
    found = Tower(drawn)(levels)
    states = expected.hidden_states
    tokens = [states[block][:, 0] for block in BLOCKS] + [expected.image_embeds]
    assert_close(found.tokens, torch.cat([standard(some) for some in tokens], 1))
    assert_close(found.patches.flatten(1, 2), standard(states[PATCH_BLOCK][:, 1:]))


def standard(numbers: torch.Tensor) -> torch.Tensor:
    """The numbers along the last axis, with mean 0 and variance 1."""
    centred = numbers - numbers.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_packing_rounds_to_the_nearest_number(bits: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "wide.weight": torch.randn(512, 768, generator=generator),
        "wide.bias": torch.randn(512, generator=generator),
        "small.weight": torch.randn(8, 16, generator=generator),
        "flat.weight": torch.zeros(512, 768),
    }
    file = tmp_path / "folder" / "packed.safetensors"
    tower.pack(weights, file, bits=bits)
    found = tower.unpack(file)
    assert found.keys() == weights.keys()
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    step = weights["wide.weight"].unflatten(1, (-1, 64)).abs().amax(2) / (2 ** (bits - 1) - 1)
    error = (found["wide.weight"] - weights["wide.weight"]).unflatten(1, (-1, 64)).abs().amax(2)
    assert (error <= 0.51 * step).all()
    assert (found["flat.weight"] == 0).all()
    for name in ("wide.bias", "small.weight"):
        assert_close(found[name], weights[name], atol=1e-3, rtol=1e-3)
    with safe_open(file, "pt") as opened:
        packed = opened.get_tensor("wide.weight.packed")
    assert packed.numel() * 8 == 512 * 768 * bits


def test_what_was_unpacked_packs_to_the_same(real_tower: Tower, tmp_path: Path) -> None:
    name = "vision_model.encoder.layers.3.mlp.fc1.weight"
    weights = {name: tower.unpack(tower.BUILT_IN)[name]}
    tower.pack(weights, tmp_path / "again.safetensors")
    with (
        safe_open(tower.BUILT_IN, "pt") as first,
        safe_open(tmp_path / "again.safetensors", "pt") as again,
    ):
        for suffix in ("packed", "scale"):
            assert_close(first.get_tensor(f"{name}.{suffix}"), again.get_tensor(f"{name}.{suffix}"))


def test_a_directory_of_the_library(drawn: CLIPVisionModelWithProjection, tmp_path: Path) -> None:
    drawn.save_pretrained(tmp_path)
    loaded = tower.load(str(tmp_path))
    levels = torch.full((1, 3, 224, 224), 60.0)
    assert_close(loaded(levels).tokens, Tower(drawn)(levels).tokens)


def test_what_is_no_such_tower_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TowerError, match="nowhere"):
        tower.load(str(tmp_path / "nowhere"))
    config = CLIPVisionConfig(
        patch_size=32,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "other")
    with pytest.raises(TowerError, match="not a CLIP ViT-B/16"):
        tower.load(str(tmp_path / "other"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((tmp_path / "other" / "config.json").read_text())
    (broken / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(TowerError, match="broken"):
        tower.load(str(broken))
