"""From the logits of tiles and glance to the logit of a picture.

A tile's logit is that of the glance plus that of the tile itself (its *part*). For pictures that
were generated as a whole the part is noise; for pictures with a generated part it is all there is.
So the two can be combined as alternatives instead of being summed.
"""

import torch
from torch import Tensor

from model.config import Pooling


def pool(logits: Tensor, pooling: Pooling) -> Tensor:
    """Pool the logits of a picture's tiles.

    Args:
        logits: Image logits of the tiles (N,).
        pooling: As in `GammaConfig`.

    Returns:
        A scalar.
    """
    if pooling == "max":
        return logits.max()
    if pooling == "top3":
        return logits.topk(min(3, len(logits))).values.mean()
    return logits.mean()


def either(first: Tensor, second: Tensor) -> Tensor:
    """Compute the logit that at least one of two independent events happens (noisy or).

    Args:
        first: Logit of one event.
        second: Logit of the other; the shapes broadcast.
    """
    # Odds: (1 + e^a) (1 + e^b) - 1 = e^a + e^b + e^(a + b)
    return torch.logaddexp(torch.logaddexp(first, second), first + second)


def combine(pooled: Tensor, glance: Tensor, part_offset: float | None) -> Tensor:
    """Combine what glance and tiles tell about pictures.

    Args:
        pooled: Pooled logit of the tiles, glance included (any shape).
        glance: Logit of the glance alone (same shape).
        part_offset: As in `GammaConfig`.

    Returns:
        Logits of the pictures (same shape).
    """
    if part_offset is None:
        return pooled
    return either(glance, pooled - glance + part_offset)
