"""All commands of docs/training.md, on tiny pictures."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import Serve, photo

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
SIDE = 96
TINY = """
[data]
epoch_fraction = 0.5
workers = 0
[model]
backbone = "mit_b0"
decoder_channels = 16
crop_size = 64
[train]
batch_size = 4
epochs = 1
[stopping]
patience = 0
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The input folders of the page."""
    from diffusers import AutoencoderTiny

    def save(file: str, seed: int, image_format: str) -> None:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(SIDE, SIDE, seed).save(path, image_format)

    for seed in range(12):
        save(f"pictures/train/real/camera/r{seed}.jpg", seed, "JPEG")
        save(f"pictures/train/ai/gan/g{seed}.png", 100 + seed, "PNG")
    for seed in range(4):
        save(f"pictures/test/real/r{seed}.jpg", 200 + seed, "JPEG")
        save(f"pictures/test/ai/flux/f{seed}.png", 300 + seed, "PNG")
    (tmp_path / "objects").mkdir()
    for seed in range(12):
        region = np.zeros((SIDE, SIDE, 3), np.uint8)
        region[20:60, 30:70] = (128, 0, 0)
        colours = Image.fromarray(region).quantize(4)
        colours.save(tmp_path / f"objects/r{seed}.png")
    torch.manual_seed(0)
    tiny = {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }
    AutoencoderTiny(**tiny).save_pretrained(tmp_path / "autoencoder")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/cpu-small.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_documented_commands_produce_a_served_model(folders: Path) -> None:
    from training.cli import app

    *steps, last = COMMANDS
    assert len(steps) >= 14
    for program, *arguments in steps:
        assert program == "gamma-train"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{shlex.join(arguments)}:\n{done.output}\n{done.exception!r}"

    assert last[:2] == ["gamma", "serve"]
    version = json.loads((folders / last[3] / "config.json").read_text())["version"]
    served = Serve(folders / "service", *last[2:], GAMMA_MAX_BATCH="1").wait_until_ready()
    try:
        answer = httpx2.get(f"{served.url}/v1/model", timeout=60).json()
    finally:
        served.stop()
    assert answer["version"] == version
    assert answer["trained"]
