import numpy as np
import pytest
import torch
from torch.testing import assert_close

from model.config import GammaConfig
from model.cooccurrence import (
    CODE_ROWS,
    CODES,
    LOOKUPS,
    ROWS,
    CooccurrenceInput,
    histogram,
    look_up,
)
from model.engine import to_levels
from model.network import GammaModel


@pytest.fixture
def levels(photo):
    return torch.from_numpy(photo(40, 56)).permute(2, 0, 1)[None].float()


def rows_of(planes: np.ndarray, y: int, x: int) -> list[int]:
    """The rows of one pixel, computed directly; not near an edge."""
    found = []
    for plane, values in enumerate(planes):
        for lines in (values, values.T):
            row, column = (y, x) if lines is values else (x, y)

            def first(r, c, lines=lines):
                return lines[r, c + 1] - lines[r, c]

            def second(r, c, first=first):
                return first(r, c + 1) - first(r, c)

            for order, difference in enumerate((first, second)):
                for step_number, step in enumerate((1, 3)):

                    def q(r, c, difference=difference, step=step):
                        return int(np.clip(np.rint(difference(r, c) / step), -2, 2)) + 2

                    along = [q(row, column - 2 + i) for i in range(3)]
                    beside = [q(row - 1 + i, column - 1) for i in range(3)]
                    for direction, (a, b, c) in enumerate((along, beside)):
                        table = ((plane * 2 + order) * 2 + step_number) * 2 + direction
                        found.append(table * CODES + a * 25 + b * 5 + c)
    return found


def test_each_pixel_looks_up_its_triples(levels):
    found = look_up(levels)
    assert found.shape == (1, 40, 56, LOOKUPS)
    assert found.min() >= 0
    assert found.max() < len(CODE_ROWS[0])
    r, g, b = levels[0].double().numpy()
    planes = np.rint(
        [
            0.299 * r + 0.587 * g + 0.114 * b,
            -0.168736 * r - 0.331264 * g + 0.5 * b,
            0.5 * r - 0.418688 * g - 0.081312 * b,
        ]
    )
    for y, x in ((7, 9), (20, 31), (33, 45)):
        rows = torch.cat([rows[found[0, y, x]] for rows in CODE_ROWS])
        assert sorted(rows.tolist()) == sorted(rows_of(planes, y, x))


def test_mean_of_a_map_is_linear_in_the_histogram(levels):
    stem = CooccurrenceInput(6)
    torch.nn.init.normal_(stem.table)
    counts = histogram(levels)
    assert counts.sum().item() == pytest.approx(2 * LOOKUPS, rel=1e-5)
    assert_close(counts @ stem.table, stem(levels).mean((2, 3)), atol=1e-4, rtol=1e-4)


def test_every_difference_has_its_code():
    """Edges of all heights, so that no level of either quantiser is left out."""
    steps = torch.cat([torch.arange(-9, 10), torch.tensor([-200, 200, 50, -50])])
    line = (128 + torch.stack([torch.zeros_like(steps), steps], 1).flatten()).clamp(0, 255)
    levels = line.expand(3, 40, -1)[None].float()  # grey
    rows = torch.cat([rows[look_up(levels).flatten()] for rows in CODE_ROWS])
    planes = np.rint(levels[0].double().numpy())
    planes[1:] = 0
    for x in range(2, levels.shape[3] - 3):
        found = torch.cat([rows[look_up(levels)[0, 20, x]] for rows in CODE_ROWS])
        assert sorted(found.tolist()) == sorted(rows_of(planes, 20, x))
    assert rows.max() < ROWS


def test_flat_picture_has_one_code_everywhere():
    counts = histogram(torch.full((1, 3, 32, 32), 77.0))
    assert (counts > 0).sum() == ROWS // CODES


def test_brightness_has_no_effect(levels):
    """A change of brightness only matters where rounding differs."""
    levels = levels.clamp(10, 200)
    assert (look_up(levels + 30) == look_up(levels)).float().mean() > 0.999


def test_network_takes_levels_and_looks_them_up(photo):
    torch.manual_seed(0)
    config = GammaConfig(backbone="mit_b0", input="cooccurrence", input_channels=8)
    model = GammaModel(config).eval()
    tiles = torch.from_numpy(photo(64, 64))[None]
    pixels = to_levels(tiles)
    before = model(pixels).logits
    torch.nn.init.normal_(model.input.table)
    assert model(pixels).logits != before
    assert not model.input.table.requires_grad
    # Levels are whole numbers up to 255: bfloat16 holds them exactly.
    assert (look_up(pixels.bfloat16()) == look_up(pixels)).all()
