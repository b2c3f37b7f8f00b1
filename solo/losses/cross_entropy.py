"""Cross-entropy over the labelled rows of all processes."""

import torch.nn.functional as F
from torch import Tensor

from solo import distributed
from solo.losses.numerics import full_precision


@full_precision
def cross_entropy_loss_func(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the rows with a label; its mean over processes is that of one process with all rows.

    Args:
        logits: (N, C).
        targets: (N,) classes, -1 for unknown; or soft targets (N, C).
        label_smoothing: in [0, 1), share that moves to all classes.

    Returns:
        Scalar; 0 if no process has a label.
    """
    if targets.is_floating_point():
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing)
    return total / distributed.per_process((targets >= 0).sum())
