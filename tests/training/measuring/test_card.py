"""Model cards and inherited licences."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.config import GammaConfig
from tests.training.conftest import small_settings
from training.data.manifest import read
from training.measuring.card import RunFacts, derived_licence, write_card


@pytest.mark.parametrize(
    ("overrides", "identifier", "reason"),
    [
        (("start.encoder=nvidia/mit-b2", "model.backbone=mit_b2"), "other", "non-commercial"),
        (("start.encoder=timm/pvt_v2_b2", "model.backbone=pvt_v2_b2"), "apache-2.0", "Apache-2.0"),
        (("start.checkpoint=base",), "unknown", "its licence also"),
        ((), "unknown", "started from random weights"),
    ],
)
def test_licence_is_inherited_from_initial_weights(
    tree: Path, overrides: tuple[str, ...], identifier: str, reason: str
) -> None:
    settings = small_settings(tree, *overrides)
    found = derived_licence(RunFacts(settings=settings))
    assert found.identifier == identifier
    assert reason in found.reason


def test_tower_keeps_its_licence() -> None:
    card = write_card(GammaConfig(backbone="mit_b0", prior="clip_vit_b16"), RunFacts(), half=True)
    assert "CLIP ViT-B/16 (OpenAI; MIT licence)" in card
    assert "CLIP" not in write_card(GammaConfig(backbone="mit_b0"), RunFacts(), half=True)


def test_stated_licence_does_not_replace_an_inherited_one(tree: Path) -> None:
    free = RunFacts(settings=small_settings(tree), licence="mit")
    bound = RunFacts(settings=small_settings(tree, "start.encoder=nvidia/mit-b0"), licence="mit")
    assert derived_licence(free).identifier == "mit"
    assert derived_licence(bound).identifier == "other"


def test_card_states_known_and_unknown_facts(tree: Path) -> None:
    config = GammaConfig(backbone="mit_b0", name="first", version="3", trained=True)
    rows = list(read(tree))
    facts = RunFacts(settings=small_settings(tree), rows=rows, data_note="From my camera.")
    card = write_card(config, facts, half=True)
    assert card.startswith("---\n")
    for text in ("# first 3", "From my camera.", "| splice |  | train | 2 |", "float16"):
        assert text in card
    assert "Not calibrated" in card
    assert "Not measured." in card
    assert "are not stated" in write_card(config, RunFacts(), half=False)
