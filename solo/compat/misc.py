"""solo-learn's helpers: `solo.utils.misc`, and at the end what other programs import from its `main_knn.py`."""

from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any, Literal, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from solo import distributed
from solo.data.catalogue.registry import get_spec
from solo.data.sources.images import load
from solo.eval.knn import WeightedKNNClassifier

__all__ = ["FilterInfNNan", "GatherLayer", "compute_dataset_size", "concat_all_gather_no_grad", "filter_inf_n_nan"]
__all__ += ["gather", "make_contiguous", "omegaconf_select"]

# Known without having the data: (pretraining images, validation images).
_SIZES = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "stl10": (105_000, 8_000)}


class GatherLayer:
    """All-gather with gradient, one tensor for each process."""

    @staticmethod
    def apply(x: Tensor) -> tuple[Tensor, ...]:
        """(N, ...) of this process -> the (N, ...) of every process."""
        return distributed.gather(x).chunk(distributed.world_size())


def gather(X: Tensor, dim: int = 0) -> Tensor:
    """Concatenate over processes along `dim`, with gradient; the identity without a process group."""
    return distributed.gather(X) if dim == 0 else torch.cat(GatherLayer.apply(X), dim=dim)


def concat_all_gather_no_grad(tensor: Tensor) -> Tensor:
    """Rows of all processes, without gradient; without a process group the tensor itself, with its gradient."""
    return distributed.gather_no_grad(tensor) if distributed.is_distributed() else tensor


def omegaconf_select(cfg: DictConfig, key: str, default: Any = None) -> Any:
    """`OmegaConf.select`, with the text "None" read as None."""
    value = OmegaConf.select(cfg, key, default=default)
    return None if value == "None" else value


def filter_inf_n_nan(
    tensors: Tensor | list[Tensor], return_indexes: bool = False
) -> Tensor | list[Tensor] | tuple[Tensor | list[Tensor], Tensor]:
    """Keep the rows (entries, in 1-D) that are finite in all of one or several tensors of 1 or 2 dimensions.

    With `return_indexes` also the boolean mask (N,) of the kept rows. A `RuntimeError` for more dimensions.
    """
    many = tensors if isinstance(tensors, list) else [tensors]
    if any(t.ndim > 2 for t in many):
        raise RuntimeError(f"filter_inf_n_nan takes tensors of 1 or 2 dimensions, got {[t.ndim for t in many]}")
    finite = [torch.isfinite(t) if t.ndim < 2 else torch.isfinite(t).all(dim=1) for t in many]
    selected = torch.stack(finite).all(dim=0)
    kept = [t[selected] for t in many]
    result = kept if isinstance(tensors, list) else kept[0]
    return (result, selected) if return_indexes else result


class FilterInfNNan(nn.Module):
    """Wrap a module so that rows of its output that are not finite are dropped."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Its output without the rows that are not finite."""
        return filter_inf_n_nan(self.module(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)


def compute_dataset_size(
    dataset: str | None = None,
    train: bool = True,
    data_path: str | Path | None = None,
    data_format: str = "image_folder",
    no_labels: bool = False,
    data_fraction: float = -1,
) -> int:
    """How many images a data set has (`None` is `custom`): of pretraining with unlabelled ones, or of validation.

    The path is not needed for CIFAR and STL-10; with `no_labels` the folder is flat; of a fraction in (0, 1) that share
    is counted. Raises a `UserError` for an unknown data set, and if the data aren't as expected.
    """
    name = (dataset or "custom").lower()
    if name in _SIZES:
        size = _SIZES[name][0 if train else 1]
    else:
        split: Literal["pretrain", "val"] = "pretrain" if train else "val"
        size = len(cast(Sized, load(get_spec(name), split, data_path, no_labels=no_labels, data_format=data_format)))
    return int(size * data_fraction) if 0 < data_fraction < 1 else size


def make_contiguous(module: nn.Module) -> None:
    """Make every parameter contiguous, in place."""
    with torch.no_grad():
        for param in module.parameters():
            param.data = param.data.contiguous()


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
