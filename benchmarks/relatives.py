"""Memory and time of relatives from another eye, on synthetic embeddings; and what they add to a training step.

    python benchmarks/relatives.py [--images 1000000] [--classes 100000] [--dim 128] [--threads 1] [--step]

Without `--step`: the table (n, 10) of each rule and the bank, drawing and storing a batch of 256; neighbours of 1,024
images among all, and from these what all of them take. With `--step`: CPU seconds of making the views of 256 images of
32 x 32 pixels and of a whole training step of SimCLR, with `type=HEX` (relatives shown) and `type=neighbours` (pulled)
against `type=standard`, in turn; the network is the smallest of the recipes, so that what is added weighs most.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from solo.eval.knn import nearest
from solo.hex.relatives import Bank, Eye, Neighbours, Oracle, RandomSet, Shuffled

BATCH, IMAGES, STEPS = 256, 50_000, 26


def peak() -> float:
    """Largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Run it and print seconds, and by how much the peak has risen."""
    before, start = peak(), time.perf_counter()
    found = work()
    print(f"{name:<44} {time.perf_counter() - start:9.3f} s  {max(0.0, peak() - before):9.0f} MiB more at the peak")
    return found


def tables(images: int, classes: int, dim: int) -> None:
    """Print what rules and bank cost."""
    torch.manual_seed(0)
    labels, found = torch.randint(classes, (images,)), torch.randint(images, (images, 10), dtype=torch.int32)
    eye = Eye(lambda k: found[:, :k], lambda: torch.empty(0), labels, torch.Generator().manual_seed(0))
    for rule in (Neighbours(), Neighbours(mutual=True), Shuffled(), RandomSet(), Oracle(purity=0.6)):
        name = "Neighbours, mutual" if getattr(rule, "mutual", False) else type(rule).__name__
        timed(f"table of {name}", lambda rule=rule: rule.table(eye))
    bank, rows = Bank(drawn=4), torch.randn(BATCH, dim)
    bank.use(found)
    timed("bank, first batch stored", lambda: bank.store(torch.arange(BATCH), rows))
    ids = torch.randint(images, (BATCH,))
    timed("bank, a batch drawn and stored", lambda: (bank.draw(ids, rows), bank.store(ids, rows)))
    sizes = {"table": bank.table, "bank": bank.rows}
    print(
        ", ".join(
            f"{name} {x.numel() * x.element_size() / 2**20:,.0f} MiB" for name, x in sizes.items() if x is not None
        )
    )
    seen = torch.randn(images, 392)  # as HOG
    start = time.perf_counter()
    nearest(seen[:1024], seen, 11)
    print(f"neighbours of all by HOG at this speed: {(time.perf_counter() - start) * images / 1024 / 3600:.2f} h")


def step() -> None:
    """Print the added time of a step, and of making its views."""
    import numpy as np
    from omegaconf import OmegaConf

    from solo.data.batches.loaders import BatchLoader
    from solo.data.cache import cached
    from solo.data.sources.images import ArrayDataset
    from solo.data.views.batched import BatchAugment, Shown
    from solo.methods import METHODS

    size = {"crop_size": 32, "num_crops": 2}
    crop = {"rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0}}
    jitter = {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
    maker = BatchAugment([size | crop | {"color_jitter": jitter, "grayscale": {"prob": 0.2}}], (0.5,) * 3, (0.25,) * 3)
    rng, table = np.random.default_rng(0), torch.randint(IMAGES, (IMAGES, 10), dtype=torch.int32)
    images = ArrayDataset(rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8), [0] * IMAGES)
    models, batches = {}, {}
    for kind in ("standard", "HEX", "neighbours"):
        cfg = OmegaConf.create(
            {
                "method": "simclr",
                "max_epochs": 100,
                "type": kind,
                "backbone": {"name": "resnet10", "kwargs": {"width": 24}},
                "data": {"dataset": "cifar10", "num_classes": 10},
                "method_kwargs": {"proj_hidden_dim": 256, "proj_output_dim": 128, "temperature": 0.2},
                "optimizer": {"name": "sgd", "batch_size": BATCH, "lr": 0.1},
                "scheduler": {"name": "none"},
                **({"hex": {"warm_epoch": 0}} if kind == "neighbours" else {}),
            }
        )
        models[kind] = METHODS["simclr"](cfg).train()
        shown = Shown(table, 0.8) if kind == "HEX" else None
        batches[kind] = iter(BatchLoader(cached(images, maker), maker, BATCH, seed=0, shown=shown))
    bank = models["neighbours"].hex.bank
    assert bank is not None
    bank.use(table)
    bank.store(torch.arange(IMAGES), torch.randn(IMAGES, 128))
    seconds: dict[str, list[float]] = {kind: [] for kind in models}
    for turn in range(STEPS):
        for kind in sorted(models, key=lambda kind: hash((kind, turn))):
            start = time.process_time()
            loss: Tensor = models[kind].training_step(next(batches[kind]), turn)
            loss.backward()
            models[kind].zero_grad()
            if turn > 1:
                seconds[kind].append(time.process_time() - start)
    print(f"a step with its views: {statistics.median(seconds['standard']):.3f} s")
    for kind, told in (("HEX", "relatives shown"), ("neighbours", "relatives pulled")):
        added = [b / a - 1 for a, b in zip(seconds["standard"], seconds[kind], strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        print(f"{told}: median of the pairs' differences {middle:+.1%}, quartiles {low:+.1%} and {high:+.1%}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.step:
        step()
    else:
        tables(args.images, args.classes, args.dim)


if __name__ == "__main__":
    main()
