"""Cosine similarities of negatives that share a coarse label and of the others, and what a threshold selects.

The figures 8, 9, 12 and 13 of the supplementary of Kokilepersaud et al., HEX (WACV 2025). Similarities are computed a
block of anchors at a time, with every row; an anchor is never compared with itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solo.eval.rows import draw, unit_rows

ELEMENTS = 16_000_000  # similarities held at once
_FINE = 4000  # bins from which the quantiles are read, each 0.0005 wide


@dataclass(frozen=True)
class CosineGroup:
    """Cosines of one kind of pairs."""

    pairs: int  # how many (anchor, other) pairs
    mean: float  # over all pairs; NaN without pairs, as everything below
    std: float  # over all pairs
    anchor_means: Tensor  # (A,) mean of each anchor, NaN where it has no such pair (figure 12)
    histogram: Tensor  # (bins,) share of the pairs in each of equally wide bins from -1 to 1
    quantiles: dict[float, float]  # probability -> cosine, to 0.0005


@dataclass(frozen=True)
class CosineDistributions:
    """Both kinds of negatives."""

    same: CosineGroup  # pairs with the same known label
    other: CosineGroup  # all other pairs of labelled rows
    anchors: Tensor  # (A,) the rows that were anchors

    @property
    def ratio(self) -> float:
        """Mean cosine of `same` over that of `other` (figure 13); of little use where the latter is near 0."""
        return self.same.mean / self.other.mean if self.other.mean != 0 else math.nan

    @property
    def gap(self) -> float:
        """Mean cosine of `same` minus that of `other`, -2 to 2."""
        return self.same.mean - self.other.mean


class _Sums:
    """What one kind of pairs adds up to."""

    def __init__(self) -> None:
        self.total = self.squares = 0.0
        self.counts: list[Tensor] = []
        self.anchor_sums: list[Tensor] = []
        self.fine = torch.zeros(_FINE, dtype=torch.float64)

    def add(self, similarity: Tensor, mask: Tensor) -> None:
        values = similarity[mask]
        self.total += float(values.sum(dtype=torch.float64))
        self.squares += float(values.square().sum(dtype=torch.float64))
        self.counts.append(mask.sum(dim=1).cpu())
        self.anchor_sums.append((similarity * mask).sum(dim=1, dtype=torch.float64).cpu())
        self.fine += torch.histc(values.float().clamp_(-1, 1), _FINE, -1, 1).double().cpu()

    def group(self, bins: int, probabilities: tuple[float, ...]) -> CosineGroup:
        counts, sums = torch.cat(self.counts), torch.cat(self.anchor_sums)
        pairs = int(counts.sum())
        mean = self.total / pairs if pairs else math.nan
        std = math.sqrt(max(0.0, self.squares / pairs - mean**2)) if pairs else math.nan
        share = self.fine / self.fine.sum()  # NaN without pairs
        edges = torch.linspace(-1, 1, _FINE + 1, dtype=torch.float64)
        reached = self.fine.cumsum(0)  # whole numbers, so exact
        bins_of = {p: int((reached < math.ceil(p * pairs - 1e-9)).sum()) for p in probabilities}
        quantiles = {p: float(edges[place + 1]) if pairs else math.nan for p, place in bins_of.items()}
        return CosineGroup(pairs, mean, std, sums / counts, share.view(bins, -1).sum(dim=1), quantiles)


@torch.no_grad()
def cosine_distributions(
    features: Tensor,
    labels: Tensor,
    *,
    max_anchors: int = 10_000,
    bins: int = 100,
    probabilities: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99),
    seed: int = 0,
) -> CosineDistributions:
    """Cosines of anchors with all other rows, apart for those of the same label and the others.

    Args:
        features: (N, D), of the projection or of the representation space.
        labels: (N,) of the level in question, the coarse one for the paper's figures; rows with -1 are left out.
        max_anchors: with more rows, that many are drawn as anchors; each is still compared with all rows.
        bins: of the histogram, a divisor of 4000.
        probabilities: of the quantiles, 0 to 1.
        seed: of the drawing.

    Returns:
        See `CosineDistributions`.

    Raises:
        ValueError: if shapes don't fit, `bins` doesn't divide 4000, or fewer than two rows have a label.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"expected features (N, D) and labels (N,), got {tuple(features.shape)}, {tuple(labels.shape)}"
        )
    if bins < 1 or _FINE % bins:
        raise ValueError(f"bins must divide {_FINE}, got {bins}")
    known = (labels >= 0).nonzero()[:, 0].to(features.device)
    if len(known) < 2:
        raise ValueError(f"cosines need at least two labelled rows, got {len(known)} of {len(labels)}")
    z, labels = unit_rows(features[known]), labels.to(features.device)[known]
    anchors = draw(len(z), max_anchors, seed).to(z.device)
    same, other = _Sums(), _Sums()
    for rows, similarity in _blocks(z, anchors):
        alike = labels[rows, None] == labels
        not_self = rows[:, None] != torch.arange(len(z), device=z.device)
        same.add(similarity, alike & not_self)
        other.add(similarity, ~alike)
    return CosineDistributions(same.group(bins, probabilities), other.group(bins, probabilities), known[anchors].cpu())


