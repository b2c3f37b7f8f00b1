"""k-means on the features against the labels: NMI and AMI of a level, and inside each class of the level above.

Zhang et al., Use All The Labels (CVPR 2022), section 4.5.4 (category NMI, product NMI):
https://arxiv.org/abs/2204.13207; Vinh, Epps, Bailey, Information theoretic measures for clusterings comparison (JMLR
2010). Both measures are scikit-learn's: NMI with the arithmetic mean of the entropies, AMI adjusted for chance.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from solo.eval.rows import Array, unit_rows

MINI_BATCHES_FROM = 20_000  # rows; above, whole passes take too long
_RUNS, _RUNS_OF_MANY = 3, 1
MANY_CLUSTERS = 1000  # from here on once, not three times
MOST_ADJUSTED = 2000  # clusters; the expectation behind AMI takes time with their square


@dataclass(frozen=True)
class Agreement:
    """How far clusters and labels agree, 0 to 1."""

    nmi: float  # 0 to 1; NaN where there are fewer than two classes, or as many as rows: then nothing can go wrong
    ami: float  # at most 1, 0 on average for random clusters; likewise, and above 2,000 clusters
    classes: float  # clusters asked for; with `inside`, their mean
    groups: int  # 1; with `inside`, classes of the level above over which is averaged: those where it is defined
    unknown: int  # rows left out because a label is unknown


def cluster(features: Array, count: int, seed: int = 0) -> Array:
    """Numbers of the clusters (n,) that k-means (best of three runs; of one above 1,000) finds among unit rows (n, d).

    Above 20,000 rows in mini-batches; n >= count.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = unit_rows(torch.from_numpy(features)).numpy()
    runs = _RUNS if count <= MANY_CLUSTERS else _RUNS_OF_MANY
    options: dict[str, Any] = {"n_clusters": count, "n_init": runs, "random_state": seed}
    large = len(rows) > MINI_BATCHES_FROM
    model = MiniBatchKMeans(batch_size=max(4096, 2 * count), **options) if large else KMeans(**options)
    with warnings.catch_warnings():  # fewer distinct rows than clusters: a collapsed model, which the measure says
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit(rows).labels_)


def agreement(features: Array, labels: Array, seed: int = 0) -> Agreement:
    """As many clusters of rows (n, d) as there are classes in their labels (n,), -1 unknown, against these."""
    known = labels >= 0
    rows, classes = (features, labels) if known.all() else (features[known], labels[known])
    unknown = int(len(labels) - known.sum())
    count = len(np.unique(classes))
    if count < 2 or count == len(rows):
        return Agreement(math.nan, math.nan, count, 1, unknown)
    nmi, ami = scores(classes, cluster(rows, count, seed))
    return Agreement(nmi, ami, count, 1, unknown)


def agreement_inside(features: Array, labels: Array, above: Array, seed: int = 0) -> Agreement:
    """Means of `agreement` over the classes of the level above, (n,) with -1 unknown, each clustered by itself.

    Those with fewer than two classes are left out.
    """
    known = (labels >= 0) & (above >= 0)
    parts = [known & (above == group) for group in np.unique(above[known])]
    found = [agreement(features[part], labels[part], seed) for part in parts]
    found = [one for one in found if not math.isnan(one.nmi)]
    unknown = int(len(labels) - known.sum())
    if not found:
        return Agreement(math.nan, math.nan, 0, 0, unknown)
    nmi, ami, classes = (float(np.mean([getattr(one, name) for one in found])) for name in ("nmi", "ami", "classes"))
    return Agreement(nmi, ami, classes, len(found), unknown)


def scores(labels: Array, clusters: Array) -> tuple[float, float]:
    """NMI and AMI of two (n,) numberings; AMI is NaN above 2,000 clusters, both where each row is its own class."""
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    classes = len(np.unique(labels))
    if classes in (1, len(labels)):
        return math.nan, math.nan
    nmi = normalized_mutual_info_score(labels, clusters)
    if max(classes, len(np.unique(clusters))) > MOST_ADJUSTED:
        return float(nmi), math.nan
    return float(nmi), float(adjusted_mutual_info_score(labels, clusters))
