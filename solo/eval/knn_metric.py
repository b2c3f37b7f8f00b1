"""The online k-NN as a torchmetrics metric, under solo-learn's name."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from solo.eval.knn import knn_accuracy


class WeightedKNNClassifier(Metric):
    """Collects features batch by batch; `compute` classifies the test rows by the train rows and starts anew.

    Args:
        k: neighbours that vote, clipped to the number of train rows.
        T: temperature of the votes, with cosine.
        max_distance_matrix_size: bound on the similarities held at once.
        distance_fx: `cosine` (weights exp(cos / T)) or `euclidean` (weights 1 / (distance + epsilon)).
        epsilon: keeps the euclidean weights finite.
        dist_sync_on_step: torchmetrics'.

    Attributes:
        level_accuracies: (acc1, acc5) in percent of each label level, coarse first, of the last `compute`.

    Raises:
        ValueError: if `distance_fx` is neither of the two.
    """

    full_state_update = False
    _STATES = ("train_features", "train_targets", "test_features", "test_targets")

    train_features: list[Tensor]
    train_targets: list[Tensor]
    test_features: list[Tensor]
    test_targets: list[Tensor]

    def __init__(
        self,
        k: int = 20,
        T: float = 0.07,
        max_distance_matrix_size: int = int(5e6),
        distance_fx: Literal["cosine", "euclidean"] = "cosine",
        epsilon: float = 0.00001,
        dist_sync_on_step: bool = False,
    ) -> None:
        super().__init__(dist_sync_on_step=dist_sync_on_step, compute_with_cache=False)
        if distance_fx not in ("cosine", "euclidean"):
            raise ValueError(f"the k-NN distance {distance_fx!r} is unknown; choose cosine or euclidean")
        self.k = k
        self.T = T
        self.max_distance_matrix_size = max_distance_matrix_size
        self.distance_fx = distance_fx
        self.epsilon = epsilon
        self.level_accuracies: list[tuple[float, float]] = []
        for name in self._STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat", persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """`update`; unlike torchmetrics' own this computes nothing for the single batch."""
        self.update(*args, **kwargs)

    def update(
        self,
        train_features: Tensor | None = None,
        train_targets: Tensor | None = None,
        test_features: Tensor | None = None,
        test_targets: Tensor | None = None,
    ) -> None:
        """Add train rows, test rows, or both: features (N, D) with targets (N,) or (N, L), coarse level first.

        Raises:
            ValueError: if a set's features and targets don't come together, one row each.
        """
        given = [(train_features, train_targets), (test_features, test_targets)]
        held = [(self.train_features, self.train_targets), (self.test_features, self.test_targets)]
        for pair, lists in zip(given, held, strict=True):
            rows = [None if part is None else len(part) for part in pair]
            if rows[0] != rows[1]:
                raise ValueError(f"k-NN features and targets come together, one row each; got {rows} rows")
            for part, kept in zip(pair, lists, strict=True):
                kept += [] if part is None else [part.detach()]

    @torch.no_grad()
    def compute(self) -> tuple[float, float]:
        """(acc1, acc5) in percent at the finest level, (-1, -1) if there are no train or no test rows; then resets."""
        self.level_accuracies = []
        states = [getattr(self, name) for name in self._STATES]
        rows = [dim_zero_cat(state) if len(state) else torch.empty(0) for state in states]
        if all(len(part) for part in rows):  # batches without a label leave parts of no rows
            self.level_accuracies = knn_accuracy(
                *rows,
                k=self.k,
                temperature=self.T,
                distance=self.distance_fx,
                epsilon=self.epsilon,
                max_elements=self.max_distance_matrix_size,
            )
        for name in self._STATES:
            setattr(self, name, [])  # gathered over processes they are tensors, which torchmetrics can't clear
        self.reset()
        return self.level_accuracies[-1] if self.level_accuracies else (-1, -1)
