"""All numbers of one embedding, what the figures are made of. Each is a measure of `solo.eval`; none is drawn here."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from solo.analysis.labelling import Labelling
from solo.eval import embedding
from solo.eval.classes import (
    ConfusablePair,
    Neighbours,
    NodeRank,
    collapse_profile,
    confusable_pairs,
    mixing_matrix,
    neighbours,
)
from solo.eval.embedding import CosineDistributions, Selection
from solo.eval.features import FeatureTable
from solo.eval.intervals import UNDEFINED, Interval, cuts
from solo.eval.knn import hits, neighbour_intervals, vote_ranking
from solo.eval.rows import Array, draw
from solo.eval.tree import EmergentTree, TreeAgreement, centroids, compare_with_labels, emergent_tree

SPACES = {"backbone": "representation", "projector": "projection"}
COSINE_ANCHORS = 4000  # each against all images: hundreds of millions of pairs are enough for a distribution
_MOST_MIXED = 200  # classes whose mixing is kept for all pairs


@dataclass(frozen=True)
class Settings:
    """How to measure embeddings: neighbours, sizes of draws, the seed."""

    k: int = 20  # neighbours that vote, and that say how far classes mix
    temperature: float = 0.07  # of their votes
    # images that are compared with all images; more are drawn at random (for cosines at most 4,000)
    max_anchors: int = 10_000
    quantile: float = 0.99  # of the adaptive threshold
    seed: int = 5  # of all draws


@dataclass(frozen=True)
class Numbers:
    """What is known of one embedding; see the modules of `solo.eval` for units and ranges."""

    count: int  # images
    dim: int  # numbers of each
    effective_rank: float  # centred
    rankme: float  # not centred
    alpha: float  # decay of the covariance's eigenvalues
    lidar: float  # of augmented views; NaN where there are none
    uniformity: float  # over at most 5,000 images
    eigenvalues: Array  # of the covariance as shares of their sum, the largest first, without zeros
    knn: dict[str, float]  # top-1 accuracy in percent of each level, leave-one-out
    knn_interval: dict[str, Interval]  # its 95 % interval, in percent; NaN where not all images are looked at
    cosine: CosineDistributions | None  # same-superclass and other pairs; None with fewer than two labelled images
    selection: Selection  # what the adaptive threshold would select
    profile: list[NodeRank]  # ranks inside every node of the label tree
    tree: EmergentTree | None  # of class centroids; None with fewer than two classes
    classes: Array  # (m,) the classes that are the tree's leaves
    agreement: TreeAgreement | None  # of the tree with the given labels; None where no level above the classes is given
    mixing: Array  # (m, m) of the classes, empty for more than 200
    pairs: list[ConfusablePair]  # classes that collapse onto each other, the worst first
    near: Neighbours  # neighbours of the anchors

    @property
    def local_rank(self) -> tuple[float, float, float]:
        """Lowest, mean and highest effective rank inside the superclasses."""
        found = [node.effective_rank for node in self.profile if node.level == 0]
        found = [rank for rank in found if math.isfinite(rank)]
        return (min(found), sum(found) / len(found), max(found)) if found else (math.nan,) * 3

    @property
    def mean_ratio(self) -> float:
        """Mean over the superclasses of local over global effective rank."""
        found = [node.ratio for node in self.profile if node.level == 0 and math.isfinite(node.ratio)]
        return sum(found) / len(found) if found else math.nan


def measure(
    features: torch.Tensor, labelling: Labelling, settings: Settings, views: torch.Tensor | None = None
) -> Numbers:
    """Measure one embedding (n, d), finite, n >= 2; LiDAR of augmented views (m, q, d) of some of its images."""
    rows = features.numpy()
    near = neighbours(rows, settings.k, settings.max_anchors, settings.seed)
    labels = torch.from_numpy(labelling.labels)
    fine, coarse = labelling.fine, torch.from_numpy(labelling.coarse.copy())
    accuracies, intervals = _knn(features, labels, near, settings)
    means, classes, _ = centroids(rows, fine)
    tree = emergent_tree(means) if 2 <= len(classes) <= 10_000 else None
    few = len(classes) <= _MOST_MIXED
    values = embedding.spectrum(features, center=True)
    shares = values[values > 0].square()
    anchors = min(settings.max_anchors, COSINE_ANCHORS)
    return Numbers(
        count=len(rows),
        dim=rows.shape[1],
        effective_rank=embedding.entropy_rank(values),
        rankme=embedding.rankme(features),
        alpha=embedding.power_law(values.square()),
        lidar=math.nan if views is None else embedding.lidar(views),
        uniformity=embedding.uniformity(features[draw(len(features), 5000, settings.seed)]),
        eigenvalues=(shares / shares.sum() if len(shares) else shares).numpy(),
        knn=dict(zip(labelling.levels, accuracies, strict=True)),
        knn_interval=dict(zip(labelling.levels, intervals, strict=True)),
        cosine=embedding.cosine_distributions(features, coarse, max_anchors=anchors, seed=settings.seed)
        if int((coarse >= 0).sum()) > 1
        else None,
        selection=embedding.selection(
            features, coarse, quantile=settings.quantile, max_anchors=anchors, seed=settings.seed
        ),
        profile=collapse_profile(features, labels[:, labelling.superclass :]),
        tree=tree,
        classes=classes,
        agreement=compare_with_labels(tree, labelling.paths(classes.tolist()))
        if tree and labelling.given > 1
        else None,
        mixing=mixing_matrix(fine, near, classes) if few and len(classes) else np.empty((0, 0)),
        pairs=confusable_pairs(rows, fine, near),
        near=near,
    )


def _knn(
    features: torch.Tensor, labels: torch.Tensor, near: Neighbours, settings: Settings
) -> tuple[list[float], list[Interval]]:
    """Leave-one-out accuracy of each level, and its interval, in percent."""
    similarity, rows = torch.from_numpy(near.similarity), torch.from_numpy(near.rows)
    counts = [int(column.max()) + 1 for column in labels.T]
    best = [
        vote_ranking(similarity, column[rows], max(n, 1), temperature=settings.temperature)
        for column, n in zip(labels.T, counts, strict=True)
    ]
    right = hits(best, labels[torch.from_numpy(near.queries)])
    ends = [UNDEFINED] * len(right)
    if len(near.queries) == len(features):
        table, halves = FeatureTable(features, labels), cuts(len(features), settings.seed)
        found = neighbour_intervals(table, right, settings.k, settings.temperature, halves, features.device)
        ends = [(100 * one["acc1"][0], 100 * one["acc1"][1]) for one in found]
    return [100 * float(one["acc1"].double().mean()) if len(one["acc1"]) else math.nan for one in right], ends
