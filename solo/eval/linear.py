"""Linear classifiers on frozen features: solved to their optimum, all of a grid by SGD, or from few labels.

`fit_linear`: standardised features, cross-entropy plus an L2 penalty, by L-BFGS. The problem is strongly convex: the
result depends on no learning rate, order or seed, and is |gradient|^2 / (2 l2) above its optimum at most. `choose`: one
pass over the features serves all classifiers of a grid. `probe`: what a few or all labels are enough for, with the
penalties of the suite of eleven transfer data sets, 45 from 1e-6 to 1e5 (Kornblith, Shlens, Le, CVPR 2019, appendix;
Chen et al., SimCLR, ICML 2020, appendix B.8). Here each level has its own, chosen on a fifth of the training images.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from solo.errors import UserError
from solo.eval.features import ELEMENTS, Features, FeatureTable
from solo.eval.knn import class_counts, knn_ranking

CLOSE = 1e-4  # above the optimum, from which on it counts as reached
Pair = tuple[float, float]  # learning rate and weight decay


@dataclass(frozen=True)
class LinearClassifier:
    """Scores of all levels beside each other."""

    mean: Tensor  # (d,) of the training features
    scale: Tensor  # (d,) their standard deviation; 1 where a feature is constant
    weight: Tensor  # (d, classes of all levels), for standardised features
    bias: Tensor  # (classes of all levels,)
    counts: tuple[int, ...]  # classes of each level
    left: tuple[tuple[float, float], ...] = ()  # of each level: most above its optimum, and size of the gradient

    @torch.no_grad()
    def ranking(self, features: Tensor, top: int = 5) -> list[Tensor]:
        """For each level the `top` classes with the highest scores, (n, top), of features (n, d), the best first."""
        parts: list[list[Tensor]] = []
        for rows in torch.split(features, max(1, ELEMENTS // sum(self.weight.shape))):
            scores = torch.split(self.scores(rows), list(self.counts), dim=1)
            parts.append([part.topk(min(top, part.shape[1]), dim=1).indices for part in scores])
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def scores(self, features: Tensor) -> Tensor:
        """Logits (n, classes of all levels)."""
        return (features.to(self.mean.dtype) - self.mean) / self.scale @ self.weight + self.bias


@torch.no_grad()
def fit_linear(
    features: Tensor, labels: Tensor, counts: Sequence[int], *, l2: float = 1e-4, max_iter: int = 1000
) -> LinearClassifier:
    """Minimise for each level mean cross-entropy + l2 / 2 * |weight|^2; biases are free.

    Features are (n, d), on the device to compute on, labels (n, L) below `counts`, -1 unknown: left out of that level.
    Each level ends within `CLOSE` of its optimum, or after `max_iter` steps of L-BFGS.
    """
    features = features if features.dtype == torch.float64 else features.float()
    blocks = torch.split(features, max(1, ELEMENTS // features.shape[1]))
    mean = torch.stack([block.double().sum(dim=0) for block in blocks]).sum(dim=0) / len(features)
    square = torch.stack([(block.double() - mean).square().sum(dim=0) for block in blocks]).sum(dim=0)
    scale = (square / len(features)).sqrt()
    scale = scale.where(scale > 1e-6 * scale.max().clamp(min=1e-30), 1.0)
    mean, scale, found = mean.to(features.dtype), scale.to(features.dtype), []
    for count, column in zip(counts, labels.to(features.device).T, strict=True):
        weight, bias = features.new_zeros(features.shape[1], count), features.new_zeros(count)
        model = LinearClassifier(mean, scale, weight, bias, (count,))
        found.append((weight, bias, _fit(model, features, column, l2, max_iter)))
    weights, biases, left = zip(*found, strict=True)
    return LinearClassifier(mean, scale, torch.cat(weights, dim=1), torch.cat(biases), tuple(counts), left)


def _fit(model: LinearClassifier, features: Tensor, labels: Tensor, l2: float, max_iter: int) -> tuple[float, float]:
    """Fit a model of one level in place; how far it is above its optimum at most, and the size of the gradient."""
    known, rows = (labels >= 0).sum().clamp(min=1), max(1, ELEMENTS // sum(model.weight.shape))
    both = (model.weight.requires_grad_(), model.bias.requires_grad_())
    numbers = sum(part.numel() for part in both)
    optimizer = torch.optim.LBFGS(
        both,
        max_iter=max_iter,
        max_eval=2 * max_iter,
        history_size=20,
        tolerance_grad=math.sqrt(2 * l2 * CLOSE) / math.sqrt(numbers),  # of the largest entry
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    @torch.enable_grad()
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

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    loss()
    size = math.sqrt(sum(float(part.grad.double().square().sum()) for part in both if part.grad is not None))
    return size**2 / (2 * l2), size


def linear_ranking(
    bank: FeatureTable, features: Tensor, labels: Tensor, l2: float, steps: int, device: torch.device
) -> tuple[list[Tensor], LinearClassifier]:
    """For each level (n, up to 5) classes by `fit_linear` of the bank; labels (n, L) say which classes there are."""
    model = fit_linear(bank.features.to(device), bank.labels, class_counts(bank.labels, labels), l2=l2, max_iter=steps)
    return [best.cpu() for best in model.ranking(features.to(device))], model


@torch.no_grad()
def train_heads(
    features: Tensor, labels: Tensor, classes: int, pairs: Sequence[Pair], epochs: int, batch_size: int, seed: int
) -> tuple[Tensor, Tensor]:
    """SGD, momentum 0.9, on cross-entropy, rates following a cosine to 0: weights (G, d, C), biases (G, C), from zero.

    Features are (n, d), on the device to compute on, labels (n,) in [0, C); each of the G heads has a pair, whose decay
    spares biases. Each epoch goes through the features in an order of its own.
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
        speed.mul_(0.9).add_(x.T @ error).addcmul_(decay, weight)
        bias_speed.mul_(0.9).add_(error.sum(dim=1, keepdim=True))
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
) -> tuple[Pair, dict[Pair, float]]:
    """The best pair of a grid, of equal ones that of the smallest rate, and the accuracy of all pairs in percent.

    Both are of a share `left_out` of the rows; those whose label is -1 don't count. All else is as for `train_heads`.
    """
    known = (labels >= 0).nonzero()[:, 0]
    known = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).to(known.device)]
    judged, trained = known.tensor_split([max(1, round(left_out * len(known)))])
    pairs = list(itertools.product(sorted(rates), sorted(decays)))
    weight, bias = train_heads(features[trained], labels[trained], classes, pairs, epochs, batch_size, seed)
    right = torch.zeros(len(pairs), device=features.device)
    for rows in torch.split(judged, 1024):
        scores = torch.baddbmm(bias[:, None], features[rows].expand(len(pairs), -1, -1), weight)
        right += (scores.argmax(dim=2) == labels[rows].to(scores.device)).sum(dim=1)
    accuracies = dict(zip(pairs, (100 * right / len(judged)).tolist(), strict=True))
    return max(pairs, key=lambda pair: accuracies[pair]), accuracies


