"""Cosine similarities of negatives that share a coarse label and of the others, and what a threshold selects.

The figures 8, 9, 12 and 13 of the supplementary of Kokilepersaud et al., HEX (WACV 2025). Similarities are computed a
block of anchors at a time, with every row; an anchor is never compared with itself.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solo.eval.rows import draw, unit_rows

ELEMENTS = 16_000_000  # similarities held at once
_BINS = 100


@dataclass(frozen=True)
class CosineGroup:
    """Cosines of one kind of pairs."""

    pairs: int  # how many (anchor, other) pairs
    mean: float  # over all pairs; NaN without pairs, as everything below
    std: float
    histogram: Tensor  # (100,) share of the pairs in each of equally wide bins from -1 to 1


@dataclass(frozen=True)
class CosineDistributions:
    """Cosines of negatives with the same label, and of all others."""

    same: CosineGroup  # pairs with the same known label
    other: CosineGroup  # all other pairs of labelled rows

    @property
    def ratio(self) -> float:
        """Mean cosine of `same` over that of `other` (figure 13); of little use where the latter is near 0."""
        return self.same.mean / self.other.mean if self.other.mean != 0 else math.nan

    @property
    def gap(self) -> float:
        """Mean cosine of `same` minus that of `other`, -2 to 2."""
        return self.same.mean - self.other.mean


@torch.no_grad()
def cosine_distributions(
    features: Tensor, labels: Tensor, *, max_anchors: int = 10_000, seed: int = 0
) -> CosineDistributions:
    """Cosines of anchors with all other rows (N, D), apart for those of the same label (N,) and the others.

    Rows with the label -1 are left out. With more rows, `max_anchors` of them are drawn as anchors, each of which is
    still compared with all rows.

    Raises:
        ValueError: if shapes don't fit, or fewer than two rows have a label.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"give features (N, D) and labels (N,), not {tuple(features.shape)}, {tuple(labels.shape)}")
    known = (labels >= 0).nonzero()[:, 0].to(features.device)
    if len(known) < 2:
        raise ValueError(f"cosines need at least two labelled rows, got {len(known)} of {len(labels)}")
    z, labels = unit_rows(features[known]), labels.to(features.device)[known]
    sums, counts = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, _BINS, dtype=torch.float64)
    for rows, similarity in _blocks(z, draw(len(z), max_anchors, seed).to(z.device)):
        alike = labels[rows, None] == labels
        not_self = rows[:, None] != torch.arange(len(z), device=z.device)
        for kind, mask in enumerate((alike & not_self, ~alike)):
            values = similarity[mask]
            sums[kind] += torch.stack([(values.double() ** power).sum() for power in range(3)]).cpu()
            counts[kind] += torch.histc(values.float().clamp_(-1, 1), _BINS, -1, 1).double().cpu()
    groups = []
    for (pairs, total, squares), histogram in zip(sums.tolist(), counts, strict=True):
        mean = total / pairs if pairs else math.nan
        std = math.sqrt(max(0.0, squares / pairs - mean**2)) if pairs else math.nan
        groups.append(CosineGroup(int(pairs), mean, std, histogram / histogram.sum()))
    return CosineDistributions(*groups)


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
    features: Tensor, labels: Tensor | None = None, *, quantile: float = 0.99, max_anchors: int = 10_000, seed: int = 0
) -> Selection:
    """Threshold of `HEX_adaptive` on rows (N, D), N >= 2, how many it selects, and how many of those share the label.

    `labels` (N,) are of the coarse level, -1 for unknown. The quantile is that of each anchor's cosines with all rows,
    itself included, as in the loss; with more rows `max_anchors` of them are drawn as anchors.

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
