"""Weighted k-nearest-neighbour classification, in chunks, on any device.

Wu et al.: Unsupervised feature learning via non-parametric instance discrimination, https://arxiv.org/abs/1805.01978.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from solo import distributed
from solo.eval.features import ELEMENTS, FeatureTable, best_columns, unit_rows
from solo.eval.intervals import UNDEFINED, Interval, of_halves
from solo.precision import at_least_float32

Distance = Literal["cosine", "euclidean"]


@torch.no_grad()
def nearest(
    query: Tensor, keys: Tensor | Sequence[Tensor], k: int, distance: Distance = "cosine", max_elements: int = ELEMENTS
) -> tuple[Tensor, Tensor]:
    """The k most similar of keys (N, D), N >= k, of each query (M, D), about `max_elements` similarities at a time.

    The similarity (M, k), descending: the cosine, or minus the euclidean distance; and the keys' indices (M, k). Keys
    may come in parts, and are in memory once, in their own precision: rows are prepared a block at a time.
    """
    keys = [keys] if isinstance(keys, Tensor) else keys
    prepare = unit_rows if distance == "cosine" else at_least_float32
    # 1,024 rows are enough for a fast matrix product; the rest of the memory goes to columns.
    rows = max(1, min(len(query), 1024, max_elements // max(k, 1)))
    found = []
    for part in map(prepare, torch.split(query, rows)):
        top, index = part.new_empty(len(part), 0), part.new_empty(len(part), 0, dtype=torch.long)
        for start, block in _blocks(keys, max(k, max_elements // rows)):
            others = prepare(block)
            similarity = part @ others.T if distance == "cosine" else -torch.cdist(part, others)
            place = best_columns(similarity, min(k, len(block)))
            top = torch.cat([top, similarity.gather(1, place)], dim=1)
            index = torch.cat([index, place + start], dim=1)
            if top.shape[1] > k:
                top, place = top.topk(k, dim=1)
                index = index.gather(1, place)
        found.append((top, index))
    similarity, index = map(torch.cat, zip(*found, strict=True))
    return similarity, index


def _blocks(parts: Sequence[Tensor], rows: int) -> Iterator[tuple[int, Tensor]]:
    """At most `rows` rows of the parts at a time, each with the number of its first row."""
    start, waiting = 0, list[Tensor]()
    for piece in (piece for part in parts for piece in torch.split(part, rows)):
        if waiting and sum(map(len, waiting)) + len(piece) > rows:
            yield start, torch.cat(waiting)
            start, waiting = start + sum(map(len, waiting)), []
        waiting.append(piece)
    if waiting:
        yield start, torch.cat(waiting) if len(waiting) > 1 else waiting[0]


def nearest_others(features: Tensor, k: int, queries: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`nearest` by cosine among rows (N, D), N > k, themselves, each of all or of the `queries` (Q,) without itself."""
    asked = features if queries is None else features[queries]
    similarity, index = nearest(asked, features, k + 1)
    others = _others(index, torch.arange(len(features)) if queries is None else queries)
    return similarity[others].reshape(-1, k), index[others].reshape(-1, k)


def _others(index: Tensor, place: Tensor) -> Tensor:
    """Which of the neighbours (M, k + 1) of rows (M,) are to stay, k of each: not the row itself."""
    own = index == place.to(index.device)[:, None]
    own[:, -1] |= ~own.any(dim=1)  # behind k + 1 equal rows: any of them may go
    return ~own


def spherical_kmeans(rows: Tensor, centres: Tensor, iterations: int) -> Tensor:
    """Centres (C, D) of unit rows (N, D), from centres to begin with; one that nobody is nearest to stays."""
    for _ in range(iterations):
        sums = torch.zeros_like(centres).index_add_(0, nearest(rows, centres, 1)[1][:, 0], rows)
        centres = torch.where(sums.any(dim=1, keepdim=True), unit_rows(sums), centres)
    return centres


