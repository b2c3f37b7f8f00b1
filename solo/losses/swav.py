"""SwAV's loss (Caron et al., 2020): predict the cluster assignment of a view from the other views."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from solo.losses.numerics import full_precision


@full_precision
def swav_loss_func(
    preds: Sequence[Tensor] | Tensor, assignments: Sequence[Tensor] | Tensor, temperature: float = 0.1
) -> Tensor:
    """Mean over the pairs of different views of the cross-entropy of prediction b under assignment a.

    Args:
        preds: logits (N, C) of every view, a list or stacked; view b belongs to the image crop of assignment b.
        assignments: distributions (N, C) of the first (large) views, a list or stacked.
        temperature: > 0, divides the logits.

    Returns:
        Scalar.

    Raises:
        ValueError: if there is no pair of different views.
    """
    losses = [
        F.cross_entropy(logits / temperature, target)
        for a, target in enumerate(assignments)
        for b, logits in enumerate(preds)
        if a != b
    ]
    if not losses:
        raise ValueError(f"got {len(preds)} views and {len(assignments)} assignments: two views are needed at least")
    return torch.stack(losses).mean()
