"""Small images that fit into memory: digits, MNIST and its like, CIFAR, STL-10, SVHN, MedMNIST, glyphs."""

import gzip
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from torchvision import datasets as tv

from solo.data.catalogue.rows import DatasetSpec, layout_of
from solo.data.labels.subsets import Pairs
from solo.data.sources.images import ArrayDataset, Request, from_torchvision, image_folder
from solo.data.storage.facts import class_folders
from solo.errors import UserError, explained, reason
from solo.files import regular

# Debian's and Ubuntu's package dataset-fashion-mnist installs its files here.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def digits(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 enlarged to `spec.size`; a fixed stratified fifth validates."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(np.arange(len(images)), test_size=0.2, stratify=bunch.target, random_state=0)
    rows = val if request.split == "val" else train
    size = (spec.size, spec.size)
    large = [np.asarray(Image.fromarray(images[i]).resize(size, Image.Resampling.BICUBIC)) for i in rows]
    return _arrays(np.stack(large), bunch.target[rows], request)


def fashion_mnist(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """Fashion-MNIST from idx files in the given folder, else from Debian's package; what is missing is fetched."""
    prefix = "t10k" if request.split == "val" else "train"
    files, why = find_fashion(prefix, request.path, request.root), "data.download=False"
    if files is None and request.download:
        try:
            tv.FashionMNIST(str(request.root), download=True)
        except (RuntimeError, OSError) as error:
            why = f"the download failed: {reason(error)}"
        files = find_fashion(prefix, request.root)
    if files is None:
        wanted = "the files {train,t10k}-images-idx3-ubyte[.gz] and {train,t10k}-labels-idx1-ubyte[.gz]"
        what = f"no Fashion-MNIST in {request.path or DEBIAN_FASHION_MNIST} ({why})"
        rest = f"install Debian's package dataset-fashion-mnist ({DEBIAN_FASHION_MNIST}) and leave it out"
        raise UserError(f"{what}; set data.train_path to a folder with {wanted}, or {rest}")
    images, labels = map(read_idx, files)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        what = f"{files[0]} holds {images.shape} and {files[1]} {labels.shape}"
        raise UserError(f"{what}; expected (N, H, W) and (N,), fetch them again")
    return ArrayDataset(images, labels, request.transform, request.target_transform)


def find_fashion(prefix: str, path: Path | None, default: Path | None = None) -> tuple[Path, Path] | None:
    """Images' and labels' file of `train` or `t10k` in the given folder, else in Debian's, then in `default`."""
    for folder in (path,) if path else (DEBIAN_FASHION_MNIST, default):
        for place in (folder, folder / "FashionMNIST" / "raw") if folder else ():
            for end in ("", ".gz"):
                files = [place / f"{prefix}-{name}-ubyte{end}" for name in ("images-idx3", "labels-idx1")]
                if all(file.is_file() for file in files):
                    return files[0], files[1]
    return None


def read_idx(path: Path) -> np.ndarray:
    """A uint8 array from an idx file, a `UserError` if it is no whole one; names ending in `.gz` are decompressed."""
    with explained(f"{path} can't be read", "fetch the file again", OSError, EOFError, zlib.error):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    # Header, big-endian: two zero bytes, type (8: uint8), number of dimensions, then one uint32 per dimension.
    ndim = data[3] if len(data) > 3 else 0
    start = 4 + 4 * ndim
    if len(data) < start or data[:3] != b"\0\0\x08":
        raise UserError(f"{path} is no idx file of bytes; fetch the file again")
    shape = [int(n) for n in np.frombuffer(data, ">u4", count=ndim, offset=4)]
    if len(data) - start != np.prod(shape, dtype=np.int64):
        raise UserError(f"{path} should hold {shape} bytes but has {len(data) - start}; fetch the file again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()  # writable, as torch wants it


def cifar(spec: DatasetSpec, request: Request) -> Pairs:
    """CIFAR-100, or CIFAR-10, as torchvision reads and fetches it; superclasses are the row's."""
    cls, folder = (tv.CIFAR100, "cifar-100-python") if "100" in spec.name else (tv.CIFAR10, "cifar-10-batches-py")
    return from_torchvision(cls, folder, request, train=request.split != "val")


def cifar100_part(spec: DatasetSpec, request: Request) -> Pairs:
    """The five classes of a superclass, out of CIFAR-100 or from a folder with one sub-folder for each of them."""
    names = [] if spec.taxonomy is None else list(spec.taxonomy.class_names)
    if request.path and request.path.is_dir() and class_folders(request.path) == names:
        return cast(Pairs, image_folder(spec, request))
    data: Any = cifar(spec, request)
    index = {data.class_to_idx[name]: i for i, name in enumerate(names)}
    kept = [i for i, target in enumerate(data.targets) if target in index]
    return _arrays(data.data[kept], [index[data.targets[i]] for i in kept], request)


def cifar10c(spec: DatasetSpec, request: Request) -> Pairs:
    """CIFAR-10-C, a folder or one file of it; the training images are CIFAR-10's, the validation images corrupted."""
    if request.split != "val":
        return cifar(spec, request)
    path = request.root
    labels = (path if path.is_dir() else path.parent) / "labels.npy"
    files = [path] if path.is_file() else sorted(set(path.glob("*.npy")) - {labels})
    if not files or not labels.is_file():
        what = f"no CIFAR-10-C in {path}; fetch it from https://zenodo.org/records/2535967 and set data.val_path"
        raise UserError(f"{what} to the folder with labels.npy and fog.npy, ..., or to one of these files")
    images = np.concatenate([_load(file) for file in files])
    return _arrays(images, np.tile(_load(labels), len(files)), request)


def stl10(spec: DatasetSpec, request: Request) -> Pairs:
    """STL-10 by torchvision; pretraining adds the 100,000 unlabelled images."""
    split = {"pretrain": "train+unlabeled", "train": "train", "val": "test"}[request.split]
    data: Any = from_torchvision(tv.STL10, "stl10_binary", request, split=split)
    data.targets = data.labels.tolist()  # as all the others have them
    return cast(Pairs, data)


def mnist(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """MNIST as torchvision reads and fetches it."""
    data: Any = from_torchvision(tv.MNIST, "MNIST", request, train=request.split != "val")
    return _arrays(data.data.numpy(), data.targets, request)


def svhn(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """Street View House Numbers by torchvision, without the extra images."""
    split = "test" if request.split == "val" else "train"
    data: Any = from_torchvision(tv.SVHN, f"{split}_32x32.mat", request, split=split)
    return _arrays(data.data.transpose(0, 2, 3, 1), data.labels, request)


def medmnist(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """A MedMNIST data set; its test images validate. The two classes of ChestMNIST here are no finding and some."""
    path = request.root / f"{spec.name}.npz"
    if not path.is_file():
        what = f"no {path.name} in {request.root}; fetch it from https://medmnist.com"
        raise UserError(f"{what} and set data.train_path and data.val_path to its folder")
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
    with explained(f"{path} can't be read", "fetch it again"):
        found = np.load(regular(path))
        return found if path.suffix == ".npy" else {name: found[name] for name in found.files}


def _arrays(images: np.ndarray, targets: Any, request: Request) -> ArrayDataset:
    if len(images) != len(targets):
        raise UserError(f"{request.root} holds {len(images)} images but {len(targets)} labels; fetch it again")
    return ArrayDataset(np.ascontiguousarray(images), targets, request.transform, request.target_transform)
