"""How many directions the features fill: rank measures that need no label, and the profile of a label tree's nodes.

All come from the singular values of the features, found from the smaller of the two Gram matrices, which is summed up
in float64, a chunk of rows at a time. Features that are not finite give NaN.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solo.precision import at_least_float32

CHUNK = 4096  # rows widened to float64 at once
_EPS = torch.finfo(torch.float64).eps
_SUMMED = 64 * _EPS  # relative error of a mean of many rows


@torch.no_grad()
def spectrum(features: Tensor, center: bool = False) -> Tensor:
    """Singular values (min(N, D),) of features (N, D), largest first, in float64 on the CPU; NaN if one isn't finite.

    Those that float32 (or float64) can't tell from 0 are 0, and all of them if the largest is no more than the rounding
    of the features' own precision: a network that maps everything to one point, up to rounding, has none. `center`
    subtracts the mean row first, so that an offset that all rows share is not a direction.

    Raises:
        ValueError: if `features` is not (N, D) with N and D at least 1.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"expected features (N, D) with at least one row and column, got {tuple(features.shape)}")
    given, features = features.dtype, at_least_float32(features)
    mean = mean_row(features) if center else torch.zeros(features.shape[1], dtype=torch.float64)
    gram = _gram(features, mean)
    if not bool(gram.isfinite().all()):
        return torch.full((len(gram),), math.nan, dtype=torch.float64)
    scale = gram.diagonal().max().clamp(min=torch.finfo(torch.float64).tiny)
    values: Tensor = (torch.linalg.eigvalsh(gram / scale) * scale).clamp(min=0).sqrt().flip(0)
    at_all = values[0] > _noise(features, values, given)
    return values.masked_fill((values <= _noise(features, values, features.dtype)) | ~at_all, 0)


def _noise(features: Tensor, values: Tensor, precision: torch.dtype) -> float:
    """Largest singular value that rounding alone makes: of the features to this precision, and of the Gram matrix."""
    relative = max(2 * torch.finfo(precision).eps / math.sqrt(len(values)), _SUMMED)
    return max(relative * math.sqrt(_energy(features)), math.sqrt(len(values) * _EPS) * float(values[0]))


def _energy(features: Tensor) -> float:
    """Sum of the squares of all entries."""
    return sum(float(part.double().square().sum()) for part in torch.split(features, CHUNK))


@torch.no_grad()
def mean_row(features: Tensor) -> Tensor:
    """Mean of the rows in float64: (N, D) -> (D,), on the CPU."""
    sums = torch.stack([part.cpu().double().sum(dim=0) for part in torch.split(features, CHUNK)])
    return sums.sum(dim=0) / len(features)


def _gram(features: Tensor, mean: Tensor) -> Tensor:
    """Products of all columns or, where they are fewer, of all rows."""
    tall, size = len(features) >= features.shape[1], min(features.shape)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for start in range(0, max(features.shape), CHUNK):
        part = slice(start, start + CHUNK)
        rows = features[part].cpu().double() - mean if tall else (features[:, part].cpu().double() - mean[part]).T
        gram.addmm_(rows.T, rows)
    return gram


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
    """Effective rank of features (N, D): exp of the entropy of the singular values' shares.

    Roy, Vetterli: The effective rank, a measure of effective dimensionality (EUSIPCO 2007), section 2. With `center`
    (here the default) it measures the spread around the mean, so that a subset, such as one superclass, is not rated by
    where it lies. Compare subsets of one size only: the value can't exceed min(N, D).

    Returns:
        1 to min(N, D); 0 if all rows are equal (`center`) or zero.
    """
    return entropy_rank(spectrum(features, center))


def rankme(features: Tensor, epsilon: float = 1e-7) -> float:
    """RankMe of features (N, D): their effective rank as they are, not centred; 0 if all rows are zero.

    Garrido, Balestriero, Najman, LeCun: RankMe (ICML 2023), equation 1, https://arxiv.org/abs/2210.02885, with its
    `epsilon` added to each share of the singular values; the paper uses 25,600 images.
    """
    return entropy_rank(spectrum(features), epsilon)


