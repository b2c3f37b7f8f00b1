"""Accuracy and the averages of an epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from solo import distributed
from solo.precision import at_least_float32


@torch.no_grad()
def accuracy_at_k(
    outputs: Tensor, targets: Tensor, top_k: Sequence[int] = (1, 5), labelled: Tensor | None = None
) -> list[Tensor]:
    """Top-k accuracies in percent, over the rows that have a label: a tensor (1,) for each k; a k above C counts as C.

    Outputs are scores (N, C), targets (N,) class indices, negative ones unknown; 0 if nothing is labelled. `labelled`
    is how many rows have a label, () and above 0; default: those here.
    """
    ks = [min(k, outputs.shape[1]) for k in top_k]
    labelled = (targets >= 0).sum().clamp(min=1) if labelled is None else labelled
    hits = outputs.topk(max(ks), dim=1).indices == targets[:, None]  # (N, max k)
    return [hits[:, :k].sum().mul(100.0).div(labelled).reshape(1) for k in ks]


def weighted_mean(outputs: Sequence[Mapping[str, Any]], key: str, batch_size_key: str) -> Tensor:
    """Mean of `key` over the batches' outputs, each weighted by its `batch_size_key`; NaN if all weights are 0."""
    total = weight = torch.as_tensor(0.0)
    for out in outputs:
        size = torch.as_tensor(out[batch_size_key])
        total = total.to(size.device) + torch.as_tensor(out[key], device=size.device).float().squeeze() * size
        weight = weight.to(size.device) + size
    return total / weight


def mean_over_processes(outputs: Sequence[Mapping[str, Any]], key: str, batch_size_key: str) -> Tensor:
    """`weighted_mean` of the outputs of all processes together; each has at least one."""
    mean = weighted_mean(outputs, key, batch_size_key)
    weight = sum(torch.as_tensor(out[batch_size_key], device=mean.device) for out in outputs)
    sums = distributed.all_reduce_sum(torch.stack([(mean * weight).nan_to_num(), mean.new_tensor(float(weight))]))
    return sums[0] / sums[1] if distributed.is_distributed() else mean


@torch.no_grad()
def mean_std(z: Tensor, everyone: bool = False) -> Tensor:
    """Spread of unit projections (V, B, D), `train_z_std`: 1 / sqrt(D) on the whole sphere, 0 where they collapse.

    The standard deviation over the batch of all processes, averaged over features and views; `everyone`: these are
    the rows of all processes.
    """
    z = F.normalize(at_least_float32(z), dim=-1)
    mean, number = z.mean(dim=1, keepdim=True), 1 if everyone else distributed.world_size()
    sums = [(z - mean).square().sum(dim=1)]
    if number > 1:  # and how far the processes' means are apart: equally many rows on each
        own = mean[:, 0].double()
        total, first, second = distributed.all_reduce_sum(torch.stack([sums[0].double(), own, own.square()]))
        sums = [total + z.shape[1] * (second - first.square() / number).clamp(min=0)]
    return (sums[0] / (z.shape[1] * number - 1)).sqrt().mean().to(z.dtype)