@torch.no_grad()
def nearest_by_cells(features: Tensor, k: int, probes: int = 16) -> Tensor:
    """Nearly the k nearest others, by cosine, of rows (N, D), N > k: (N, k), in time that grows with N^1.5 and not N^2.

    Spherical k-means of some rows makes about sqrt(N) / 2 cells; a row is compared with the `probes` nearest its own.
    """
    rows, count = unit_rows(features), max(1, round(len(features) ** 0.5 / 2))
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: 64 * count]
    some = rows[chosen.to(rows.device)]
    centres = spherical_kmeans(some, some[:count], 5)
    cell = nearest(rows, centres, 1)[1][:, 0]
    members = torch.split(cell.argsort(stable=True), cell.bincount(minlength=count).tolist())
    found = cell.new_empty(len(rows), k)
    for own, cells in zip(members, nearest(centres, centres, min(probes, count))[1].tolist(), strict=True):
        near = torch.cat([members[number] for number in cells])
        if len(near) <= k:
            near = torch.arange(len(rows), device=cell.device)
        if len(own):
            index = near[nearest(rows[own], rows[near], k + 1)[1]]
            found[own] = index[_others(index, own)].reshape(-1, k)
    return found


def class_counts(one: Tensor, other: Tensor) -> list[int]:
    """Numbers of classes of each level of labels (n, L) and (m, L): no class has to be in both."""
    return [max(int(a), int(b), 0) + 1 for a, b in zip(one.amax(dim=0), other.amax(dim=0), strict=True)]


