"""MoCo v2's loss (He et al., 2020; Chen et al., 2020): InfoNCE against a queue."""

import torch
import torch.nn.functional as F
from torch import Tensor

from solo.losses.numerics import full_precision


@full_precision
def mocov2plus_loss_func(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of ``[query.key, query.queue] / temperature`` with the key as target.

    Args:
        query: (N, D) unit rows; nothing is normalised here.
        key: (N, D) unit rows of the momentum network.
        queue: (D, K) unit columns, the same on all processes.
        temperature: > 0.

    Returns:
        Scalar.
    """
    positive = (query * key).sum(dim=1, keepdim=True)  # (N, 1)
    logits = torch.cat([positive, query @ queue], dim=1) / temperature  # (N, 1 + K)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
