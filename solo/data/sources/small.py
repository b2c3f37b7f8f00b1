"""Small images that fit into memory: MNIST, SVHN, parts of CIFAR-100, CIFAR-10-C, MedMNIST, glyphs."""

from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torchvision import datasets as tv

from solo.data.catalogue.registry import layout_of
from solo.data.catalogue.rows import DatasetSpec
from solo.data.sources.images import ArrayDataset, Request
from solo.data.sources.load import cifar10, cifar100, from_torchvision, image_folder
from solo.data.storage.folders import class_folders
from solo.errors import UserError, reason
from solo.untrusted import regular

_CIFAR10C_LABELS = "labels.npy"


def mnist(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """MNIST as torchvision reads and fetches it."""
    data: Any = from_torchvision(tv.MNIST, "MNIST", request, train=request.split != "val")
    return _arrays(data.data.numpy(), data.targets, request)


def svhn(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """Street View House Numbers by torchvision, without the extra images."""
    split = "test" if request.split == "val" else "train"
    data: Any = from_torchvision(tv.SVHN, f"{split}_32x32.mat", request, split=split)
    return _arrays(data.data.transpose(0, 2, 3, 1), data.labels, request)


def cifar100_part(spec: DatasetSpec, request: Request) -> Dataset[tuple[Any, Any]]:
    """The five classes of a superclass, out of CIFAR-100 or from a folder with one sub-folder for each of them."""
    names = [] if spec.taxonomy is None else list(spec.taxonomy.class_names)
    if request.path and request.path.is_dir() and class_folders(request.path) == names:
        folder: Dataset[tuple[Any, Any]] = image_folder(spec, request)
        return folder
    data: Any = cifar100(spec, request)
    index = {data.class_to_idx[name]: i for i, name in enumerate(names)}
    kept = [i for i, target in enumerate(data.targets) if target in index]
    return _arrays(data.data[kept], [index[data.targets[i]] for i in kept], request)


def cifar10c(spec: DatasetSpec, request: Request) -> Dataset[tuple[Any, Any]]:
    """CIFAR-10-C, for evaluation: the training images are CIFAR-10's, the validation images are corrupted.

    The validation path is a folder with `labels.npy` and one file per corruption, or one of these files; each holds
    the 10,000 test images at five strengths.
    """
    if request.split != "val":
        training: Dataset[tuple[Any, Any]] = cifar10(spec, request)
        return training
    path = request.root
    folder = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else sorted(set(folder.glob("*.npy")) - {folder / _CIFAR10C_LABELS})
    if not files or not (folder / _CIFAR10C_LABELS).is_file():
        raise UserError(
            f"no CIFAR-10-C in {path}; fetch it from https://zenodo.org/records/2535967 and set data.val_path to the "
            "folder with labels.npy and fog.npy, ..., or to one of these files"
        )
    images = np.concatenate([_load(file) for file in files])
    labels = _load(folder / _CIFAR10C_LABELS)
    return _arrays(images, np.tile(labels, len(files)), request)


def medmnist(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """One of the MedMNIST data sets, from its npz file; the test images validate.

    ChestMNIST has fourteen findings, any number of them in an image; its two classes here are none and some.
    """
    path = request.root / f"{spec.name}.npz"
    if not path.is_file():
        raise UserError(
            f"no {path.name} in {request.root}; fetch it from https://medmnist.com and set data.train_path and "
            "data.val_path to its folder"
        )
    archive = _load(path)
    split = "test" if request.split == "val" else "train"
    if missing := {f"{split}_images", f"{split}_labels"} - archive.keys():
        raise UserError(f"{path} holds no {' and no '.join(sorted(missing))}; fetch it again")
    labels = archive[f"{split}_labels"]
    return _arrays(archive[f"{split}_images"], labels.max(axis=1) if labels.ndim > 1 else labels, request)


def glyphs(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """Letters of many scripts; the validation images are of other font families. `groups`: the family of each image."""
    layout = layout_of(spec)
    root = layout.root(request.root)
    if root is None:
        raise UserError(layout.how_to(request.root))
    archive = _load(root / layout.markers[0])
    kept = archive["split"] == (request.split == "val")
    images = _arrays(archive["images"][kept], archive["labels"][kept, -1], request)
    images.groups = archive["family"][kept]
    return images


def _load(path: Path) -> Any:
    """An array, or arrays by name. Raises a `UserError`: it is damaged; all of it is looked at."""
    try:
        regular(path)
        found = np.load(path)
        return found if path.suffix == ".npy" else {name: found[name] for name in found.files}
    except Exception as error:  # NumPy and zipfile raise almost anything
        raise UserError(f"{path} can't be read ({reason(error)}); fetch it again") from error


def _arrays(images: np.ndarray, targets: Any, request: Request) -> ArrayDataset:
    if len(images) != len(targets):
        raise UserError(f"{request.root} holds {len(images)} images but {len(targets)} labels; fetch it again")
    return ArrayDataset(np.ascontiguousarray(images), targets, request.transform, request.target_transform)