@torch.no_grad()
def level_rankings(
    similarity: Tensor,
    rows: Tensor,
    labels: Tensor,
    truth: Tensor,
    *,
    temperature: float = 0.07,
    distance: Distance = "cosine",
    epsilon: float = 1e-5,
    max_elements: int = ELEMENTS,
) -> list[Tensor]:
    """For each level the classes with the most votes, (M, up to 5), the winner first; -1 for a class without a vote.

    `similarity` and `rows` (M, k) are what `nearest` gave for `distance`; labels (N, L) are of these rows, -1 unknown,
    `truth` (m, L) has the other classes. Votes have the weights exp(cosine / temperature), or 1 / (distance + epsilon);
    `max_elements` of them are held at once.
    """
    if distance == "euclidean":
        weights = 1 / (epsilon - similarity)
    else:  # relative to the best neighbour: the same votes, without overflow at a small temperature
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
    found = []
    for column, count in zip(labels.T, class_counts(labels, truth), strict=True):
        parts, size = [], max(1, max_elements // count)
        for near, weight in zip(torch.split(rows, size), torch.split(weights, size), strict=True):
            own = column[near]
            votes = weight.new_zeros(len(own), count)
            votes.scatter_add_(1, own.clamp(min=0), weight.masked_fill(own < 0, 0))
            best = votes.topk(min(5, near.shape[1], count), dim=1)
            # A class without a vote is no answer, even where fewer than five got one.
            parts.append(best.indices.masked_fill(best.values <= 0, -1))
        found.append(torch.cat(parts))
    return found


def hits(rankings: Sequence[Tensor], truth: Tensor) -> list[dict[str, Tensor]]:
    """Of images of known label (n, L): if the first of up to five ranked classes is right (`acc1`), or any (`acc5`)."""
    right = ((best == column[:, None])[column >= 0] for best, column in zip(rankings, truth.T, strict=True))
    return [{"acc1": one[:, 0], "acc5": one.any(dim=1)} for one in right]


def vote_accuracy(
    similarity: Tensor, neighbours: Tensor, train_targets: Tensor, test_targets: Tensor, **how: Any
) -> list[tuple[float, float]]:
    """Top-1 and top-5 accuracy in percent, coarse level first; NaN where no test row has a label.

    `similarity` and `neighbours` (M, k) are of `nearest`, targets (N,) or (N, L) and (M,) or (M, L), -1 for unknown,
    which neither votes nor counts; `how` is the rest of `level_rankings`. Top-5 is over min(5, k, classes).
    """
    train_targets, test_targets = (x[:, None] if x.ndim == 1 else x for x in (train_targets, test_targets))
    right = hits(level_rankings(similarity, neighbours, train_targets, test_targets, **how), test_targets)
    return [(100 * float(one["acc1"].double().mean()), 100 * float(one["acc5"].double().mean())) for one in right]


def knn_ranking(
    bank: FeatureTable | None, val: FeatureTable, k: int, temperature: float, device: torch.device
) -> list[Tensor]:
    """`level_rankings` (n, up to 5) by neighbours in `bank` or, without, in the other rows of `val`."""
    query, voters = val.features.to(device), val if bank is None else bank
    if bank is None:
        near = nearest_others(query, min(k, len(val) - 1))
    else:
        near = nearest(query, bank.features.to(device), min(k, len(bank)))
    found = level_rankings(*near, voters.labels.to(device), val.labels, temperature=temperature)
    return [ranking.cpu() for ranking in found]


def neighbour_intervals(
    val: FeatureTable, each: Sequence[dict[str, Tensor]], k: int, temperature: float, cuts: Tensor, device: torch.device
) -> list[dict[str, Interval]]:
    """Intervals of the accuracies by votes of the *other measured* images, which would change with the images.

    `each` is what `hits` gave, `cuts` are halves, see `solo.eval.intervals`. NaN where classes have less than k images
    on average, in two halves: small ones are then outvoted as a whole.
    """
    parts = map(val.rows, cuts if cuts.shape[1] > 1 else ())
    halves = [hits(knn_ranking(None, part, k, temperature, device), part.labels) for part in parts]
    found = []
    for level, (one, column) in enumerate(zip(each, val.labels.T, strict=True)):
        enough = min(len(one["acc1"]), 2 * cuts.shape[1]) >= k * len(column[column >= 0].unique())
        found.append(of_halves(one, [half[level] for half in halves]) if enough else dict.fromkeys(one, UNDEFINED))
    return found


class WeightedKNNClassifier(Metric):
    """Collects features batch by batch; `compute` classifies the test rows by the train rows and starts anew.

    Train rows without a class (-1 at the finest level) are no neighbours. Each process searches its own train rows, so
    that these are in memory once; only the test rows and the nearest neighbours travel. The name is solo-learn's.

    `k` neighbours vote, or all train rows if they are fewer, with the weights exp(cos / T) where `distance_fx` is
    `cosine`, 1 / (distance + epsilon) where it is `euclidean`; `max_distance_matrix_size` bounds what is held at once.
    """

    full_state_update = False
    train_features: list[Tensor]
    train_targets: list[Tensor]
    test_features: list[Tensor]
    test_targets: list[Tensor]

    def __init__(
        self,
        k: int = 20,
        T: float = 0.07,
        max_distance_matrix_size: int = int(5e6),
        distance_fx: Distance = "cosine",
        epsilon: float = 0.00001,
        dist_sync_on_step: bool = False,
    ) -> None:
        super().__init__(dist_sync_on_step=dist_sync_on_step, compute_with_cache=False, sync_on_compute=False)
        if distance_fx not in ("cosine", "euclidean"):
            raise ValueError(f"the k-NN distance {distance_fx!r} is unknown; choose cosine or euclidean")
        self.k, self.T, self.epsilon = k, T, epsilon
        self.max_distance_matrix_size, self.distance_fx = max_distance_matrix_size, distance_fx
        # (acc1, acc5) in percent of each label level, coarse first, of the last `compute`
        self.level_accuracies: list[tuple[float, float]] = []
        for name in ("train_features", "train_targets", "test_features", "test_targets"):
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
        """Add train rows, test rows, or both: features (N, D) with targets (N,) or (N, L), coarse level first."""
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
        self.level_accuracies = self._classify() if self.train_features and self.test_features else []
        self.reset()
        return self.level_accuracies[-1] if self.level_accuracies else (-1, -1)

    def _classify(self) -> list[tuple[float, float]]:
        for index, targets in enumerate(self.train_targets):
            known = targets.reshape(len(targets), -1)[:, -1] >= 0
            if not known.all():
                self.train_features[index] = self.train_features[index][known]
                self.train_targets[index] = targets[known]
        classes, test, truth = map(torch.cat, (self.train_targets, self.test_features, self.test_targets))
        if distributed.is_distributed():
            test, truth = (torch.cat(gather_all_tensors(x)) for x in (test, truth))
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


def _nearest_of_all(similarity: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities (M, k') and labels (M, k', ...) of this process's neighbours -> those of the k nearest of all."""
    missing = k - similarity.shape[1]
    similarity = F.pad(similarity, (0, missing), value=-torch.inf)
    labels = torch.cat([labels, labels.new_full((len(labels), missing, *labels.shape[2:]), -1)], dim=1)
    found = []
    rows = max(1, ELEMENTS // (k * distributed.world_size()))  # at a time: with many processes theirs fill the memory
    for part in zip(torch.split(similarity, rows), torch.split(labels, rows), strict=True):
        near, theirs = (distributed.gather_no_grad(x.transpose(0, 1)).transpose(0, 1) for x in part)
        near, places = near.topk(k, dim=1)
        found.append((near, theirs[torch.arange(len(places), device=places.device)[:, None], places]))
    similarity, labels = map(torch.cat, zip(*found, strict=True))
    return similarity, labels
