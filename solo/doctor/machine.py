"""What the machine is, and how fast images come: the numbers to look at before a long run."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from solo.callbacks import summary
from solo.cores import usable_cores
from solo.data.storage.reading import ImageReading
from solo.data.views.batched import BatchAugment
from solo.errors import UserError

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
SECONDS = 0.7  # of each measurement of a rate
MEBIBYTES = 64  # written and read once

Fact = tuple[str, str]


def versions() -> list[Fact]:
    """Python's and the packages' that decide what a run computes."""
    found = summary.versions("torchvision", "numpy", "pillow")
    return [*(found | {"python": f"{found['python']} on {platform.system()} {platform.machine()}"}).items()]


def devices() -> list[Fact]:
    """Processor, memory, GPUs, and what processes talk through."""
    found = [("processor", f"{usable_cores()} cores, torch uses {torch.get_num_threads()} of them in a process")]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found.append(("memory", f"{size / 2**30:.1f} GiB"))
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append((f"cuda:{index}", f"{card.name}, {card.total_memory / 2**30:.1f} GiB"))
    if torch.cuda.is_available():
        found.append(("bf16 on GPU", "yes" if torch.cuda.is_bf16_supported() else "no: use precision=16-mixed"))
    elif torch.backends.mps.is_available():
        found.append(("mps", "available"))
    else:
        found.append(("GPU", "none visible"))
    backends = [name for name in ("gloo", "nccl", "mpi") if getattr(torch.distributed, f"is_{name}_available", bool)()]
    found.append(("processes talk by", ", ".join(backends) or "nothing: torch has no distributed package"))
    return found


def bandwidth(folder: Path | None = None) -> list[Fact]:
    """Rates of the way of an image, each on one core of this machine, measured on pictures that are made here.

    Raises:
        UserError: the folder can't be written.
    """
    torch.manual_seed(0)
    try:
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix="solo-doctor-")
    except OSError as error:
        raise UserError(f"the folder {folder} can't be written ({error.strerror}); give another --folder") from error
    with temporary as name:
        place = Path(name)
        write, read = _disk(place)
        files = _pictures(place)
        decode = _rate(lambda: [ImageReading().read(file) for file in files], len(files))
    found = [
        ("disk", f"{write:,.0f} MiB/s written, {read:,.0f} MiB/s read in {folder or Path(tempfile.gettempdir())}"),
        ("decode", f"{decode:,.0f} JPEG images/s of 400 x 300 pixels"),
    ]
    for side, count in ((32, 256), (224, 16)):
        views = _augment(side, count)
        found.append((f"augment {side} x {side}", f"{views:,.0f} views/s: crop, jitter, grey, blur, flip"))
    return found


def _disk(folder: Path) -> tuple[float, float]:
    """MiB/s of writing, until it is on the disk, and of reading, past the memory where the system lets one."""
    file, block = folder / "block", os.urandom(2**20)
    if shutil.disk_usage(folder).free < 2 * MEBIBYTES * 2**20:
        raise UserError(f"{folder} has less than {2 * MEBIBYTES} MiB free; free the disk or give another --folder")
    start = time.perf_counter()
    with file.open("wb") as stream:
        for _ in range(MEBIBYTES):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    written = time.perf_counter() - start
    with file.open("rb", buffering=0) as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        while stream.read(2**20):
            pass
        taken = time.perf_counter() - start
    file.unlink()
    return MEBIBYTES / written, MEBIBYTES / taken


def _pictures(folder: Path, count: int = 16) -> list[Path]:
    """JPEG files of smooth noise, which compresses about as photographs do."""
    random = np.random.default_rng(0)
    files = [folder / f"{index}.jpg" for index in range(count)]
    for file in files:
        coarse = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC).save(file, quality=90)
    return files


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


def _augment(side: int, count: int) -> float:
    augment = BatchAugment([symmetric(side)], MEAN, STD, 3)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    return _rate(lambda: augment(images, torch.arange(count)), 2 * count)


def _rate(work: Callable[[], Any], items: int) -> float:
    """Items a second of wall time, after one call that warms up."""
    work()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        work()
        calls += 1
    return calls * items / (time.perf_counter() - start)
