"""Linear classifiers on frozen features: of every label level, solved to its optimum; or all of a grid, by SGD.

Standardised features, cross-entropy plus an L2 penalty, minimised by L-BFGS for each level by itself. The problem is
convex, so that the result depends on no learning rate, order or seed; and the gradient that is left bounds how far
the objective is above its optimum: by |gradient|^2 / (2 l2), as the penalty makes it strongly convex.

Those of a grid see the same batches in the same order, so that one pass over the features serves all of them; the best
is chosen on a part of the *training* rows.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CLOSE = 1e-4  # above the optimum, from which on it counts as reached


@dataclass(frozen=True)
class LinearClassifier:
    """Scores of all levels beside each other."""

    mean: Tensor  # (d,) of the training features
    scale: Tensor  # (d,) their standard deviation; 1 where a feature is constant
    weight: Tensor  # (d, classes of all levels), for standardised features
    bias: Tensor  # (classes of all levels,)
    counts: tuple[int, ...]  # classes of each level
    # of each level how far the objective is above its optimum at most, and the size of the gradient
    left: tuple[tuple[float, float], ...] = ()

    @torch.no_grad()
    def ranking(self, features: Tensor, top: int = 5, max_elements: int = 5_000_000) -> list[Tensor]:
        """For each level the `top` classes with the highest scores, (n, top), of features (n, d), the best first."""
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
    max_iter: int = 1000,
    max_elements: int = 5_000_000,
) -> LinearClassifier:
    """Minimise for each level mean cross-entropy + l2 / 2 * |weight|^2; biases are free.

    Features are (n, d), on the device to compute on, labels (n, L), -1 unknown: left out of that level; `counts` are
    the classes of each level, above all labels. Each level ends within `CLOSE` of its optimum, or after `max_iter`
    steps of L-BFGS; `max_elements` bounds the numbers held at once, beside the features.
    """
    features = features if features.dtype == torch.float64 else features.float()
    labels = labels.to(features.device)
    mean, scale = _moments(features, max_elements)
    found = []
    for count, column in zip(counts, labels.T, strict=True):
        weight, bias = features.new_zeros(features.shape[1], count), features.new_zeros(count)
        start = LinearClassifier(mean, scale, weight, bias, (count,))
        found.append(_fit(start, features, column, l2, max_iter, max_elements))
    return LinearClassifier(
        mean,
        scale,
        torch.cat([one.weight for one in found], dim=1),
        torch.cat([one.bias for one in found]),
        tuple(counts),
        tuple(left for one in found for left in one.left),
    )


def _fit(
    model: LinearClassifier, features: Tensor, labels: Tensor, l2: float, max_iter: int, max_elements: int
) -> LinearClassifier:
    """One level, started from `model`."""
    known, rows = (labels >= 0).sum().clamp(min=1), _rows(model.weight, max_elements)
    both = (model.weight.requires_grad_(), model.bias.requires_grad_())
    enough = math.sqrt(2 * l2 * CLOSE)  # size of the gradient
    optimizer = torch.optim.LBFGS(
        both,
        max_iter=max_iter,
        max_eval=2 * max_iter,
        history_size=20,
        tolerance_grad=enough / math.sqrt(sum(part.numel() for part in both)),  # of the largest entry
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = 0.5 * l2 * model.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        total = value.detach().double()
        for x, y in zip(torch.split(features, rows), torch.split(labels, rows), strict=True):
            value = F.cross_entropy(model.scores(x), y, ignore_index=-1, reduction="sum") / known
            value.backward()  # type: ignore[no-untyped-call]
            total = total + value.detach().double()
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
        loss()
    size = math.sqrt(sum(float(part.grad.double().square().sum()) for part in both if part.grad is not None))
    weight, bias = (part.detach() for part in both)
    return LinearClassifier(model.mean, model.scale, weight, bias, model.counts, ((size**2 / (2 * l2), size),))


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
    size = min(batch_size, len(trained))
    weight, bias = train_heads(features[trained], labels[trained], classes, pairs, epochs, size, seed)
    right = torch.zeros(len(pairs), device=features.device)
    for rows in torch.split(judged, 1024):
        scores = torch.baddbmm(bias[:, None], features[rows].expand(len(pairs), -1, -1), weight)
        right += (scores.argmax(dim=2) == labels[rows].to(scores.device)).sum(dim=1)
    accuracies = dict(zip(pairs, (100 * right / len(judged)).tolist(), strict=True))
    lr, weight_decay = max(pairs, key=lambda pair: accuracies[pair])
    return Choice(lr, weight_decay, accuracies)
