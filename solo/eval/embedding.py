"""How rows of features lie in their space: the directions they fill, the sphere they cover, the pairs that are close.

Rank measures come from the singular values of the features, found from the smaller of the two Gram matrices, which is
summed up in float64, a chunk of rows at a time. Features that are not finite give NaN.

Uniformity and alignment: Wang, Isola (ICML 2020), https://arxiv.org/abs/2005.10242. Cosines: figures 8, 9, 12 and 13 of
the supplementary of Kokilepersaud et al., HEX (WACV 2025). For both, rows are scaled to length 1; a zero row stays 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from solo import distributed
from solo.eval.features import draw, unit_rows
from solo.eval.knn import nearest_others, vote_accuracy
from solo.precision import at_least_float32

CHUNK = 4096  # rows widened to float64 at once
BLOCK = 2048  # rows and columns of the potentials held at once
ELEMENTS = 16_000_000  # cosines held at once
ANCHORS = 1024  # rows that are compared with all others while a model trains
_BINS = 100
_EPS = torch.finfo(torch.float64).eps
_SUMMED = 64 * _EPS  # relative error of a mean of many rows


@torch.no_grad()
def spectrum(features: Tensor, center: bool = False) -> Tensor:
    """Singular values (min(N, D),) of features (N, D), largest first, in float64 on the CPU; NaN if one isn't finite.

    Those that float32 (or float64) can't tell from 0 are 0, and all of them if the largest is no more than the rounding
    of the features' own precision. `center` subtracts the mean row first. A `ValueError` without a row or column.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"expected features (N, D) with at least one row and column, got {tuple(features.shape)}")
    given, features = features.dtype, at_least_float32(features)
    mean = torch.zeros(features.shape[1], dtype=torch.float64)
    if center:
        sums = torch.stack([part.cpu().double().sum(dim=0) for part in torch.split(features, CHUNK)])
        mean = sums.sum(dim=0) / len(features)
    tall, size = len(features) >= features.shape[1], min(features.shape)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for start in range(0, max(features.shape), CHUNK):
        part = slice(start, start + CHUNK)
        rows = features[part].cpu().double() - mean if tall else (features[:, part].cpu().double() - mean[part]).T
        gram.addmm_(rows.T, rows)
    if not bool(gram.isfinite().all()):
        return torch.full((size,), math.nan, dtype=torch.float64)
    largest = gram.diagonal().max().clamp(min=torch.finfo(torch.float64).tiny)
    values: Tensor = (torch.linalg.eigvalsh(gram / largest) * largest).clamp(min=0).sqrt().flip(0)
    # What rounding alone makes: of the features, to float32 or better and to what they were given in, and of the Gram.
    rounding = (max(2 * torch.finfo(kind).eps / math.sqrt(size), _SUMMED) for kind in (features.dtype, given))
    scale, of_gram = math.sqrt(_energy(features)), math.sqrt(size * _EPS) * float(values[0])
    noise, given_noise = (max(share * scale, of_gram) for share in rounding)
    return values.masked_fill((values <= noise) | ~(values[0] > given_noise), 0)


def _energy(features: Tensor) -> float:
    """Sum of the squares of all entries."""
    return sum(float(part.double().square().sum()) for part in torch.split(features, CHUNK))


def entropy_rank(weights: Tensor, epsilon: float = 0.0) -> float:
    """Exp of the entropy of weights (K,), each >= 0, as shares: how many of them count, 1 to K; 0 if all are 0.

    `epsilon` is added to each share, inside and outside the log, as RankMe and LiDAR do.
    """
    total = weights.sum()
    if total == 0:
        return 0.0
    shares = weights / total + epsilon
    return float((-torch.special.xlogy(shares, shares).sum()).exp())


def effective_rank(features: Tensor, center: bool = True) -> float:
    """Effective rank of features (N, D), 1 to min(N, D): exp of the entropy of the singular values' shares.

    Roy, Vetterli: The effective rank (EUSIPCO 2007), section 2. With `center` a subset, such as one superclass, is not
    rated by where it lies; 0 if all rows are equal (else: zero). Compare subsets of one size only.
    """
    return entropy_rank(spectrum(features, center))