STRENGTHS = tuple(10 ** (-6 + place / 4) for place in range(45))
# Of linear classifiers the training images of each class that they get: so many (int), or a share of them (float).
FEW: dict[str, int | float] = {"shots1": 1, "shots10": 10, "labels1": 0.01, "labels10": 0.1}


@dataclass(frozen=True)
class Settings:
    """How features are measured by every protocol."""

    draws: int = 5  # of few training images; results are their means
    k: int = 20  # neighbours
    temperature: float = 0.07  # of their votes
    l2: float = 1e-4  # where too few images are there to choose one
    linear_steps: int = 300  # of L-BFGS at most
    seed: int = 0  # of the draws: the same images for every network


def probe(features: Features, protocol: str, settings: Settings, device: torch.device) -> Tensor:
    """(L, n) share of the draws in which each measured image is right at each level; NaN where its label is unknown.

    The protocol is `knn` or `linear`, of all training images, or one of `FEW`.
    """
    train, val = features.train, features.val
    if train is None or not features.levels:
        raise UserError(f"{features.name}: a benchmark needs training and validation images with labels")
    draws = settings.draws if protocol in FEW else 1
    found = torch.zeros(len(features.levels), len(val), dtype=torch.float64)
    for seed in range(settings.seed, settings.seed + draws):
        bank = train.rows(some_of_each(train.labels[:, -1], FEW[protocol], seed)) if protocol in FEW else train
        best = knn_ranking(bank, val, settings.k, settings.temperature, device) if protocol == "knn" else []
        for level in range(len(features.levels) if protocol != "knn" else 0):
            one = FeatureTable(bank.features, bank.labels[:, level, None])
            truth = val.labels[:, level, None]
            l2 = choose_strength(one, settings, seed, device)
            best += linear_ranking(one, val.features, truth, l2, settings.linear_steps, device)[0]
        found += torch.stack([top[:, 0] == truth for top, truth in zip(best, val.labels.T, strict=True)])
    return (found / draws).masked_fill(val.labels.T < 0, torch.nan)


def some_of_each(labels: Tensor, amount: int | float, seed: int, least: int = 1) -> Tensor:
    """Row numbers of an amount (int), or of a share (float) but `least`, of random images of each class (n,), >= 0."""
    generator, found = torch.Generator().manual_seed(seed), [labels.new_empty(0, dtype=torch.long)]
    for label in torch.unique(labels[labels >= 0]).tolist():
        rows = (labels == label).nonzero()[:, 0]
        most = amount if isinstance(amount, int) else max(least, round(amount * len(rows)))
        found.append(rows[torch.randperm(len(rows), generator=generator)[:most]])
    return torch.cat(found).sort().values


def choose_strength(bank: FeatureTable, settings: Settings, seed: int, device: torch.device) -> float:
    """The strength of `STRENGTHS` that is best on a fifth of each class of the bank (labels (n, 1)).

    Every eighth is tried, then those beside the best at half the distance, three times, which finds the best if there
    is one summit. Of equally good ones the strongest is taken; `settings.l2` where no class has three images.
    """
    judged = torch.zeros(len(bank), dtype=torch.bool)
    judged[some_of_each(bank.labels[:, 0], 0.2, seed, least=0)] = True
    if not judged.any():
        return settings.l2
    trained, held = bank.rows(~judged), bank.rows(judged)
    x, count = trained.features.to(device), [int(bank.labels.max()) + 1]

    @functools.cache
    def better(place: int) -> tuple[int, int]:
        model = fit_linear(x, trained.labels, count, l2=STRENGTHS[place], max_iter=settings.linear_steps)
        (best,) = model.ranking(held.features.to(device), top=1)
        return int((best[:, 0].cpu() == held.labels[:, 0]).sum()), place

    at = max(range(0, len(STRENGTHS), 8), key=better)
    for step in (4, 2, 1):
        at = max((near for near in (at - step, at, at + step) if 0 <= near < len(STRENGTHS)), key=better)
    return STRENGTHS[at]
