"""Speed and memory of whole-batch augmentation from decoded images against making views image by image.

    python benchmarks/data.py [--images 1024] [--batch 256] [--folder-gb 0.2] [--pixels 1000] [--workers 2]
    python benchmarks/data.py --only feed  # images/s of a core from JPEG files, with and without the cache
    python benchmarks/data.py --only folder --folder-gb 10  # ten minutes, 15 GB in the folder for temporary files

Prints ratios, each of two things measured in turns in the same process, by processor time of one thread, so that other
programs matter little: views a second at 32 and at 224 pixels with the symmetric policy of solo-learn's CIFAR recipes,
loader against loader; then for a folder of JPEG files made here, the first epoch against plain decoding, a later epoch,
and the memory of the processes.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as tvt

from solo.data import cache
from solo.data.batches.loaders import BatchLoader
from solo.data.cache import cached
from solo.data.catalogue.registry import get_spec
from solo.data.labels.subsets import Indexed
from solo.data.pretrain_dataloader import prepare_dataloader
from solo.data.sources.images import ArrayDataset, load
from solo.data.storage.reading import ImageReading
from solo.data.views.batched import BatchAugment
from solo.data.views.pipelines import GaussianBlur, build_transform_pipeline, prepare_n_crop_transform

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def symmetric(side: int) -> dict[str, Any]:
    """The entry of `augmentations` of solo-learn's CIFAR recipes, two views, for images of `side` pixels."""
    return {
        "crop_size": side,
        "num_crops": 2,
        "rrc": {"enabled": True, "crop_min_scale": 0.08, "crop_max_scale": 1.0},
        "color_jitter": {"prob": 0.8, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
        "grayscale": {"prob": 0.2},
        "gaussian_blur": {"prob": 0.5},
        "horizontal_flip": {"prob": 0.5},
    }


def clock() -> float:
    """Processor time without a GPU, else wall time when the device is done."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(run: Callable[[], Any]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def clocks(run: Callable[[], Any]) -> np.ndarray:
    """Processor time of a call, and time by the clock."""
    start = np.array([time.process_time(), time.perf_counter()])
    run()
    return np.array([time.process_time(), time.perf_counter()]) - start


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


def jpegs(root: Path, gigabytes: float, pixels: int) -> None:
    """Write files of 64 different noisy pictures, as many as make that size, a thousand to a folder."""
    few, contents = pictures(64, pixels), []
    for image, rng in zip(few, map(np.random.default_rng, range(64)), strict=True):
        stream = BytesIO()
        noisy = image // 2 + rng.integers(0, 128, image.shape, dtype=np.uint8)
        Image.fromarray(noisy).save(stream, "JPEG", quality=95)
        contents.append(stream.getvalue())
    count = max(64, round(gigabytes * 1e9 / np.mean([len(content) for content in contents])))
    for i in range(count):
        if i % 1000 == 0:
            (root / f"{i // 1000:04}").mkdir(parents=True)
        (root / f"{i // 1000:04}" / f"{i}.jpg").write_bytes(contents[i % 64])


def resident(pid: int | str = "self") -> tuple[int, int]:
    """Anonymous memory of a process, and pages of files and shared memory that it has mapped, in MiB; Linux only."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    size = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith("Rss")}
    return size["RssAnon"], size["RssFile"] + size["RssShmem"]


def decoded(files: Iterable[str]) -> None:
    """Decode and resize each, and keep nothing."""
    for file in files:
        ImageReading().read(file).resize((256, 256))


def folder(gigabytes: float, pixels: int, batch: int, workers: int) -> None:
    """Print epochs and memory with the cache of a folder of JPEG files.

    Plain decoding and the first epoch take turns over parts of the folder, of which every fourth is decoded plainly,
    so that both have the same files, at the same time.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        jpegs(root / "images", gigabytes, pixels)
        dataset = load(get_spec("custom"), "train", root / "images")
        augment = BatchAugment([symmetric(224)], MEAN, STD)
        start = time.perf_counter()
        images = cached(dataset, augment, folder=str(root / "cache"), asked=True)
        files: list[str] = images.files
        print(f"folder of {sum(map(os.path.getsize, files)) / 1e9:.2f} GB; {images.size_text}")
        print(f"  sizes of all files read in {time.perf_counter() - start:.1f} s")
        parts = [range(first, min(first + 64, len(files))) for first in range(0, len(files), 64)]
        plain, first, later, peak = np.zeros(2), np.zeros(2), np.zeros(2), (0, 0)
        whole = np.zeros(2)
        for turn, part in enumerate(parts):
            alone, decode = np.zeros(2), functools.partial(decoded, [files[i] for i in part])
            if turn % 8 == 0:  # who comes first finds the files cold
                alone = clocks(decode)
            spent = clocks(lambda part=part: images.fetch(part))
            if turn % 8 == 4:
                alone = clocks(decode)
            whole += spent
            if turn % 4 == 0:
                first, plain = first + spent, plain + alone
            peak = max(peak, resident())
        for part in parts:
            later += clocks(lambda part=part: images.fetch(part))
            peak = max(peak, resident())
        ratios = [f"x{a:.2f} (x{b:.2f} by the clock)" for a, b in (first / plain, later / whole)]
        print(f"  first epoch {whole[0]:.1f} s of the processor; against decoding and resizing {ratios[0]}")
        print(f"  later epochs {later[0]:.1f} s, against the first one {ratios[1]}")
        print(
            f"  memory: {peak[0]:,} MiB of its own, {peak[1]:,} MiB mapped (libraries; the cache is read, not mapped)"
        )
        loader = BatchLoader(images, augment, min(batch, len(files)), workers, seed=0)
        found = []
        for _, _ in zip(range(20), loader, strict=False):
            found += [resident(child.pid) for child in multiprocessing.active_children()] + [resident()]
        own, mapped = max(found)
        print(
            f"  batches of {loader.batch_size} with {workers} workers: at most {own:,} MiB of its own in a process, "
            f"with {mapped:,} MiB mapped"
        )


def feed(count: int, pixels: int, size: int = 224) -> None:
    """Print how many images of JPEG files a core turns into two views, or into what travels to a GPU."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        jpegs(root / "images", 0, pixels)
        dataset, entry = load(get_spec("custom"), "train", root / "images"), symmetric(size)
        augment, seeds = BatchAugment([entry], MEAN, STD), torch.arange(64)
        kept = cached(dataset, augment, folder=str(root / "cache"), asked=True)
        with mock.patch.object(cache, "UNASKED_BYTES", 0):
            fresh = cached(dataset, augment)
        ours = prepare_n_crop_transform([build_transform_pipeline("custom", entry, MEAN, STD)], [2])
        rows = [[(64 * part + i) % 64 for i in range(64)] for part in range(max(1, count // 64))]
        ways: dict[str, Callable[[list[int]], Any]] = {
            "Pillow, image by image": lambda part: [ours(dataset[i][0]) for i in part],
            "decoded, whole batches": lambda part: augment(fresh.fetch(part), seeds),
            "decoded and cropped for a GPU": lambda part: augment.prepare(fresh.fetch(part), seeds),
            "cache, whole batches": lambda part: augment(kept.fetch(part), seeds),
            "cache, cropped for a GPU": lambda part: augment.prepare(kept.fetch(part), seeds),
        }
        best = fastest([lambda way=way: [way(part) for part in rows] for way in ways.values()])
        print(f"JPEG files of {pixels} x {pixels} pixels, two views of {size}, images/s of a core:")
        for (way, _), spent in zip(ways.items(), best, strict=True):
            print(f"  {way:30} {64 * len(rows) / spent:6,.0f}  x{best[0] / spent:.1f}")


def main() -> None:
    """Run all of it on one thread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024, help="at 32 pixels; an eighth of them at 224")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--folder-gb", type=float, default=0.2, help="size of the folder of JPEG files")
    parser.add_argument("--pixels", type=int, default=1000, help="side of the folder's images")
    parser.add_argument("--workers", type=int, default=2, help="of the loader whose memory is measured")
    parser.add_argument("--only", choices=("views", "feed", "folder"), help="one of the parts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.only in (None, "feed"):
        feed(args.images // 8, 450)
    if args.only in (None, "views"):
        views(32, 32, args.images, min(args.batch, args.images))
        views(224, 256, args.images // 8, min(args.batch, args.images // 16))
    if args.only in (None, "folder"):
        folder(args.folder_gb, args.pixels, args.batch, args.workers)


if __name__ == "__main__":
    main()
