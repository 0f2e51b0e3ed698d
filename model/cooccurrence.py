"""Co-occurrences of residuals, the encoder's input in place of colours.

Generators, cameras and editors leave traces in the differences between neighbouring pixels, not in
the content. Steganalysis and forensics describe these by joint histograms of quantised differences
(Fridrich and Kodovský 2012, Cozzolino et al. 2017; also between colour planes). Here every pixel
looks up a learned vector for each triple of differences that contains it; the sum of the vectors is
the encoder's input at that pixel. Averaged over an area, it is a linear map of the area's
co-occurrence histogram, so the first convolution of the encoder can compute any linear classifier
on such histograms at every position.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 5
"""A difference is quantised to -2...2."""
STEPS = (1.0, 3.0)
"""Step sizes of the two quantisers, in levels of 255: for fine noise and for texture."""
CODES = LEVELS**3
"""Number of different triples of quantised differences."""
_PLANES, _ORDERS, _DIRECTIONS = 3, 2, 2
ROWS = _PLANES * _ORDERS * len(STEPS) * _DIRECTIONS * CODES
"""Rows of the table."""
_FINEST = 7  # levels of both quantisers combined: up to -5, -4 to -2, -1, 0, 1, 2 to 4, from 5
_TRIPLES = _FINEST**3
LOOKUPS = 2 * _PLANES * _ORDERS * _DIRECTIONS
"""Codes per pixel: horizontal and vertical differences each have their own."""
_TO_YCBCR = (  # ITU-R BT.601, full range, as in JPEG
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


class CooccurrenceInput(nn.Module):
    """A table of vectors (ROWS, C) and the input maps computed from it.

    The table is learned from histograms before the network (`training.fitting.cooccurrence`) and
    then frozen: gradients through so many look-ups would cost more than the network.
    """

    def __init__(self, channels: int) -> None:
        """Create a table of zeros with `channels` columns."""
        super().__init__()
        self.table = nn.Parameter(torch.zeros(ROWS, channels), requires_grad=False)

    def forward(self, levels: Tensor) -> Tensor:
        """Return the sum of each pixel's vectors.

        Args:
            levels: RGB (B, 3, H, W), integers 0 to 255, any floating type.

        Returns:
            (B, C, H, W), channels last in memory.
        """
        if levels.device.type != "cpu":
            return self._sum(levels).permute(0, 3, 1, 2)
        # One picture at a time takes half the time: the rows stay in the caches.
        return torch.cat([self._sum(picture[None]) for picture in levels]).permute(0, 3, 1, 2)

    def _sum(self, levels: Tensor) -> Tensor:
        """Return the sum, channels last (B, H, W, C)."""
        fine, coarse = (rows.to(self.table.device) for rows in CODE_ROWS)
        table = self.table.float()
        table = (table[fine] + table[coarse]).to(self.table.dtype)
        codes = look_up(levels)
        summed = F.embedding_bag(codes.flatten(0, 2), table, mode="sum")
        return summed.view(*codes.shape[:3], -1)


def _code_rows() -> tuple[Tensor, Tensor]:
    """Return the table rows of each code, for the first and the second quantiser."""
    levels = torch.cartesian_prod(*[torch.arange(_FINEST)] * 3)  # (_TRIPLES, 3)
    weights = torch.tensor([LEVELS**2, LEVELS, 1])
    tables = torch.arange(ROWS // CODES).view(-1, len(STEPS), _DIRECTIONS)
    quantisers = torch.tensor([[0, 0, 1, 2, 3, 4, 4], [0, 1, 2, 2, 2, 3, 4]])
    fine, coarse = (
        (CODES * tables[:, step, :, None] + (quantiser[levels] * weights).sum(1)).flatten()
        for step, quantiser in enumerate(quantisers)
    )
    return fine, coarse


CODE_ROWS = _code_rows()
"""Table rows of each code of `look_up` (codes,), one array per quantiser."""


def look_up(levels: Tensor) -> Tensor:
    """Compute the codes that each pixel looks up.

    For the planes Y, Cb and Cr, first and second differences along a line are quantised; three
    neighbours along the line give one code, three neighbours across it another. Edges are
    replicated. `CODE_ROWS` maps a code to one row per quantiser, which halves the look-ups.

    Args:
        levels: RGB (B, 3, H, W), integers 0 to 255.

    Returns:
        Codes (B, H, W, LOOKUPS), int32.
    """
    matrix = torch.tensor(_TO_YCBCR, device=levels.device)
    planes = torch.einsum("pc,bchw->bphw", matrix, levels.float()).round_()
    padded = F.pad(planes, (2, 2, 2, 2), mode="replicate").to(torch.int16)
    across = _codes(padded)
    down = _codes(padded.transpose(2, 3))
    codes = torch.cat([*across, *(code.transpose(2, 3) for code in down)], 1)
    # Transposed while the values are small.
    return codes.permute(0, 2, 3, 1).contiguous().int()


def _codes(padded: Tensor) -> list[Tensor]:
    """Return the codes along the rows of (B, 3, h + 4, w + 4); each (B, 3, h, w)."""
    height, width = padded.shape[2] - 4, padded.shape[3] - 4
    first = padded.diff(dim=3)
    found = []
    offset = torch.arange(_PLANES, dtype=torch.int16, device=padded.device)[:, None, None]
    offset = offset * (_ORDERS * _DIRECTIONS * _TRIPLES) + _TRIPLES // 2
    for differences in (first, first.diff(dim=3)):
        q = differences.clamp(-2, 2)
        q += differences.clamp(4, 5)
        q += differences.clamp(-5, -4)  # -3 to 3: the levels of `_FINEST`
        along = q[..., 2:].add(q[..., 1:-1], alpha=_FINEST)
        along.add_(q[..., :-2], alpha=_FINEST**2)
        beside = q[..., 2:, :].add(q[..., 1:-1, :], alpha=_FINEST)
        beside.add_(q[..., :-2, :], alpha=_FINEST**2)
        found.append(along[..., 2 : 2 + height, :width] + offset)
        found.append(beside[..., 1 : 1 + height, 1 : 1 + width] + (offset + _TRIPLES))
        offset = offset + _DIRECTIONS * _TRIPLES
    return found


def histogram(levels: Tensor) -> Tensor:
    """Return how often each row is looked up, relative to the number of pixels.

    Args:
        levels: RGB (B, 3, H, W), integers 0 to 255.

    Returns:
        (B, ROWS), float32; `histogram(x) @ table` is the mean of `CooccurrenceInput(x)`.
    """
    fine, coarse = (rows.to(levels.device) for rows in CODE_ROWS)
    # One picture at a time, as in `CooccurrenceInput`.
    codes = (look_up(picture[None]).flatten() for picture in levels)  # (H * W * LOOKUPS,)
    counts = torch.stack([code.bincount(minlength=len(fine)) for code in codes])
    by_row = counts.new_zeros(len(counts), ROWS).index_add_(1, fine, counts)
    by_row.index_add_(1, coarse, counts)
    return by_row.float() / (levels.shape[2] * levels.shape[3])
