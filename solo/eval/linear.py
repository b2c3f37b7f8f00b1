"""A linear classifier for every label level on frozen features: multinomial logistic regression, solved to its optimum.

Standardised features, cross-entropy plus an L2 penalty, all levels in the same passes of L-BFGS over the training
images. The problem is convex, so that the result depends on no learning rate, order or seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LinearClassifier:
    """Scores of all levels beside each other.

    Attributes:
        mean: (d,) of the training features.
        scale: (d,) their standard deviation; 1 where a feature is constant.
        weight: (d, classes of all levels), for standardised features.
        bias: (classes of all levels,).
        counts: classes of each level.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    counts: tuple[int, ...]

    @torch.no_grad()
    def ranking(self, features: Tensor, top: int = 5, max_elements: int = 5_000_000) -> list[Tensor]:
        """For each level the classes with the highest scores, (n, min(top, classes)), the best first.

        Args:
            features: (n, d).
            top: how many.
            max_elements: bound on the scores held at once.
        """
        parts: list[list[Tensor]] = []
        for rows in torch.split(features, _rows(self.weight, max_elements)):
            scores = torch.split(self.scores(rows), list(self.counts), dim=1)
            parts.append([part.topk(min(top, part.shape[1]), dim=1).indices for part in scores])
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def scores(self, features: Tensor) -> Tensor:
        """Logits (n, classes of all levels)."""
        return (features.to(self.mean.dtype) - self.mean) / self.scale @ self.weight + self.bias


def fit_linear(
    features: Tensor,
    labels: Tensor,
    counts: Sequence[int],
    *,
    l2: float = 1e-4,
    max_iter: int = 100,
    max_elements: int = 5_000_000,
) -> LinearClassifier:
    """Minimise for each level mean cross-entropy + l2 / 2 * |weight|^2; biases are free.

    Args:
        features: (n, d), on the device to compute on.
        labels: (n, L), -1 unknown: left out of that level.
        counts: classes of each level, above all labels.
        l2: strength of the penalty, > 0.
        max_iter: steps of L-BFGS at most.
        max_elements: bound on the numbers held at once, beside the features.
    """
    features = features if features.dtype == torch.float64 else features.float()
    labels, total = labels.to(features.device), sum(counts)
    mean, scale = _moments(features, max_elements)
    weight = torch.zeros(features.shape[1], total, dtype=features.dtype, device=features.device, requires_grad=True)
    bias = torch.zeros(total, dtype=features.dtype, device=features.device, requires_grad=True)
    known = (labels >= 0).sum(dim=0).clamp(min=1)
    model = LinearClassifier(mean, scale, weight, bias, tuple(counts))
    rows = _rows(weight, max_elements)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = 0.5 * l2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        total_loss = value.detach()
        for x, y in zip(torch.split(features, rows), torch.split(labels, rows), strict=True):
            scores = torch.split(model.scores(x), list(counts), dim=1)
            each = [
                F.cross_entropy(part, y[:, level], ignore_index=-1, reduction="sum") / known[level]
                for level, part in enumerate(scores)
            ]
            value = torch.stack(each).sum()
            value.backward()  # type: ignore[no-untyped-call]
            total_loss = total_loss + value.detach()
        return total_loss

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return LinearClassifier(mean, scale, weight.detach(), bias.detach(), tuple(counts))


def _rows(weight: Tensor, max_elements: int) -> int:
    return max(1, max_elements // sum(weight.shape))


def _moments(features: Tensor, max_elements: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in float64, a block of rows at a time."""
    blocks = torch.split(features, max(1, max_elements // features.shape[1]))
    mean = torch.stack([block.double().sum(dim=0) for block in blocks]).sum(dim=0) / len(features)
    square = torch.stack([(block.double() - mean).square().sum(dim=0) for block in blocks]).sum(dim=0)
    scale = (square / len(features)).sqrt()
    scale = scale.where(scale > 1e-6 * scale.max().clamp(min=1e-30), 1.0)
    return mean.to(features.dtype), scale.to(features.dtype)