def alpha_req(features: Tensor) -> float:
    """Decay of the covariance's eigenvalues of features (N, D): alpha in lambda_j ~ j^-alpha, j counted from 1.

    Agrawal, Mondal, Ghosh, Richards: alpha-ReQ (NeurIPS 2022), section 3; values near 1 go with good features, large
    ones with few directions, small ones with noise in many. NaN with fewer than two eigenvalues that aren't noise.
    """
    return power_law(spectrum(features, center=True).square())


def power_law(values: Tensor) -> float:
    """Minus the slope of log(value) over log(j), j from 1 to K, of values (K,), those that are 0 left out.

    The line is fitted with the weights 1 / j of Stringer et al. (Nature 2019), so that each octave counts alike.
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

    Thilak et al.: LiDAR (ICLR 2024), equations 2 to 4, https://arxiv.org/abs/2312.04000: between-image covariance S_b,
    within-image covariance S_w + delta I, and the effective rank of S_w^-1/2 S_b S_w^-1/2, `epsilon` added to each
    share of its eigenvalues. The paper takes 1,000 images with 50 views each, embeddings of the projector; with fewer
    views S_w is noisier and the value another, so compare values of one protocol only.

    Returns:
        Of q views of n images, (n, q, D): about 1 to min(n - 1, D); 0 if all images have the same mean; NaN if an entry
        is not finite.

    Raises:
        ValueError: if there are not at least two images with two views.
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


_FEWEST = 8  # rows of a node that is measured
_DRAWS = 3  # random subsets that each reference is the mean of


@dataclass(frozen=True)
class NodeRank:
    """One node of the tree."""

    level: int  # index of its level, 0 the coarsest; -1 is the root, all images
    node: int  # its index at that level, 0 for the root
    parent: int  # index of its parent at the level above, -1 for the root and what stands below it
    count: int  # its rows
    effective_rank: float  # of its rows, centred, 1 to min(count, D); NaN with fewer than 8 rows
    # mean effective rank of equally many rows drawn from all: what the node would have if it were no group; an
    # effective rank grows with the number of rows, so only this comparison is fair
    reference: float

    @property
    def ratio(self) -> float:
        """Local over global: 1 is no local collapse, 0 a node mapped to one point."""
        return self.effective_rank / self.reference if self.reference > 0 else math.nan


@torch.no_grad()
def collapse_profile(features: Tensor, labels: Tensor, seed: int = 0) -> list[NodeRank]:
    """Effective rank inside every node of the label tree, and of equally many rows from everywhere.

    Global collapse shows in the whole; the classes of one superclass collapse locally, where the whole looks healthy.

    Features are (N, D), the rows as they are (scale them to length 1 first to look at directions only), labels (N,) or
    (N, L), coarse first, -1 unknown. The root comes first, then every node that has rows, level by level.

    Raises:
        ValueError: if features and labels don't fit together.
    """
    labels = (labels[:, None] if labels.ndim == 1 else labels).cpu()
    if features.ndim != 2 or len(features) != len(labels) or len(features) == 0:
        raise ValueError(f"give features (N, D) and labels (N,) or (N, L), not {features.shape} and {labels.shape}")
    generator = torch.Generator().manual_seed(seed)
    references: dict[int, float] = {}
    whole = effective_rank(features)
    found = [NodeRank(-1, 0, -1, len(features), whole, whole)]
    for level, column in enumerate(labels.T):
        for node in torch.unique(column[column >= 0]).tolist():
            rows = (column == node).nonzero()[:, 0]
            parent, count, own = int(labels[rows[0], level - 1]) if level else -1, len(rows), math.nan
            if count >= _FEWEST:
                own = effective_rank(features[rows.to(features.device)])
                if count not in references:
                    picks = [torch.randperm(len(features), generator=generator)[:count] for _ in range(_DRAWS)]
                    ranks = [effective_rank(features[pick.to(features.device)]) for pick in picks]
                    references[count] = sum(ranks) / len(ranks)
            found.append(NodeRank(level, node, parent, count, own, references.get(count, math.nan)))
    return found
