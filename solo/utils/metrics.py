"""Accuracy and the averages of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def accuracy_at_k(outputs: Tensor, targets: Tensor, top_k: Sequence[int] = (1, 5)) -> list[Tensor]:
    """Top-k accuracies in percent, over the rows that have a label.

    Args:
        outputs: (N, C) scores.
        targets: (N,) class indices; negative ones are unknown and do not count. 0 if nothing is labelled.
        top_k: which k; a k above C counts as C.

    Returns:
        One tensor of shape (1,) for each k.
    """
    ks = [min(k, outputs.shape[1]) for k in top_k]
    labelled = (targets >= 0).sum().clamp(min=1)
    hits = outputs.topk(max(ks), dim=1).indices == targets[:, None]  # (N, max k)
    return [hits[:, :k].sum().mul(100.0).div(labelled).reshape(1) for k in ks]


def weighted_mean(outputs: Sequence[Mapping[str, Any]], key: str, batch_size_key: str) -> Tensor:
    """Mean of `key` over the outputs, each weighted by its `batch_size_key`; NaN if all weights are 0.

    Args:
        outputs: one mapping for each batch, the values numbers or one-element tensors.
        key: what to average.
        batch_size_key: the weight.
    """
    total = torch.as_tensor(0.0)
    weight = torch.as_tensor(0.0)
    for out in outputs:
        size = torch.as_tensor(out[batch_size_key])
        total = total.to(size.device) + torch.as_tensor(out[key], device=size.device).float().squeeze() * size
        weight = weight.to(size.device) + size
    return total / weight


@torch.no_grad()
def mean_std(z: Tensor) -> Tensor:
    """Spread of the unit projections, `train_z_std`: 1 / sqrt(D) where they fill the sphere, 0 where they collapse.

    Args:
        z: (V, B, D), projections of V views.

    Returns:
        The standard deviation over the batch, averaged over features and views.
    """
    return F.normalize(z.float(), dim=-1).std(dim=1).mean()
