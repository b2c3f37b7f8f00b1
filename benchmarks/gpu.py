"""Every figure of a GPU, once, in at most six minutes: `python benchmarks/gpu.py OUT.json`; `--dry` tries it on a CPU.

A row is written as soon as it is measured. Times are medians, in ms. `launches` counts operations that aren't views,
`waits` the places where torch's `set_sync_debug_mode` sees the program wait for the device. Copies and products are the
yardstick for the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

if "--dry" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before anybody imports Triton

import torch
from data import MEAN, STD, jpegs, symmetric  # type: ignore[import-not-found]
from step import Program, forever  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.backbones import build_backbone
from solo.data import cache as images
from solo.data.batches.loaders import BatchLoader
from solo.data.catalogue.registry import get_spec
from solo.data.sources.images import load
from solo.data.views import masked
from solo.data.views.batched import BatchAugment
from solo.eval.knn import nearest
from solo.hex import AdaptivePercentile
from solo.hex.loss import hex_nce
from solo.losses import info_nce, simclr_loss_func
from solo.losses.pairs import Pairs
from solo.run.machine import SyncedNorms

Row = dict[str, Any]
ENTRY = {
    "num_crops": 2,
    "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0},
    "color_jitter": {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
    **{name: {"prob": prob} for name, prob in (("grayscale", 0.2), ("gaussian_blur", 0.5), ("horizontal_flip", 0.5))},
}


class Bench:
    """Where and how much: a GPU, or with `dry` a CPU and next to nothing."""

    def __init__(self, dry: bool) -> None:
        self.dry, self.device = dry, torch.device("cpu" if dry else "cuda")

    def size(self, full: int, dry: int) -> int:
        """How many."""
        return dry if self.dry else full

    def wait(self) -> None:
        """Until the device is done."""
        if not self.dry:
            torch.cuda.synchronize()

    def ms(self, work: Callable[[], Any]) -> tuple[float, float]:
        """Until the device is done, and until the program goes on."""
        whole, host = [], []
        for _ in range(self.size(10, 1)):
            self.wait()
            start = time.perf_counter()
            work()
            host.append(1000 * (time.perf_counter() - start))
            self.wait()
            whole.append(1000 * (time.perf_counter() - start))
            if sum(whole) > 5000:  # slow as that, it is told by few
                break
        return round(statistics.median(whole), 3), round(statistics.median(host), 3)

    def waits(self, work: Callable[[], Any]) -> int | None:
        """Places where it waits; unknown without a GPU."""
        if self.dry:
            return None
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in seen)


class Launches(TorchDispatchMode):
    """Counts operations of a device that aren't views."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.number = device, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        there = isinstance(first, Tensor) and first.device.type == self.device.type
        memory = func.overloadpacket.__name__ in ("empty", "new_empty", "detach", "_unsafe_view")
        self.number += there and not func.is_view and not memory
        return out


