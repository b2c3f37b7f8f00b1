"""Speed and memory of whole-batch augmentation from decoded images against making views image by image.

    python benchmarks/data.py [--images 1024] [--batch 256] [--folder-images 512] [--pixels 400]

Prints ratios, each of two things measured in turns in the same process, by processor time of one thread, so that other
programs matter little: views a second at 32 and at 224 pixels with the symmetric policy of solo-learn's CIFAR recipes,
loader against loader; then for a folder of JPEG files made here, the first epoch against plain decoding, a later epoch,
and the memory of the process.
"""

from __future__ import annotations

import argparse
import functools
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as tvt

from solo.data.augment import BatchAugment
from solo.data.batches import BatchLoader
from solo.data.cache import cached
from solo.data.images import ArrayDataset, read_rgb
from solo.data.ops import GaussianBlur
from solo.data.pretrain_dataloader import prepare_dataloader
from solo.data.registry import get_spec
from solo.data.sources import load
from solo.data.subsets import Indexed
from solo.data.transforms import build_transform_pipeline, prepare_n_crop_transform

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def symmetric(size: int) -> dict[str, Any]:
    """The entry of `augmentations`, two views."""
    return {
        "crop_size": size,
        "num_crops": 2,
        "rrc": {"enabled": True, "crop_min_scale": 0.08, "crop_max_scale": 1.0},
        "color_jitter": {"prob": 0.8, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
        "grayscale": {"prob": 0.2},
        "gaussian_blur": {"prob": 0.5},
        "horizontal_flip": {"prob": 0.5},
    }


def seconds(run: Callable[[], Any]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def drain(loader: Iterable[Any]) -> None:
    """One epoch."""
    for _ in loader:
        pass


def fastest(runs: Sequence[Callable[[], Any]], rounds: int = 4) -> list[float]:
    """Best processor time of each, taken in turns."""
    times = [[seconds(run) for run in runs] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def pictures(count: int, side: int) -> np.ndarray:
    """Smooth random pictures, `(count, side, side, 3)` uint8."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp_(0, 1)
    return (fine * 255).byte().movedim(1, 3).contiguous().numpy()


def torchvision_views(size: int) -> Callable[[Image.Image], list[torch.Tensor]]:
    """The same policy of torchvision's own classes on a PIL image, as solo-learn builds it."""
    bicubic = tvt.InterpolationMode.BICUBIC
    view = tvt.Compose(
        [
            tvt.RandomResizedCrop(size, (0.08, 1.0), interpolation=bicubic),
            tvt.RandomApply([tvt.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            tvt.RandomGrayscale(0.2),
            tvt.RandomApply([GaussianBlur()], p=0.5),
            tvt.RandomHorizontalFlip(0.5),
            tvt.ToTensor(),
            tvt.Normalize(MEAN, STD),
        ]
    )
    return lambda image: [view(image), view(image)]


def views(size: int, side: int, count: int, batch: int) -> None:
    """Print how much faster whole batches are, from images in memory."""
    entry, images = symmetric(size), pictures(count, side)
    ours = prepare_n_crop_transform([build_transform_pipeline("custom", entry, MEAN, STD)], [2])
    augment = BatchAugment([entry], MEAN, STD)
    whole = BatchLoader(cached(ArrayDataset(images, [0] * count), augment), augment, batch, seed=0)
    one_by_one = [
        prepare_dataloader(Indexed(ArrayDataset(images, [0] * count, transform)), batch, 0, seed=0)
        for transform in (torchvision_views(size), ours)
    ]
    best = fastest([lambda loader=loader: drain(loader) for loader in (*one_by_one, whole)])
    made = 2 * len(whole) * batch
    names = ("torchvision on PIL images", "data.augment=sample", "data.augment=batch")
    print(f"{size} px, views a second:")
    for name, time_taken in zip(names, best, strict=True):
        print(f"  {name:26} {made / time_taken:8,.0f}  x{best[0] / time_taken:.1f}")


def folder(count: int, pixels: int, batch: int) -> None:
    """Print epochs and memory with the cache of a folder of JPEG files."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images" / "class").mkdir(parents=True)
        few = pictures(16, pixels)
        for i in range(count):
            image, noise = few[i % 16], np.random.default_rng(i).integers(0, 32, few.shape[1:], dtype=np.uint8)
            Image.fromarray(image // 2 + noise).save(root / "images" / "class" / f"{i}.jpg", quality=90)
        files = [str(path) for path in sorted((root / "images").rglob("*.jpg"))]
        dataset = load(get_spec("custom"), "train", root / "images")
        augment = BatchAugment([symmetric(224)], MEAN, STD)
        rows = [range(start, min(start + batch, count)) for start in range(0, count, batch)]
        times = []
        for turn in range(3):
            images = cached(dataset, augment, folder=str(root / f"cache{turn}"), asked=True)
            epoch = functools.partial(lambda images: sum(len(images.fetch(part)) for part in rows), images)
            plain = seconds(lambda: sum(read_rgb(file).resize((256, 256)).width for file in files))
            times.append((plain, seconds(epoch), seconds(epoch)))
        decoding, first, later = (min(column) for column in zip(*times, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # which is in KiB on Linux
        print(f"folder of {images.size_text}")
        print(f"  decoding and resizing {decoding:.2f} s; first epoch {first:.2f} s, x{first / decoding:.2f}")
        print(f"  later epochs {later:.2f} s, x{later / decoding:.3f}; peak memory of the process {peak:,.0f} MiB")


def main() -> None:
    """Run all of it on one thread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024, help="at 32 pixels; an eighth of them at 224")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--folder-images", type=int, default=512)
    parser.add_argument("--pixels", type=int, default=400, help="side of the folder's images")
    args = parser.parse_args()
    torch.set_num_threads(1)
    views(32, 32, args.images, min(args.batch, args.images))
    views(224, 256, args.images // 8, min(args.batch, args.images // 16))
    folder(args.folder_images, args.pixels, args.batch)


if __name__ == "__main__":
    main()