def rankme(features: Tensor, epsilon: float = 1e-7) -> float:
    """RankMe of features (N, D): their effective rank as they are, not centred; 0 if all rows are zero.

    Garrido et al. (ICML 2023), equation 1, https://arxiv.org/abs/2210.02885; the paper uses 25,600 images.
    """
    return entropy_rank(spectrum(features), epsilon)


def power_law(values: Tensor) -> float:
    """Minus the slope of log(value) over log(j), j from 1 to K, of values (K,), those that are 0 left out.

    Of a covariance's eigenvalues, the squares of a centred `spectrum`, that is alpha-ReQ (Agrawal et al., NeurIPS 2022,
    section 3): near 1 go with good features, large ones with few directions, small ones with noise in many. NaN of
    fewer than two. Fitted with the weights 1 / j of Stringer et al. (Nature 2019), so that each octave counts alike.
    """
    values = values[values != 0]
    place = torch.arange(1, len(values) + 1, dtype=torch.float64)
    if len(place) < 2:
        return math.nan
    x, y, weight = place.log(), values.log(), 1 / place
    x = x - (weight * x).sum() / weight.sum()
    return float(-(weight * x * y).sum() / (weight * x * x).sum())


@torch.no_grad()
def lidar(features: Tensor, delta: float = 1e-4, epsilon: float = 1e-7) -> float:
    """LiDAR: the effective rank of what tells images apart, relative to how much their views differ.

    Of q views of n images (n, q, D), both at least 2 (else a `ValueError`): about 1 to min(n - 1, D), 0 if all images
    have the same mean, NaN if an entry is not finite. Thilak et al. (ICLR 2024), equations 2 to 4,
    https://arxiv.org/abs/2312.04000: the effective rank of S_w^-1/2 S_b S_w^-1/2, of the covariances between images,
    S_b, and within, S_w + delta I. The paper takes 1,000 images with 50 views each, of the projector; fewer say less.
    """
    if features.ndim != 3 or features.shape[0] < 2 or features.shape[1] < 2 or features.shape[2] < 1:
        raise ValueError(f"LiDAR compares views (n, q, D) of n >= 2 images, q >= 2; got {tuple(features.shape)}")
    precision, features = features.dtype, at_least_float32(features)
    n, views, width = features.shape
    within = torch.zeros(width, width, dtype=torch.float64)
    means = []
    for part in torch.split(features, max(1, CHUNK // views)):
        rows = part.cpu().double()
        mean = rows.mean(dim=1, keepdim=True)
        spread = (rows - mean).flatten(end_dim=1)
        within.addmm_(spread.T, spread)
        means.append(mean[:, 0])
    between = torch.cat(means)
    between = (between - between.mean(dim=0)) / math.sqrt(n - 1)
    if not bool(within.isfinite().all() and between.isfinite().all()):
        return math.nan
    noise = max(torch.finfo(precision).eps, _SUMMED) ** 2 * _energy(features) / (n * views)
    if float(between.square().sum()) <= noise:
        return 0.0
    within = within / (n * (views - 1)) + delta * torch.eye(width, dtype=torch.float64)
    # S_w = C C^T: the eigenvalues of C^-1 S_b C^-T are those of S_w^-1/2 S_b S_w^-1/2.
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), between.T, upper=False)
    return entropy_rank(spectrum(whitened).square(), epsilon)


