"""How sure a number over images is: 95 % intervals whose coverage is simulated (`benchmarks/intervals.py`).

They cover the choice of the images that were measured, not that of the training images, nor the training's seed.
Images that are judged one by one, against training images that stay, are independent: `of_independent`. Where the
measured images are each other's gallery, an image that moves takes its neighbours' results with it; then the images
are cut into random halves again and again, which are independent of each other, and the difference of the halves'
means says how far a mean moves (half-sampling: McCarthy, Review of the International Statistical Institute 1969).
Leaving single images out would not do: the results of neighbours jump, and the jackknife's intervals are too wide.
"""

import math
import statistics
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from solo.eval.features import Array

Interval = tuple[float, float]
UNDEFINED: Interval = (math.nan, math.nan)
_CUTS = 50
_T = 2.009  # Student's 97.5 % point for as many degrees of freedom
_FEWEST_CUTS = 10  # of those in which both halves have something to measure


def wilson(share: float, count: float, z: float = 1.96) -> Interval:
    """Wilson's interval (JASA 1927) of a `share`, 0 to 1, of `count` independent images; NaN without images.

    `z` is a quantile of the normal distribution; `count` may be what dependent images are worth.
    """
    if not count > 0 or math.isnan(share):
        return UNDEFINED
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(max(share * (1 - share), 0.0) / count + z * z / (4 * count * count))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def of_independent(share: float, count: int, coin: bool) -> Interval:
    """Wilson's interval or, by `coin`, Jeffreys's, of a `share`, 0 to 1, of independent images; NaN without images.

    Of 100 images that are right in 99 % of cases a fixed interval covers 92.1 % if 97 right ones are taken for too few,
    else 98.2 %. These two agree but for parts of an image and err to different sides; drawn by `coin`, which gives the
    same features the same interval, they cover 94.3 to 95.2 %. Stevens (Biometrika 1950); Brown, Cai, DasGupta (2001).
    """
    if not coin or not count > 0 or math.isnan(share):
        return wilson(share, count)
    right = share * count
    low, high = (float(special.betaincinv(right + 0.5, count - right + 0.5, part)) for part in (0.025, 0.975))
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def coin(features: Tensor) -> bool:
    """A coin that the first rows of features (n, d) toss: chance over samples of images, fixed for one of them."""
    return bool(zlib.crc32(features[:16].double().cpu().contiguous().numpy().tobytes()) & 1)


def _as_shares(mean: float, variance: float, count: int, unseen: float = 0.125) -> Interval:
    """Wilson's of as many shares as vary as the mean of images does, and by a part of an image that isn't seen."""
    worth = mean * (1 - mean) / (variance + (unseen / count) ** 2)
    return wilson(mean, worth if variance > 0 and worth > 0 else count, _T)


def of_mean(values: Tensor) -> Interval:
    """The interval of the mean of independent images' values (n,) in 0 to 1; NaN without images."""
    if not len(values):
        return UNDEFINED
    count = len(values)
    variance = float(values.double().var()) / count if count > 1 else 0.0
    return _as_shares(float(values.double().mean()), variance, count)


def of_classes(right: Array, truth: Array) -> Interval:
    """The interval of `mean_per_class` of independent images (n,), -1 unknown; NaN with no more images than classes."""
    known = truth >= 0
    counts, hits = np.bincount(truth[known]), np.bincount(truth[known], right[known])
    shares, counts = hits[counts > 0] / counts[counts > 0], counts[counts > 0]
    total, classes = int(counts.sum()), len(counts)
    if total <= classes:
        return UNDEFINED
    variance = float((shares * (1 - shares) / counts).sum()) / classes**2
    return _as_shares(float(shares.mean()), variance * total / (total - classes), total)


def of_statistic(statistic: Callable[[Array], float], count: int, unseen: float = 0.2) -> Interval:
    """The interval of a number of `count` independent images that is no mean over them; NaN where halves have none.

    `statistic` makes a number in 0..1 of row numbers, NaN where it is not defined. Its variance is read from 50 pairs
    of random halves: that of the halves, and half that of a pair's difference, the one too large and the other too
    small for calibration errors, are averaged; `unseen` is how much of an image's weight no half shows near 0 and 1.
    """
    if count < 2:  # no halves
        return UNDEFINED
    value = statistic(np.arange(count))
    half = count // 2
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(count, generator=generator).numpy() for _ in range(_CUTS)]
    pairs = np.array([[statistic(order[:half]), statistic(order[half : 2 * half])] for order in orders])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if math.isnan(value) or len(pairs) < _FEWEST_CUTS:
        return UNDEFINED
    apart = float(np.square(pairs[:, 0] - pairs[:, 1]).mean()) / 4
    return _as_shares(value, (apart + float(pairs.var(ddof=1))) / 2, count, unseen)


def cuts(count: int, seed: int = 0) -> Tensor:
    """(100, n) numbers of images: each two rows are random halves of them, of more than 1,000 each time of 1,000."""
    generator, half = torch.Generator().manual_seed(seed), min(count, 1000) // 2
    order = torch.stack([torch.randperm(count, generator=generator) for _ in range(_CUTS)])
    return order[:, : 2 * half].reshape(2 * _CUTS, half).sort(dim=1).values


