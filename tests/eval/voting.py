"""k-NN from features to accuracies, as the tests ask for it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from solo.eval.knn import nearest, vote_accuracy


def knn_accuracy(
    train: Tensor, targets: Tensor, test: Tensor, truth: Tensor, *, k: int = 20, distance: Any = "cosine", **how: Any
) -> list[tuple[float, float]]:
    """(acc1, acc5) in percent of each label level, by k neighbours, clipped to the train rows."""
    most = {name: how[name] for name in ("max_elements",) if name in how}
    near = nearest(test, train, min(k, len(train)), distance, **most)
    return vote_accuracy(*near, targets, truth, distance=distance, **how)