def yardstick(b: Bench) -> Iterator[Row]:
    """Copies, GB/s, and products, TFLOP/s."""
    n = b.size(2**28, 2**10)
    x, host = torch.empty(n, device=b.device), torch.empty(n // 8, pin_memory=not b.dry)
    yield {"copy_gb_per_s": 8 * n / b.ms(x.clone)[0] / 1e6}
    yield {"to_device_gb_per_s": n / 2 / b.ms(lambda: host.to(b.device, non_blocking=True))[0] / 1e6}
    side = b.size(8192, 32)
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(side, side, device=b.device, dtype=dtype)
        yield {"product": str(dtype), "tflop_per_s": 2 * side**3 / b.ms(lambda a=a: a @ a)[0] / 1e9}


def networks(b: Bench) -> Iterator[Row]:
    """Images/s, forward and backward on random tensors in bfloat16."""
    for name, side, batch in (("resnet18", 32, 512), ("resnet50", 224, 256), ("vit_small", 224, 256)):
        side, batch = b.size(side, 32 if name != "vit_small" else 224), b.size(batch, 2)
        x = torch.randn(batch, 3, side, side, device=b.device)
        for form in ("plain", "channels_last", "compiled"):
            if b.dry and (form == "compiled" or name != "resnet18"):
                continue
            net: nn.Module = build_backbone(name, channels=3, small=side == 32, kwargs={}).to(b.device)
            if form != "plain":
                net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
            run: Any = torch.compile(net) if form == "compiled" else net

            def step(run: Any = run, x: Tensor = x) -> None:
                with torch.autocast(b.device.type, torch.bfloat16):
                    run(x).float().square().mean().backward()

            step()
            yield {"network": name, "form": form, "images_per_s": round(1000 * batch / b.ms(step)[0])}


def augmentation(b: Bench) -> Iterator[Row]:
    """Both views of a batch of decoded images."""
    for side in (32, 224):
        batch = b.size(256, 2)
        (entry,) = BatchAugment([{**ENTRY, "crop_size": side}], [0.5] * 3, [0.25] * 3).entries
        images = torch.randint(0, 256, (batch, 3, side + 8, side + 8), dtype=torch.uint8).to(b.device)
        seeds = torch.arange(batch)
        plan = entry.plan(seeds, torch.full((batch, 2), side + 8))

        def make(entry: Any = entry, images: Tensor = images, plan: Any = plan) -> Tensor:
            return masked.views(entry, images, plan)

        make()
        device_ms, host_ms = b.ms(make)
        with Launches(b.device) as launches:
            make()
        yield {"views": side, "ms": device_ms, "host_ms": host_ms, "launches": launches.number, "waits": b.waits(make)}


def loss_of(name: str, pairs: Pairs, kernels: bool) -> Tensor:
    """InfoNCE or HEX."""
    pairs = dataclasses.replace(pairs, fused=kernels)
    return info_nce(pairs, 0.1) if name == "info_nce" else hex_nce(pairs, AdaptivePercentile(0.99, 0))[0]


def one_line(error: Exception) -> str:
    """For a row."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def losses(b: Bench) -> Iterator[Row]:
    """Forward and backward of n rows of 128 numbers, in blocks and by kernels."""
    for rows in (512, 4096, 16384, 65536)[: b.size(4, 1)]:
        z = torch.randn(b.size(rows, 16), 128, device=b.device, requires_grad=True)
        ids = torch.arange(len(z) // 2, device=b.device).repeat(2)
        for name, kernels in product(("info_nce", "hex"), (False, True)):

            def step(name: str = name, kernels: bool = kernels, z: Tensor = z, ids: Tensor = ids) -> None:
                loss_of(name, Pairs.from_ids(z, ids), kernels).backward()

            row: Row = {"loss": name, "kernels": kernels, "rows": len(z)}
            try:
                step()
                if not b.dry:
                    torch.cuda.reset_peak_memory_stats()
                row |= {"ms": b.ms(step)[0], "waits": b.waits(step)}
            except Exception as error:  # the others' rows are wanted even so
                row["error"] = one_line(error)
            yield row if b.dry else {**row, "gib": torch.cuda.max_memory_allocated() / 2**30}


def truth(b: Bench) -> Iterator[Row]:
    """The same losses and views here, and on a CPU in float64."""
    z, ids = torch.randn(b.size(2048, 16), 128), torch.arange(b.size(1024, 8)).repeat(2)

    def found(name: str, device: torch.device, dtype: torch.dtype, kernels: bool) -> tuple[Tensor, Tensor]:
        x = z.to(device, dtype).requires_grad_()
        loss = loss_of(name, Pairs.from_ids(x, ids.to(device)), kernels)
        return loss.detach().cpu().double(), torch.autograd.grad(loss, x)[0].cpu().double()

    for name, kernels in product(("info_nce", "hex"), (False, True)):
        value, grad = found(name, b.device, torch.float32, kernels)
        exact, gradient = found(name, torch.device("cpu"), torch.float64, False)
        errors = {
            "relative_error": (value - exact).abs() / exact.abs(),
            "gradient_error": (grad - gradient).norm() / gradient.norm(),
        }
        yield {"loss": name, "kernels": kernels, **{key: float(error) for key, error in errors.items()}}
    (entry,) = BatchAugment([{**ENTRY, "crop_size": 32}], [0.5] * 3, [0.25] * 3).entries
    images, seeds = torch.randint(0, 256, (16, 3, 40, 40), dtype=torch.uint8), torch.arange(16)
    plan = entry.plan(seeds, torch.full((16, 2), 40))
    here = masked.views(entry, images.to(b.device), plan).cpu()
    (cpu,) = BatchAugment([{**ENTRY, "crop_size": 32}], [0.5] * 3, [0.25] * 3).entries
    yield {"views_largest_difference": float((here - masked.views(cpu, images, plan)).abs().max())}


def knn(b: Bench) -> Iterator[Row]:
    """Memory of the search, as a multiple of the bank's."""
    bank = torch.randn(b.size(1_000_000, 100), 512, device=b.device).bfloat16()
    if not b.dry:
        torch.cuda.reset_peak_memory_stats()
    ms = b.ms(lambda: nearest(bank[:1024], bank, 20))[0]
    yield {"knn_ms": ms, "peak_per_bank": None if b.dry else torch.cuda.max_memory_allocated() / bank.nbytes}


def sync_norms(b: Bench) -> Iterator[Row]:
    """What converting BatchNorms for several devices changes in one of them: nothing."""
    for name in ("resnet18", "efficientnet_b0"):
        net: nn.Module = build_backbone(name, channels=3, small=True, kwargs={}).to(b.device)
        x = torch.randn(b.size(64, 4), 3, 64, 64, device=b.device)
        with torch.no_grad():
            before, after = net(x), SyncedNorms(gpu=not b.dry).apply(net).to(b.device)(x)
        yield {"sync_batchnorm": name, "relative_difference": float((after - before).norm() / before.norm())}


def loader(b: Bench) -> Iterator[Row]:
    """Images/s of JPEG files, two views of 224 pixels: from the files and from the cache, without the first batches."""
    with tempfile.TemporaryDirectory() as name:
        files = Path(name, "images")
        jpegs(files, 0 if b.dry else 0.7, b.size(450, 64))
        dataset, augment = (
            load(get_spec("custom"), "train", files),
            BatchAugment([symmetric(b.size(224, 32))], MEAN, STD),
        )
        with mock.patch.object(images, "UNASKED_BYTES", 0):
            fresh = images.cached(dataset, augment)
        kept = images.cached(dataset, augment, folder=str(Path(name, "cache")), asked=True)
        kept.fetch(range(len(kept)))
        for source, where in (("files", fresh), ("cache", kept)):
            for workers in (0,) if b.dry else (4, 15):
                batches = iter(BatchLoader(where, augment, b.size(64, 16), workers, 0, b.device))
                for _ in range(max(1, workers)):  # those that all of them have begun with
                    next(batches)
                b.wait()
                start, count = time.perf_counter(), sum(len(indexes) for indexes, _, _ in batches)
                b.wait()
                rate = round(count / (time.perf_counter() - start))
                yield {"loader": source, "workers": workers, "images_per_s": rate}


def runs(b: Bench) -> Iterator[Row]:
    """Whole runs: what `summary.json` says, the speed as a share of the network's alone, how busy the device was."""
    for folder, recipe, epochs in (("digits", "simclr", 20), ("digits", "hex", 20)):
        with tempfile.TemporaryDirectory() as place:
            words = [f"max_epochs={b.size(epochs, 1)}", f"checkpoint.dir={place}", "progress=off"]
            words += [f"accelerator={b.device.type}".replace("cuda", "gpu"), "data.num_workers=0"]
            words += ["data.fraction=0.2"] if b.dry else []
            place_of = [f"scripts/pretrain/{folder}", f"{recipe}.yaml"]
            command = [sys.executable, "-m", "solo", "pretrain", *place_of, *words]
            with busy(b) as shares:
                subprocess.run(command, check=True, capture_output=True, timeout=120)
            summary = json.loads(next(Path(place).rglob("summary.json")).read_text())
            values, origins = compose(find_recipe(place_of), words)
            alone = network_alone(b, parse(values, PretrainCfg, origins).config)
        names = ("images_per_second", "data_wait", "peak_memory_mb", "mfu")
        row = {"run": f"{folder}/{recipe}", **{name: summary.get(name) for name in names}}
        yield {**row, "to_network_alone": (summary.get("images_per_second") or 0) / alone, "busy": middle(shares)}


def network_alone(b: Bench, cfg: PretrainCfg) -> float:
    """Images/s of the run's network, loss and optimizer on random tensors."""
    side, channels = cfg.augmentations[0].crop_size, cfg.data.channels or cfg.data.spec.channels
    rows = cfg.optimizer.batch_size
    noise = [torch.randn(rows, channels, side, side, device=b.device) for _ in range(2)]
    ids = torch.arange(rows, device=b.device).repeat(2)
    step = Program(cfg, forever([(noise,)]), lambda *views: simclr_loss_func(torch.cat(views), ids))
    step.half = not b.dry
    step()
    return 1000 * rows / b.ms(step)[0]


@contextlib.contextmanager
def busy(b: Bench) -> Iterator[list[float]]:
    """Shares of time in which the device ran any kernel, five a second, by nvidia-smi; complete after the block."""
    shares: list[float] = []
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0", "--loop-ms=200"]
    with contextlib.ExitStack() as stack:
        if not b.dry and shutil.which("nvidia-smi"):
            asked = stack.enter_context(subprocess.Popen(query, stdout=subprocess.PIPE, text=True))
            stack.callback(lambda: shares.extend(int(x) / 100 for x in asked.communicate()[0].split() if x.isdigit()))
            stack.callback(asked.terminate)
        yield shares


def middle(shares: list[float]) -> float | None:
    """The mean between the first and the last use, without the start of the program."""
    used = [place for place, share in enumerate(shares) if share > 0]
    return statistics.mean(shares[used[0] : used[-1] + 1]) if used else None


PARTS = (yardstick, networks, augmentation, losses, truth, knn, sync_norms, runs, loader)


def main() -> None:
    """Measure part by part; one that fails is a row with its error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry", action="store_true", help="on a CPU, next to nothing")
    parser.add_argument("--parts", nargs="+", choices=[part.__name__ for part in PARTS])
    given = parser.parse_args()
    if not given.dry and not torch.cuda.is_available():
        parser.error("no GPU is visible; --dry tries the program on a CPU")
    bench, started = Bench(given.dry), time.perf_counter()
    card = "none" if given.dry else torch.cuda.get_device_name()
    rows: list[Row] = [{"card": card, "torch": torch.__version__, "dry": given.dry}]
    for part in PARTS:
        if given.parts and part.__name__ not in given.parts:
            continue
        try:
            if time.perf_counter() - started > 300:
                raise TimeoutError("left out, the six minutes are nearly over")
            for row in part(bench):
                rows.append({"part": part.__name__, **row, "at_s": round(time.perf_counter() - started, 1)})
                given.out.write_text(json.dumps(rows, indent=1) + "\n")
                print(rows[-1], flush=True)
        except Exception as error:
            rows.append({"part": part.__name__, "error": one_line(error)})
            given.out.write_text(json.dumps(rows, indent=1) + "\n")
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
