"""The online k-NN as a torchmetrics metric, under solo-learn's name."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from solo import distributed
from solo.eval.knn import nearest, vote_accuracy

_GATHERED = 5_000_000  # neighbours of all processes at once


class WeightedKNNClassifier(Metric):
    """Collects features batch by batch; `compute` classifies the test rows by the train rows and starts anew.

    Train rows without a class (-1 at the finest level) are no neighbours. Each process searches its own train rows, so
    that these are in memory once; only the test rows and the nearest neighbours travel.

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
        super().__init__(dist_sync_on_step=dist_sync_on_step, compute_with_cache=False, sync_on_compute=False)
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
        if self.train_features and self.test_features:
            self.level_accuracies = self._classify()
        self.reset()
        return self.level_accuracies[-1] if self.level_accuracies else (-1, -1)

    def _classify(self) -> list[tuple[float, float]]:
        for index, targets in enumerate(self.train_targets):
            known = targets.reshape(len(targets), -1)[:, -1] >= 0
            if not known.all():
                self.train_features[index], self.train_targets[index] = (
                    self.train_features[index][known],
                    targets[known],
                )
        classes = torch.cat(self.train_targets)
        test, truth = (_all_rows(torch.cat(parts)) for parts in (self.test_features, self.test_targets))
        k = min(self.k, int(distributed.all_reduce_sum(torch.tensor(len(classes), device=classes.device))))
        if not (k and len(test)):
            return []
        options: dict[str, Any] = {"distance": self.distance_fx, "max_elements": self.max_distance_matrix_size}
        similarity, near = nearest(test, self.train_features, min(k, len(classes)), **options)
        labels = classes[near]  # (M, k) or (M, k, L)
        if distributed.is_distributed():
            similarity, labels = _nearest_of_all(similarity, labels, k)
        places = torch.arange(similarity.numel(), device=similarity.device).view_as(similarity)
        options |= {"temperature": self.T, "epsilon": self.epsilon}
        return vote_accuracy(similarity, places, labels.flatten(0, 1), truth, **options)


def _all_rows(x: Tensor) -> Tensor:
    return torch.cat(gather_all_tensors(x)) if distributed.is_distributed() else x


def _nearest_of_all(similarity: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities (M, k') and labels (M, k', ...) of this process's neighbours -> those of the k nearest of all."""
    missing = k - similarity.shape[1]
    similarity = F.pad(similarity, (0, missing), value=-torch.inf)
    labels = torch.cat([labels, labels.new_full((len(labels), missing, *labels.shape[2:]), -1)], dim=1)
    found = []
    rows = max(1, _GATHERED // (k * distributed.world_size()))  # at a time: with many processes theirs fill the memory
    for part in zip(torch.split(similarity, rows), torch.split(labels, rows), strict=True):
        near, theirs = (distributed.gather_no_grad(x.transpose(0, 1)).transpose(0, 1) for x in part)
        near, places = near.topk(k, dim=1)
        found.append((near, theirs[torch.arange(len(places), device=places.device)[:, None], places]))
    similarity, labels = map(torch.cat, zip(*found, strict=True))
    return similarity, labels
