"""MNIST's idx files, plain or gzipped, and where Fashion-MNIST's are found."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from solo.errors import UserError, reason

# Debian's and Ubuntu's package dataset-fashion-mnist installs its files here.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_UINT8 = 8


def read_idx(path: Path) -> np.ndarray:
    """A uint8 array from an idx file, a `UserError` if it is no whole one; names ending in `.gz` are decompressed."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can't be read ({reason(error)}); fetch the file again") from error
    # Header, big-endian: two zero bytes, type, number of dimensions, then one uint32 per dimension.
    ndim = data[3] if len(data) > 3 else 0
    start = 4 + 4 * ndim
    if len(data) < start or data[:3] != bytes([0, 0, _UINT8]):
        raise UserError(f"{path} is no idx file of bytes; fetch the file again")
    shape = [int(n) for n in np.frombuffer(data, ">u4", count=ndim, offset=4)]
    if len(data) - start != np.prod(shape, dtype=np.int64):
        raise UserError(f"{path} should hold {shape} bytes but has {len(data) - start}; fetch the file again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()  # writable, as torch wants it


def find_fashion(prefix: str, path: Path | None, default: Path | None = None) -> tuple[Path, Path] | None:
    """The files of images and labels of a split, `train` or `t10k`, also in torchvision's layout below a folder.

    The one that is given is looked at alone; without one Debian's and then `default`.
    """
    for folder in (path,) if path else (DEBIAN_FASHION_MNIST, default):
        for place in (folder, folder / "FashionMNIST" / "raw") if folder else ():
            for end in ("", ".gz"):
                files = [place / f"{prefix}-{name}-ubyte{end}" for name in ("images-idx3", "labels-idx1")]
                if all(file.is_file() for file in files):
                    return files[0], files[1]
    return None


def no_fashion(path: Path | None, why: str) -> str:
    """The message for when nothing was found in the given folder, and what became of fetching it."""
    files = "the files {train,t10k}-images-idx3-ubyte[.gz] and {train,t10k}-labels-idx1-ubyte[.gz]"
    package = f"Debian's package dataset-fashion-mnist ({DEBIAN_FASHION_MNIST})"
    rest = f"leave it out for {package}" if path else f"install {package}"
    return f"no Fashion-MNIST in {path or package} ({why}); set data.train_path to a folder with {files}, or {rest}"


def read_fashion(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `(N, 28, 28)` and labels `(N,)`, uint8; a `UserError` if they don't belong together."""
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or classes.ndim != 1 or len(pixels) != len(classes):
        raise UserError(f"{images} holds {pixels.shape} and {labels} {classes.shape}; expected (N, H, W) and (N,)")
    return pixels, classes
