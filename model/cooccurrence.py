"""Co-occurrences of residuals: what the encoder sees of a picture in place of its colours.

Generators, cameras and editors leave their traces in how neighbouring pixels differ, not in what a
picture shows. Steganalysis and forensics describe them by joint histograms of quantised
differences (Fridrich and Kodovský 2012, Cozzolino et al. 2017; between colour planes too). Here
every pixel looks up a learned vector for each of the triples of differences that it lies in, and
the sum of these vectors is its input. Averaged over an area, that is a linear map of the area's
co-occurrence histogram: what a linear classifier on such histograms can tell, the first
convolution of the encoder can tell of each place.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 5
"""A difference is quantised to -2...2."""
STEPS = (1.0, 3.0)
"""Levels of brightness (of 255) per step of the quantisers: fine noise, and stronger texture."""
CODES = LEVELS**3
"""Values of a triple of neighbouring differences."""
_PLANES, _ORDERS, _DIRECTIONS = 3, 2, 2
ROWS = _PLANES * _ORDERS * len(STEPS) * _DIRECTIONS * CODES
"""Rows of the table of vectors."""
LOOKUPS = 2 * ROWS // CODES
"""Rows that one pixel looks up: differences across and down share theirs."""
_TO_YCBCR = (  # ITU-R BT.601, full range, as in JPEG
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


class CooccurrenceInput(nn.Module):
    """A table of vectors (ROWS, C), and the maps that it makes of pictures.

    The table is learned from histograms before the network is (`training.cooccurrence`), and
    frozen then: gradients through so many look-ups would cost more than the network.
    """

    def __init__(self, channels: int) -> None:
        """Make a table of vectors of `channels` numbers, all 0."""
        super().__init__()
        self.table = nn.Parameter(torch.zeros(ROWS, channels), requires_grad=False)

    def forward(self, levels: Tensor) -> Tensor:
        """Return the sum of each pixel's vectors.

        Args:
            levels: RGB (B, 3, H, W), whole numbers of 0 to 255, any floating type.

        Returns:
            (B, C, H, W), channels last in memory.
        """
        if levels.device.type != "cpu":
            return self._sum(levels).permute(0, 3, 1, 2)
        # One by one, so that the rows stay in the caches: half the time.
        return torch.cat([self._sum(picture[None]) for picture in levels]).permute(0, 3, 1, 2)

    def _sum(self, levels: Tensor) -> Tensor:
        """The same, channels last (B, H, W, C)."""
        rows = look_up(levels)
        summed = F.embedding_bag(rows.flatten(0, 2), self.table, mode="sum")
        return summed.view(*rows.shape[:3], -1)


def look_up(levels: Tensor) -> Tensor:
    """Say which rows of the table each pixel looks up.

    For the planes Y, Cb and Cr, first and second differences along a line are quantised; three
    neighbours along the line make one code, three beside each other across it another. Pixels
    beyond the edge repeat the last one.

    Args:
        levels: RGB (B, 3, H, W), whole numbers of 0 to 255.

    Returns:
        Rows (B, H, W, LOOKUPS), int32.
    """
    matrix = torch.tensor(_TO_YCBCR, device=levels.device)
    planes = torch.einsum("pc,bchw->bphw", matrix, levels.float()).round_()
    padded = F.pad(planes, (2, 2, 2, 2), mode="replicate")
    across = _codes(padded)
    down = _codes(padded.transpose(2, 3))
    return torch.cat([*across, *(code.transpose(2, 3) for code in down)], 1).permute(0, 2, 3, 1)


def _codes(padded: Tensor) -> list[Tensor]:
    """Rows for the differences along the lines of (B, 3, h + 4, w + 4); each (B, 3, h, w)."""
    height, width = padded.shape[2] - 4, padded.shape[3] - 4
    first = padded.diff(dim=3)
    found = []
    offset = torch.arange(_PLANES, dtype=torch.int32, device=padded.device) * (ROWS // _PLANES)
    offset = offset[:, None, None]
    for differences in (first, first.diff(dim=3)):
        for step in STEPS:
            # Whole numbers halfway between two levels cannot occur for these steps.
            q = (differences / step).round_().clamp_(-2, 2).add_(2).int()
            along = q[..., :-2] * LEVELS**2 + q[..., 1:-1] * LEVELS + q[..., 2:]
            beside = q[..., :-2, :] * LEVELS**2 + q[..., 1:-1, :] * LEVELS + q[..., 2:, :]
            found.append(along[..., 2 : 2 + height, :width] + offset)
            found.append(beside[..., 1 : 1 + height, 1 : 1 + width] + (offset + CODES))
            offset = offset + _DIRECTIONS * CODES
    return found


def histogram(levels: Tensor) -> Tensor:
    """Return how often each row is looked up, as shares of a picture's pixels.

    Args:
        levels: RGB (B, 3, H, W), whole numbers of 0 to 255.

    Returns:
        (B, ROWS), float32; `histogram(x) @ table` is the mean of `CooccurrenceInput(x)`.
    """
    # One by one, as in `CooccurrenceInput`.
    rows = (look_up(picture[None]).flatten() for picture in levels)  # (H * W * LOOKUPS,)
    counts = torch.stack([row.bincount(minlength=ROWS) for row in rows])
    return counts.float() / (levels.shape[2] * levels.shape[3])
