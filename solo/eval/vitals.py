"""The vital signs of features while a model trains: what the callbacks measure, computed from the rows at hand."""

import torch
from torch import Tensor

from solo.eval.cosine import selection
from solo.eval.knn import nearest_others, vote_accuracy
from solo.eval.rank import entropy_rank, lidar, power_law, spectrum
from solo.eval.rows import draw
from solo.eval.uniformity import alignment, embedding_std, uniformity

ANCHORS = 1024  # rows that are compared with all others
_WIDEST = 2048  # a D x D decomposition takes seconds above it


def spread(features: Tensor) -> dict[str, float]:
    """Rank measures and spread of rows (N, D): see `solo.eval.rank` and `solo.eval.uniformity`."""
    centred = spectrum(features, center=True)
    return {
        "rankme": entropy_rank(spectrum(features), 1e-7),
        "effective_rank": entropy_rank(centred),
        "alpha": power_law(centred.square()),
        "std": embedding_std(features),
    }


def geometry(views: list[Tensor], groups: Tensor | None = None, quantile: float = 0.99) -> dict[str, float]:
    """How rows (N, D) lie to each other, and which pairs HEX's adaptive threshold would select among them.

    Returns `uniformity`; with two views of the same images `alignment` and (up to a width of 2,048) `lidar`;
    `threshold`, `selected` (rows above it per anchor) and, with coarse labels (N,), -1 for unknown, `superclass_share`
    (those of the anchor's label, 0 to 1). Pairs are those of up to 1,024 anchors with all rows.
    """
    first = views[0]
    found = {"uniformity": uniformity(first, max_anchors=ANCHORS)}
    if len(views) > 1:
        found["alignment"] = alignment(first, views[1])
        if first.shape[1] <= _WIDEST:
            found["lidar"] = lidar(torch.stack(views[:2], dim=1))
    chosen = selection(first, groups, quantile=quantile, max_anchors=ANCHORS)
    found |= {"threshold": chosen.threshold, "selected": chosen.selected}
    if groups is not None and bool((groups >= 0).any()):
        found["superclass_share"] = chosen.precision
    return found


def neighbours_agree(features: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.07) -> list[float]:
    """Top-1 accuracy in percent of kNN at each label level, among rows (N, D) themselves, each without itself.

    Labels are (N, L), coarse first, -1 for unknown: such rows neither vote nor count. Over up to 1,024 rows; NaN where
    none of these has a label.
    """
    rows = draw(len(features), ANCHORS).to(features.device)
    similarity, near = nearest_others(features, min(k, len(features) - 1), queries=rows)
    return [acc1 for acc1, _ in vote_accuracy(similarity, near, labels, labels[rows], temperature=temperature)]