class Spread(NamedTuple):
    """What the interval of a mean is made of whose images, of values in 0..1, are each other's gallery."""

    images: float
    mean: float
    variance: float  # of their values
    cuts: float  # that have something to measure in both halves
    half_images: float  # the same of a half, on average
    half_mean: float
    half_variance: float
    apart: float  # variance of a half's mean, by the differences of two

    def interval(self) -> Interval:
        """Wilson's of as many images as vary as the mean does; NaN where too few cuts have something to measure."""
        if self.cuts < _FEWEST_CUTS or self.images < 2:
            return UNDEFINED
        if self.apart == 0 or not 0 < self.mean < 1 or not 0 < self.half_mean < 1:
            # Neighbours fail together. Where none did, nothing shows how much: by a third fewer images, as usual.
            return wilson(self.mean, self.images / 1.5, _T)
        # Of a half's variance, what its values have by themselves is known of all images. The rest, of sharing a
        # gallery, goes with p (1 - p), with its square where larger galleries make a number better, as they do NDCG.
        # Near 0 and 1 few values say how much they spread: there the halves' say it, too.
        binary = self.mean * (1 - self.mean)
        scale, lent = binary / (self.half_mean * (1 - self.half_mean)), (1 - 4 * binary) ** 2
        own = (1 - lent) * self.variance + lent * scale * self.half_variance
        shared = scale * min(scale, 1) * (self.apart * self.half_images - self.half_variance)
        return wilson(self.mean, binary * self.images / (max(own + shared, own / 4) or binary), _T)


def spread(values: Tensor, halves: Tensor) -> Spread:
    """Of all images' values (n,), and of those in each half, (halves, 3): their count, sum and sum of squares."""
    pairs = halves.double().reshape(len(halves) // 2, 2, 3)
    count, total, squares = pairs[(pairs[:, :, 0] > 1).all(dim=1)].unbind(dim=-1)
    means, values, mean = total / count, values.double(), float(values.double().mean())
    inside, apart = squares / count - means.square(), (means[:, 0] - means[:, 1]).square()
    of_halves = len(count), float(count.mean()), float(means.mean()), float(inside.mean()), float(apart.mean()) / 2
    return Spread(len(values), mean, float((values - mean).square().mean()), *of_halves)


def of_halves(whole: Mapping[str, Tensor], halves: Sequence[Mapping[str, Tensor]]) -> dict[str, Interval]:
    """Intervals of the means of measures of images that are each other's gallery: name -> values (n,), 0 to 1.

    `halves` has the same of the images of each row of `cuts`, measured among themselves.
    """
    found = {}
    for name, values in whole.items():
        parts = [half[name].double() for half in halves]
        sums = [[len(part), float(part.sum()), float(part.square().sum())] for part in parts]
        found[name] = spread(values, torch.tensor(sums, dtype=torch.float64)).interval()
    return found


@dataclass(frozen=True)
class Paired:
    """A mean of paired differences."""

    mean: float  # of the differences
    low: float  # lower end of Student's 95 % interval; NaN for fewer than two pairs
    high: float  # its upper end
    p_value: float  # of no difference, two-sided, by Student's test; NaN likewise
    sign_p: float  # the same by the exact sign test, which asks for nothing but a median; ties are left out
    pairs: int  # how many

    @property
    def says(self) -> str:
        """`better`, `worse`, or `no difference` where the 95 % interval holds 0."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference"

    def __str__(self) -> str:
        if self.pairs < 2:
            return f"{self.mean:+.2f} (one seed)"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired(differences: Sequence[float]) -> Paired:
    """Student's t interval, t test and sign test of paired differences, such as of two methods over the same seeds."""
    n = len(differences)
    if not n:
        raise ValueError("give at least one difference, got none")
    mean = math.fsum(differences) / n
    if n < 2:
        return Paired(mean, *UNDEFINED, math.nan, math.nan, n)
    error = statistics.stdev(differences) / math.sqrt(n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0)
    up, down = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    sign_p = min(1.0, 2 * float(stats.binom.cdf(min(up, down), up + down, 0.5)))
    return Paired(mean, mean - half, mean + half, p_value, sign_p, n)


def paired_images(differences: Sequence[float], most: float = 1.0) -> Paired:
    """`paired` of two networks on the same images, with an interval that covers where few images differ, too.

    Wald's, as if at least two images differed: else it has no width where none does, and covers 78 % of a difference of
    one image in a hundred. `most` is the largest difference that there can be, 100 for points of percent.
    """
    found, count = paired(differences), len(differences)
    squares = max(math.fsum(one * one for one in differences), 2 * most * most)
    half = 1.96 * math.sqrt(max(squares / count - found.mean**2, 0.0) / count)
    return replace(found, low=max(found.mean - half, -most), high=min(found.mean + half, most))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm, Scand. J. Statistics 1979); NaN stays, and is not counted."""
    order = sorted((value, place) for place, value in enumerate(p_values) if not math.isnan(value))
    corrected, least = list(p_values), 0.0
    for rank, (value, place) in enumerate(order):
        least = max(least, min(1.0, value * (len(order) - rank)))
        corrected[place] = least
    return corrected