@torch.no_grad()
def uniformity(features: Tensor, t: float = 2.0, *, max_anchors: int = 10_000) -> float:
    """Uniformity: log of the mean Gaussian potential exp(-t |x - y|^2) over pairs of different rows (equation 4).

    Of rows (N, D), N >= 2 (else a `ValueError`): 0 (all point the same way) down to about -2 t (evenly spread in many
    dimensions). Of more rows `max_anchors` are drawn; each is still compared with all others.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"uniformity compares at least two rows (N, D), got {tuple(features.shape)}")
    z = unit_rows(features)
    anchors = draw(len(z), max_anchors).to(z.device)
    total = torch.zeros((), dtype=torch.float64)
    for rows in torch.split(anchors, BLOCK):
        for column in range(0, len(z), BLOCK):
            # |x - y|^2 = 2 - 2 cos; from the cosines, so that no difference is stored.
            potential = (z[rows] @ z[column : column + BLOCK].T).sub_(1).mul_(2 * t).exp_()
            total += potential.sum(dim=1).sum(dtype=torch.float64).cpu()
    # A row meets itself once, with the potential of its own length: 1, or exp(-2 t) for a zero row.
    own = (z[anchors].square().sum(dim=1) - 1).mul(2 * t).exp().sum(dtype=torch.float64)
    mean = (total - own.cpu()) / (len(anchors) * (len(z) - 1))
    return math.log(float(mean)) if bool(mean > 0) else math.nan


@torch.no_grad()
def alignment(a: Tensor, b: Tensor, power: float = 2.0) -> float:
    """Alignment: mean of |x - y|^2 over the views (N, D) of each image (equation 3), 0 (they coincide) to 4."""
    if a.shape != b.shape or a.ndim != 2 or len(a) == 0:
        raise ValueError(f"alignment needs two views (N, D) of the same images, got {tuple(a.shape)}, {tuple(b.shape)}")
    return float((unit_rows(a) - unit_rows(b)).norm(dim=1).double().pow(power).mean())


@torch.no_grad()
def embedding_std(features: Tensor) -> float:
    """Mean over the dimensions of the standard deviation of unit rows (N, D), times sqrt(D).

    Chen, He: SimSiam (CVPR 2021), section 4.1; by the factor, evenly spread rows give 1. A `ValueError` without rows.
    """
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"expected features (N, D) with at least one row, got {tuple(features.shape)}")
    deviations = unit_rows(features).cpu().double().std(dim=0, correction=0)
    return float(deviations.mean() * math.sqrt(features.shape[1]))


@torch.no_grad()
def mean_std(z: Tensor, everyone: bool = False) -> Tensor:
    """Spread of unit projections (V, B, D), `train_z_std`: 1 / sqrt(D) on the whole sphere, 0 where they collapse.

    Standard deviation over the batch of all processes, averaged over features and views; `everyone`: z is all of it.
    """
    z = F.normalize(at_least_float32(z), dim=-1)
    mean, number = z.mean(dim=1, keepdim=True), 1 if everyone else distributed.world_size()
    squares = (z - mean).square().sum(dim=1)
    if number > 1:  # and how far the processes' means are apart: equally many rows on each
        own = mean[:, 0].double()
        total, first, second = distributed.all_reduce_sum(torch.stack([squares.double(), own, own.square()]))
        squares = total + z.shape[1] * (second - first.square() / number).clamp(min=0)
    return (squares / (z.shape[1] * number - 1)).sqrt().mean().to(z.dtype)


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
    """Cosines of rows (N, D) with all other rows, apart for those of the same label (N,) and the others.

    Rows with the label -1 are left out; a `ValueError` of fewer than two others. Of more rows `max_anchors` are drawn,
    each of which is still compared with all rows, but never with itself.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"give features (N, D) and labels (N,), not {tuple(features.shape)}, {tuple(labels.shape)}")
    known = (labels >= 0).nonzero()[:, 0].to(features.device)
    if len(known) < 2:
        raise ValueError(f"cosines need at least two labelled rows, got {len(known)} of {len(labels)}")
    z, labels = unit_rows(features[known]), labels.to(features.device)[known]
    sums, counts = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, _BINS, dtype=torch.float64)
    for rows, similarity, others in _cosines(z, draw(len(z), max_anchors, seed)):
        alike = labels[rows, None] == labels
        for kind, mask in enumerate((alike & others, ~alike)):
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
    precision: float  # share of these with the anchor's label, over pairs of known labels, 0 to 1; NaN without
    recall: float  # share of the pairs of one label that are above it, 0 to 1; NaN without labels


