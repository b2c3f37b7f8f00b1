"""What a few or all labels are enough for: kNN and logistic regression on frozen features, image by image.

Logistic regression by L-BFGS with the grid of the suite of eleven transfer data sets: 45 strengths of the L2 penalty,
evenly spaced in their logarithm from 1e-6 to 1e5 (Kornblith, Shlens, Le: Do better ImageNet models transfer better?,
CVPR 2019, appendix; Chen et al., SimCLR, ICML 2020, appendix B.8). Here each level has a strength of its own, chosen on
a fifth of the training images and fitted to all of them, and features are standardised.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from solo.errors import UserError
from solo.eval.features import Features, FeatureTable
from solo.eval.linear import fit_linear
from solo.eval.predict import knn_ranking, linear_ranking

STRENGTHS = tuple(10 ** (-6 + place / 4) for place in range(45))


@dataclass(frozen=True)
class Probe:
    """A classifier, and the training images that it gets: all, so many of each class, or a share of each class."""

    classifier: str  # knn or linear
    shots: int | None = None
    share: float | None = None

    @property
    def few(self) -> bool:
        """Whether it gets some of the training images only."""
        return self.shots is not None or self.share is not None


PROBES = {
    "knn": Probe("knn"),
    "linear": Probe("linear"),
    "shots1": Probe("linear", shots=1),
    "shots10": Probe("linear", shots=10),
    "labels1": Probe("linear", share=0.01),
    "labels10": Probe("linear", share=0.1),
}


@dataclass(frozen=True)
class Settings:
    """How features are measured by every protocol."""

    draws: int = 5  # of few training images; results are their means
    k: int = 20  # neighbours
    temperature: float = 0.07  # of their votes
    l2: float = 1e-4  # where too few images are there to choose one
    linear_steps: int = 300  # of L-BFGS at most
    seed: int = 0  # of the draws: the same images for every network


def probe(features: Features, which: Probe, settings: Settings, device: torch.device) -> Tensor:
    """(L, n) share of the draws in which each measured image is right at each level; NaN where its label is unknown.

    Raises:
        UserError: there are no labels, or no training images.
    """
    train, val = features.train, features.val
    if train is None or not features.levels:
        raise UserError(f"{features.name}: a benchmark needs training and validation images with labels")
    found = torch.zeros(len(features.levels), len(val), dtype=torch.float64)
    for draw in range(settings.draws if which.few else 1):
        seed = settings.seed + draw
        bank = train.rows(some_of_each(train.labels[:, -1], which.shots, which.share, seed)) if which.few else train
        if which.classifier == "knn":
            best = knn_ranking(bank, val, settings.k, settings.temperature, device)
        else:
            best = []
            columns = (torch.split(table.labels, 1, dim=1) for table in (bank, val))
            for labels, truth in zip(*columns, strict=True):
                one = FeatureTable(bank.features, labels)
                l2 = choose_strength(one, settings, seed, device)
                best += linear_ranking(one, val.features, truth, l2, settings.linear_steps, device)[0]
        found += torch.stack([top[:, 0] == truth for top, truth in zip(best, val.labels.T, strict=True)])
    return (found / (settings.draws if which.few else 1)).masked_fill(val.labels.T < 0, torch.nan)


def some_of_each(labels: Tensor, count: int | None, share: float | None, seed: int, least: int = 1) -> Tensor:
    """Row numbers of `count`, or of a `share` but `least`, random images of each class of (n,); -1 is none."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for label in torch.unique(labels[labels >= 0]).tolist():
        rows = (labels == label).nonzero()[:, 0]
        most = count if count is not None else max(least, round((share or 0) * len(rows)))
        found.append(rows[torch.randperm(len(rows), generator=generator)[:most]])
    return torch.cat(found).sort().values if found else torch.empty(0, dtype=torch.long)


def choose_strength(bank: FeatureTable, settings: Settings, seed: int, device: torch.device) -> float:
    """The strength of `STRENGTHS` that is best on a fifth of each class of the bank (labels (n, 1)).

    Every eighth is tried, then those beside the best at half the distance, three times, which finds the best if there
    is one summit. Of equally good ones the strongest is taken; `settings.l2` where no class has three images.
    """
    judged = torch.zeros(len(bank), dtype=torch.bool)
    judged[some_of_each(bank.labels[:, 0], None, 0.2, seed, least=0)] = True
    if not judged.any():
        return settings.l2
    trained, held = bank.rows(~judged), bank.rows(judged)
    x, count = trained.features.to(device), [int(bank.labels.max()) + 1]
    right: dict[int, int] = {}

    def better(place: int) -> tuple[int, int]:
        if place not in right:
            model = fit_linear(x, trained.labels, count, l2=STRENGTHS[place], max_iter=settings.linear_steps)
            (best,) = model.ranking(held.features.to(device), top=1)
            right[place] = int((best[:, 0].cpu() == held.labels[:, 0]).sum())
        return right[place], place

    at = max(range(0, len(STRENGTHS), 8), key=better)
    for step in (4, 2, 1):
        at = max((near for near in (at - step, at, at + step) if 0 <= near < len(STRENGTHS)), key=better)
    return STRENGTHS[at]
