"""Linear classifiers with all learning rates and weight decays of a grid, trained at once as one batched product.

They see the same batches in the same order, so that one pass over the features serves all of them. The best is chosen
on a part of the *training* rows; nobody looks at the validation images.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """The best `lr` and `weight_decay` of a grid, and the accuracy of all pairs on the rows left out, in percent."""

    lr: float
    weight_decay: float
    accuracies: dict[tuple[float, float], float]


@torch.no_grad()
def train_heads(
    features: Tensor,
    labels: Tensor,
    classes: int,
    pairs: Sequence[tuple[float, float]],
    epochs: int,
    batch_size: int,
    seed: int,
    momentum: float = 0.9,
) -> tuple[Tensor, Tensor]:
    """SGD with momentum on cross-entropy, rates following a cosine to 0: weights (G, d, C), biases (G, C), from zero.

    Features are (n, d), on the device to compute on, labels (n,) in [0, C); `pairs` are the learning rate and weight
    decay of each of the G heads, the decay spares biases. Each epoch goes through the features in an order of its own.
    """
    n, rates = len(features), torch.tensor([lr for lr, _ in pairs], dtype=torch.float64)
    decay = features.new_tensor([wd for _, wd in pairs])[:, None, None]
    weight = features.new_zeros(len(pairs), features.shape[1], classes)
    bias = features.new_zeros(len(pairs), 1, classes)
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    generator = torch.Generator().manual_seed(seed)
    steps = [rows for _ in range(epochs) for rows in torch.split(torch.randperm(n, generator=generator), batch_size)]
    for step, rows in enumerate(steps):
        x, y = features[rows.to(features.device)], labels[rows.to(labels.device)].to(features.device)
        error = torch.baddbmm(bias, x.expand(len(pairs), -1, -1), weight).softmax(dim=2)  # (G, B, C)
        error[:, torch.arange(len(y), device=y.device), y] -= 1
        error /= len(y)
        rate = (rates * (1 + math.cos(math.pi * step / len(steps))) / 2).to(weight)[:, None, None]
        speed.mul_(momentum).add_(x.T @ error).addcmul_(decay, weight)
        bias_speed.mul_(momentum).add_(error.sum(dim=1, keepdim=True))
        weight.addcmul_(rate, speed, value=-1)
        bias.addcmul_(rate, bias_speed, value=-1)
    return weight, bias[:, 0]


@torch.no_grad()
def choose(
    features: Tensor,
    labels: Tensor,
    classes: int,
    rates: Sequence[float],
    decays: Sequence[float],
    epochs: int,
    batch_size: int,
    seed: int,
    left_out: float = 0.1,
) -> Choice:
    """The pair of the grid with the best accuracy on a share `left_out` of the rows, of equal ones the smallest rate.

    Other arguments are those of `train_heads`; rows whose label is -1 don't count.
    """
    known = (labels >= 0).nonzero()[:, 0]
    known = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).to(known.device)]
    judged, trained = known[: max(1, round(left_out * len(known)))], known[max(1, round(left_out * len(known))) :]
    pairs = list(itertools.product(sorted(rates), sorted(decays)))
    weight, bias = train_heads(
        features[trained], labels[trained], classes, pairs, epochs, min(batch_size, len(trained)), seed
    )
    right = torch.zeros(len(pairs), device=features.device)
    for rows in torch.split(judged, 1024):
        scores = torch.baddbmm(bias[:, None], features[rows].expand(len(pairs), -1, -1), weight)
        right += (scores.argmax(dim=2) == labels[rows].to(scores.device)).sum(dim=1)
    accuracies = dict(zip(pairs, (100 * right / len(judged)).tolist(), strict=True))
    lr, weight_decay = max(pairs, key=lambda pair: accuracies[pair])
    return Choice(lr, weight_decay, accuracies)
