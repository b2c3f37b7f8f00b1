"""Memory and time of relatives from another eye, on synthetic embeddings; and what they add to a training step.

    python benchmarks/relatives.py [--images 1000000] [--classes 100000] [--dim 128] [--threads 1] [--step]

Without `--step`: the table (n, 10) of each rule and the bank, drawing and storing a batch of 256; neighbours of 1,024
images among all, and from these what all of them take. With `--step`: CPU seconds of a whole training step of SimCLR on
32 x 32 pixels and batches of 256, with `type=neighbours` against `type=standard`, step by step in turn; the network is
the smallest of the recipes, so that what is added weighs most.
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

BATCH = 256


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
    """Print the added time of a step."""
    from omegaconf import OmegaConf

    from solo.methods import METHODS

    models = {}
    for kind in ("standard", "neighbours"):
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
    bank = models["neighbours"].hex.bank
    assert bank is not None
    bank.use(torch.randint(50_000, (50_000, 10)))
    bank.store(torch.arange(50_000), torch.randn(50_000, 128))
    views, seconds = [torch.randn(BATCH, 3, 32, 32) for _ in range(2)], {kind: [] for kind in models}
    for turn in range(8):
        for kind, model in models.items():
            batch = [torch.randint(50_000, (BATCH,)), views, torch.randint(10, (BATCH,))]
            start = time.process_time()
            loss: Tensor = model.training_step(batch, turn)
            loss.backward()
            model.zero_grad()
            if turn > 1:
                seconds[kind].append(time.process_time() - start)
    plain, ours = (statistics.median(seconds[kind]) for kind in models)
    pairs = zip(seconds["standard"], seconds["neighbours"], strict=True)
    added = statistics.median(b / a - 1 for a, b in pairs)
    print(f"a step: {plain:.3f} s, with neighbours {ours:.3f} s; median of the pairs' differences {added:+.1%}")


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
