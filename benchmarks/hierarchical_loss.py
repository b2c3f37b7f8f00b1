"""Time of the hierarchical multi-label losses against SupCon's.

    python benchmarks/hierarchical_loss.py [--batch 512] [--views 2] [--levels 4] [--dim 128] [--threads 1]

Prints forward and backward in milliseconds of processor time (the best of several, the losses taking turns) and the
ratio to SupCon: the same loss with one level of labels, and solo-learn's form, `simclr_loss_func` with labels for ids.
Then the hierarchical loss the way public code computes it, with a matrix product a level.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from solo.losses import HierarchicalContrastiveLoss, simclr_loss_func


def dense_himulcon(features: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """HiMulCon with whole matrices, a product and a softmax a level."""
    views, levels = features.shape[1], labels.shape[1]
    z = F.normalize(torch.cat(features.unbind(1)), dim=1)
    labels = labels.repeat(views, 1)
    own = torch.eye(len(z), dtype=torch.bool)
    deeper = torch.zeros_like(own)
    total = z.new_zeros(())
    for level in reversed(range(levels)):
        shared = (labels[:, None, : level + 1] == labels[None, :, : level + 1]).all(dim=2) & ~own
        partner = (shared & ~deeper).float()
        log_prob = ((z @ z.T) / temperature).masked_fill(own, -1e9).log_softmax(dim=1)
        count = partner.sum(dim=1)
        means = -(partner * log_prob).sum(dim=1)[count > 0] / count[count > 0]
        if len(means):
            total = total + 2 ** (1 / (levels - level)) * means.mean()
        deeper = shared
    return total / levels


def main() -> None:
    """Measure all losses on one batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    features = torch.randn(given.batch, given.views, given.dim, requires_grad=True)
    # Every node has four children, the last level is the instance.
    leaf = torch.randint(0, 4 ** (given.levels - 1), (given.batch,))
    columns = [leaf // 4 ** (given.levels - 2 - level) for level in range(given.levels - 1)]
    labels = torch.stack([*columns, torch.arange(given.batch)], dim=1)
    flat = labels[:, max(0, given.levels - 2), None]
    losses: dict[str, Callable[[], Tensor]] = {
        "SupCon (one level)": lambda: HierarchicalContrastiveLoss("himulcon")(features, flat),
        "SupCon (solo-learn's form)": lambda: simclr_loss_func(
            torch.cat(features.unbind(1)), flat[:, 0].repeat(given.views)
        ),
        "himulcon": lambda: HierarchicalContrastiveLoss("himulcon")(features, labels),
        "hicone": lambda: HierarchicalContrastiveLoss("hicone")(features, labels),
        "himulcone": lambda: HierarchicalContrastiveLoss("himulcone")(features, labels),
        "himulcone, cumulative": lambda: HierarchicalContrastiveLoss(pairs="cumulative")(features, labels),
        "himulcone, layer": lambda: HierarchicalContrastiveLoss(granularity="layer")(features, labels),
        "himulcon, a product a level": lambda: dense_himulcon(features, labels),
    }
    best = dict.fromkeys(losses, float("inf"))
    for _ in range(given.repeats):
        for name, loss in losses.items():
            start = time.process_time()
            torch.autograd.grad(loss(), features)
            best[name] = min(best[name], time.process_time() - start)
    shape = f"B = {given.batch}, V = {given.views}, L = {given.levels}, d = {given.dim}, {given.threads} thread(s)"
    print(f"forward and backward, {shape}; in brackets the ratio to SupCon (one level; solo-learn's form)")
    own, joint = best["SupCon (one level)"], best["SupCon (solo-learn's form)"]
    for name, seconds in best.items():
        print(f"{name:30} {1000 * seconds:8.1f} ms   ({seconds / own:.2f}; {seconds / joint:.2f})")


if __name__ == "__main__":
    main()