@dataclass(frozen=True)
class Selection:
    """What the adaptive threshold selects."""

    threshold: float  # mean over the anchors of each anchor's quantile of cosines (figure 8)
    selected: float  # mean number of other rows above it, per anchor (figure 9)
    # share of these with the anchor's label, over the pairs whose labels are known, 0 to 1; NaN without
    precision: float
    recall: float  # share of the pairs of one label that are above it, 0 to 1; NaN without labels


@torch.no_grad()
def selection(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    quantile: float = 0.99,
    threshold: float | None = None,
    max_anchors: int = 10_000,
    seed: int = 0,
) -> Selection:
    """Threshold of `HEX_adaptive` on these rows, how many it selects, and how many of those share the label.

    Args:
        features: (N, D), N >= 2.
        labels: (N,) of the coarse level, -1 for unknown; None: no labels.
        quantile: of each anchor's cosines with all rows, itself included, as in the loss.
        threshold: take this cosine instead.
        max_anchors: with more rows, that many are drawn as anchors.
        seed: of the drawing.

    Raises:
        ValueError: if shapes don't fit or `quantile` is not in [0, 1].
    """
    if features.ndim != 2 or len(features) < 2 or (labels is not None and labels.shape != features.shape[:1]):
        given = None if labels is None else tuple(labels.shape)
        raise ValueError(f"expected features (N, D), N >= 2, and labels (N,) or None, got {features.shape}, {given}")
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie in [0, 1], got {quantile}")
    z = unit_rows(features)
    anchors = draw(len(z), max_anchors, seed).to(z.device)
    labels = torch.full((len(z),), -1, device=z.device) if labels is None else labels.to(z.device)
    if threshold is None:
        rank = len(z) - round(quantile * (len(z) - 1))  # from the top; half to even, as torch's "nearest"
        kept = [block.topk(rank, dim=1, sorted=False).values.amin(dim=1) for _, block in _blocks(z, anchors)]
        threshold = float(torch.cat(kept).double().mean())
    selected = right = judged = alike_pairs = 0
    for rows, similarity in _blocks(z, anchors):
        above = (similarity > threshold) & (rows[:, None] != torch.arange(len(z), device=z.device))
        both = (labels[rows, None] >= 0) & (labels >= 0)
        alike = both & (labels[rows, None] == labels)
        selected += int(above.sum())
        judged += int((above & both).sum())
        right += int((above & alike).sum())
        alike_pairs += int(alike.sum()) - int((labels[rows] >= 0).sum())
    return Selection(
        threshold,
        selected / len(anchors),
        right / judged if judged else math.nan,
        right / alike_pairs if alike_pairs else math.nan,
    )


def _blocks(z: Tensor, anchors: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A block of anchors (R,) at a time with its cosines (R, N)."""
    for rows in torch.split(anchors, max(1, ELEMENTS // len(z))):
        yield rows, z[rows] @ z.T
