"""The two functions of solo-learn's `main_knn.py` that other programs import."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from solo.eval.knn import WeightedKNNClassifier


@torch.no_grad()
def extract_features(loader: Iterable[tuple[Tensor, Tensor]], model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a loader's images: backbone (N, F), projector (N, D), and labels (N,), on the model's device.

    The model gives `feats` and `z` (else a `KeyError`) and is in training mode afterwards, as in solo-learn.
    """
    device = next(model.parameters()).device
    model.eval()
    rows = [(model(images.to(device)), labels.to(device)) for images, labels in loader]
    model.train()
    feats, z = (torch.cat([out[key].detach() for out, _ in rows]) for key in ("feats", "z"))
    return feats, z, torch.cat([labels for _, labels in rows])


def run_knn(
    train_features: Tensor,
    train_targets: Tensor,
    test_features: Tensor,
    test_targets: Tensor,
    k: int,
    T: float | None,
    distance_fx: Literal["cosine", "euclidean"],
) -> tuple[float, float]:
    """Accuracies (top 1, top 5) in percent of the nearest neighbours' vote; arguments of `WeightedKNNClassifier`."""
    knn = WeightedKNNClassifier(k=k, T=0.07 if T is None else T, distance_fx=distance_fx)
    knn(train_features, train_targets, test_features, test_targets)
    return knn.compute()
