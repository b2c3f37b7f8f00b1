"""How the numbers came about, in words: a sentence or two for each kind, shown below every figure and table."""

from collections.abc import Sequence

from solo.analysis.labelling import Labelling
from solo.analysis.numbers import COSINE_ANCHORS, Settings


def protocol_of(
    count: int, total: int, labelling: Labelling, settings: Settings, lidar: tuple[int, int], seen: Sequence[bool]
) -> dict[str, str]:
    """The sentences by topic, for `count` of `total` images.

    `lidar` says how many images LiDAR compares, and views of each; `seen` whether each snapshot has views.
    """
    seed, level = settings.seed, labelling.superlevel
    of = "" if count == total else f" of {total:,}, drawn at random (max_images, seed {seed})"
    anchors, cosine_anchors = (
        f"all {count:,} images"
        if count <= most
        else f"{most:,} random images (max_anchors, seed {seed}), each against all {count:,}"
        for most in (settings.max_anchors, min(settings.max_anchors, COSINE_ANCHORS))
    )
    return {
        "images": f"{count:,} images{of}, each once, without augmentation.",
        "labels": f"{labelling.protocol}.",
        "knn": (
            f"kNN: leave-one-out among these images (no training image votes), {anchors}; {settings.k} neighbours by "
            f"cosine, votes weighted by exp(cosine / {settings.temperature:g}); top-1 in percent."
        ),
        "rank": (
            "Effective rank: exp of the entropy of the singular values' shares, of centred features. Local over "
            "global: of a node's images over the mean of three random subsets of as many images; nodes of fewer than "
            "8 images are left out. RankMe: the same rank without centring."
        ),
        "spectrum": (
            "Eigenvalues of the covariance of all these images over their sum; those below 1e-8 of it aren't drawn."
        ),
        "cosine": (
            f"Pairs of one {level} and all other pairs; {cosine_anchors}; an image is never paired with itself. "
            f"Pairs of one class count as pairs of one {level}."
        ),
        "threshold": (
            f"Mean over the anchors of the {settings.quantile:g} quantile of their cosines; {cosine_anchors}. In "
            "training it is read from a batch, so that fewer images are above it."
        ),
        "tree": (
            f"Average linkage of the cosine distances of {labelling.level} centroids (means of unit features). "
            "Agreement: Pearson correlation of joining heights with distances in the label tree, p from 199 random "
            "relabellings; Baker's gamma: their rank correlation; changed subtrees: Robinson-Foulds distance, 0 to 1."
        ),
        "mixing": (
            f"Of the {settings.k} nearest neighbours (cosine) of one class's images, the share in the other class "
            f"among those in either, added up for both directions and clipped to 1; {anchors}. Separation: distance "
            "of the centroids over the root mean square distance to them. Classes of fewer than 8 images are left out."
        ),
        "LiDAR": _lidar(*lidar, seen, seed),
    }


def _lidar(images: int, views: int, seen: Sequence[bool], seed: int) -> str:
    """How LiDAR was measured, or why it wasn't."""
    if not any(seen):
        return (
            "LiDAR is not measured: it compares several augmented views of an image, and saved features and published "
            "models have one. Analyse checkpoints of runs, with lidar_images above 0."
        )
    some = "" if all(seen) else " Not of snapshots whose checkpoint doesn't say how its run made views."
    return (
        f"LiDAR: {images:,} of the images, drawn at random, {views} views of each, augmented as in the run's recipe "
        f"(seed {seed}), network in evaluation mode; at most one less than the images. The paper takes 1,000 images of "
        f"50 views: compare values of one protocol only.{some}"
    )
