"""What cheaper training saves: token dropout, smaller views, activations that are computed again, a mean of weights.

    python benchmarks/cheaper.py [--side 32] [--patch 4] [--batch 64] [--rounds 5]

One step of SimCLR (forward, loss, backward, AdamW) on a small ViT, in all forms in turn within one process, so that
whatever else runs here disturbs all of them alike. Time is the least processor time of a step, memory what autograd
keeps of the forward pass; both as ratios to the step as it is. Accuracy is not measured here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from solo.backbones import build_backbone
from solo.callbacks.optional import shrunk
from solo.losses import simclr_loss_func

Step = Callable[[Tensor], Tensor]


def step_of(
    given: argparse.Namespace, share: float = 1.0, again: bool = False, ema: bool = False, **kwargs: Any
) -> Step:
    """Images -> the loss of a step that has been made."""
    torch.manual_seed(0)
    size = {"patch_size": given.patch, "depth": 6, "embed_dim": 192, "num_heads": 3}
    network: Any = build_backbone("vit_tiny", image_size=given.side, several_sizes=share < 1, kwargs={**size, **kwargs})
    network.set_grad_checkpointing(again)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    mean = {name: value.clone() for name, value in network.state_dict().items()}

    def step(images: Tensor) -> Tensor:
        views = shrunk(images, share, given.patch) if share < 1 else images
        loss = simclr_loss_func(network(views), torch.arange(len(images) // 2).repeat(2), 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, value in network.state_dict().items() if ema else ():
            mean[name].lerp_(value, 0.01)
        return loss

    return step


def kept(step: Step, images: Tensor) -> int:
    """Bytes that autograd keeps of a forward pass, each storage once."""
    seen: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        step(images)
    return sum(seen.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("side", 32), ("patch", 4), ("batch", 64), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    forms = {
        "as it is": step_of(given),
        "backbone.kwargs.patch_drop_rate=0.5": step_of(given, patch_drop_rate=0.5),
        "data.resolution_schedule, in a part of 0.5": step_of(given, share=0.5),
        "data.resolution_schedule, in a part of 0.75": step_of(given, share=0.75),
        "performance.grad_checkpointing=true": step_of(given, again=True),
        "checkpoint.ema=0.99": step_of(given, ema=True),
    }
    images = torch.randn(2 * given.batch, 3, given.side, given.side)
    seconds = dict.fromkeys(forms, float("inf"))
    for _ in range(given.rounds):
        for name, step in forms.items():
            start = time.process_time()
            step(images)
            seconds[name] = min(seconds[name], time.process_time() - start)
    memory = {name: kept(step, images) for name, step in forms.items()}
    table = Table("", "time", "memory", title=f"{given.batch} images of {given.side} pixels, patches of {given.patch}")
    first = next(iter(forms))
    for name in forms:
        table.add_row(name, f"{seconds[name] / seconds[first]:.2f}", f"{memory[name] / memory[first]:.2f}")
    Console().print(table)
    print(f"one step as it is: {1000 * seconds[first]:.0f} ms, {memory[first] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
