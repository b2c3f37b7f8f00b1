"""DeepCluster v2's loss (Caron et al., 2020): classify every view into the cluster of its image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from solo import distributed
from solo.losses.numerics import full_precision


@full_precision
def deepclusterv2_loss_func(
    outputs: Sequence[Tensor] | Tensor, assignments: Tensor, temperature: float = 0.1
) -> Tensor:
    """Cross-entropy with the clusters, a mean over the P sets of prototypes.

    Args:
        outputs: (P, V, N, C) logits, or P tensors (V, N, C) of different C; more dimensions between P and C flatten.
        assignments: (P, N) cluster of every image, -1 for not assigned.
        temperature: > 0, divides the logits.

    Returns:
        Scalar; a set without any assigned image counts as 0 (solo-learn: NaN).
    """
    sums, counts = [], []
    for logits, clusters in zip(outputs, assignments, strict=True):
        rows = logits.flatten(0, -2) / temperature  # (V * N, C)
        target = clusters.repeat(len(rows) // len(clusters))
        sums.append(F.cross_entropy(rows, target, ignore_index=-1, reduction="sum"))
        counts.append((target >= 0).sum())
    return (torch.stack(sums) / distributed.per_process(torch.stack(counts).to(sums[0].dtype))).mean()