@torch.no_grad()
def selection(
    features: Tensor, labels: Tensor | None = None, *, quantile: float = 0.99, max_anchors: int = 10_000, seed: int = 0
) -> Selection:
    """Threshold of `HEX_adaptive` on rows (N, D), N >= 2, how many it selects, and how many of those share the label.

    `labels` (N,) are of the coarse level, -1 for unknown. The quantile, 0 to 1, is that of each anchor's cosines with
    all rows, itself included, as in the loss; of more rows `max_anchors` are drawn as anchors.
    """
    if features.ndim != 2 or len(features) < 2 or (labels is not None and labels.shape != features.shape[:1]):
        given = None if labels is None else tuple(labels.shape)
        raise ValueError(f"expected features (N, D), N >= 2, and labels (N,) or None, got {features.shape}, {given}")
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie in [0, 1], got {quantile}")
    z = unit_rows(features)
    anchors = draw(len(z), max_anchors, seed)
    labels = torch.full((len(z),), -1, device=z.device) if labels is None else labels.to(z.device)
    rank = len(z) - round(quantile * (len(z) - 1))  # from the top; half to even, as torch's "nearest"
    kept = [block.topk(rank, dim=1, sorted=False).values.amin(dim=1) for _, block, _ in _cosines(z, anchors)]
    threshold = float(torch.cat(kept).double().mean())
    counts = torch.zeros(4, dtype=torch.long, device=z.device)
    for rows, similarity, others in _cosines(z, anchors):
        above = (similarity > threshold) & others
        both = (labels[rows, None] >= 0) & (labels >= 0) & others
        alike = both & (labels[rows, None] == labels)
        counts += torch.stack([pairs.sum() for pairs in (above, above & both, above & alike, alike)])
    selected, judged, right, alike_pairs = counts.tolist()
    precision, recall = (right / count if count else math.nan for count in (judged, alike_pairs))
    return Selection(threshold, selected / len(anchors), precision, recall)


def _cosines(z: Tensor, anchors: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some anchors (R,) at a time, their cosines (R, N) with rows, and whether that is another row (R, N)."""
    everyone = torch.arange(len(z), device=z.device)
    for rows in torch.split(anchors.to(z.device), max(1, ELEMENTS // len(z))):
        yield rows, z[rows] @ z.T, rows[:, None] != everyone


def vital_signs(features: Tensor) -> dict[str, float]:
    """Rank measures and spread of rows (N, D) while a model trains."""
    centred = spectrum(features, center=True)
    ranks = {"rankme": rankme(features), "effective_rank": entropy_rank(centred)}
    return ranks | {"alpha": power_law(centred.square()), "std": embedding_std(features)}


def geometry(views: list[Tensor], groups: Tensor | None = None, quantile: float = 0.99) -> dict[str, float]:
    """How rows (N, D) of one or two views lie to each other, with pairs of up to 1,024 anchors and all rows.

    `uniformity`, of two views `alignment` and (up to a width of 2,048) `lidar`; of the `selection` by this quantile
    `threshold`, `selected` and, where coarse labels (N,), -1 for unknown, are given, its precision: `superclass_share`.
    """
    first = views[0]
    found = {"uniformity": uniformity(first, max_anchors=ANCHORS)}
    if len(views) > 1:
        found["alignment"] = alignment(first, views[1])
        if first.shape[1] <= 2048:  # a D x D decomposition takes seconds above it
            found["lidar"] = lidar(torch.stack(views[:2], dim=1))
    chosen = selection(first, groups, quantile=quantile, max_anchors=ANCHORS)
    found |= {"threshold": chosen.threshold, "selected": chosen.selected}
    if groups is not None and bool((groups >= 0).any()):
        found["superclass_share"] = chosen.precision
    return found


def neighbours_agree(features: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.07) -> list[float]:
    """Top-1 accuracy in percent of kNN at each label level, among rows (N, D) themselves, each without itself.

    Labels are (N, L), coarse first; unknown ones, -1, don't vote or count. Of up to 1,024 rows; NaN without labels.
    """
    rows = draw(len(features), ANCHORS).to(features.device)
    similarity, near = nearest_others(features, min(k, len(features) - 1), queries=rows)
    return [acc1 for acc1, _ in vote_accuracy(similarity, near, labels, labels[rows], temperature=temperature)]
