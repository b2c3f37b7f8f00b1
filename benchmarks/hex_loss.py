"""Time and memory of the HEX loss against the same loss as a chain of n x n tensors.

    python benchmarks/hex_loss.py [--rows 4096] [--dim 128] [--threads 1] [--device cpu]

Prints one line a form: forward and backward in seconds (best of three), peak extra memory, and the ratio to ours. The
dense form is the formula written with whole matrices and autograd, the way public code does it (its threshold by a
full sort, too). On a GPU a third line is ours by kernels (`performance.fused_loss`).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from solo.hex import AdaptivePercentile, HEXLoss


def dense_hex(z0: Tensor, z1: Tensor, temperature: float = 0.1, beta: float = 1.0, tau_plus: float = 0.1) -> Tensor:
    """The re-weighted HEX loss with whole n x n matrices."""
    z = torch.nn.functional.normalize(torch.cat((z0, z1)))
    n = len(z)
    similarity = z @ z.T
    eye = torch.eye(n, dtype=torch.bool, device=z.device)
    positive = torch.roll(eye, n // 2, dims=1)
    negative = ~eye & ~positive
    threshold = similarity.detach().sort(dim=1).values[:, round(0.99 * (n - 1))].mean()
    local = (similarity.detach() > threshold) & negative
    exp = torch.exp(similarity / temperature)
    top = (exp * positive).sum(dim=1)
    rest = (exp * (negative & ~local)).sum(dim=1)
    size = local.sum(dim=1)
    weight = torch.exp(beta * similarity / temperature) * local
    reweighted = (weight * exp).sum(dim=1) / (weight.sum(dim=1) / size.clamp_min(1)).clamp_min(1e-30)
    floor = size * torch.exp(torch.tensor(-1 / temperature, device=z.device))
    debiased = torch.maximum((reweighted - tau_plus * size * top) / (1 - tau_plus), floor)
    return -torch.log(top / (top + rest + debiased)).mean()


def measure(form: str, rows: int, dim: int, device: str) -> None:
    """Print seconds and extra MiB of one form, in this process."""
    loss_fn: Callable[[Tensor, Tensor], Tensor] = (
        dense_hex
        if form == "dense"
        else HEXLoss(policy=AdaptivePercentile(0.99, warm_epoch=0), fused=form == "kernels")
    )
    torch.manual_seed(0)
    base = torch.randn(rows // 2, dim, device=device)
    views = [(base + 0.5 * torch.randn_like(base)).requires_grad_() for _ in range(2)]
    cuda = device.startswith("cuda")
    before = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        loss = loss_fn(*views)
        loss.backward()
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    after = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(best, (after - before) / 2**20, loss.item())


def main() -> None:
    """Measure each form in a process of its own, so that peaks do not mix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096, help="n = views x batch")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--form", choices=["ours", "kernels", "dense"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.form:
        measure(args.form, args.rows, args.dim, args.device)
        return
    results = {}
    for form in ("ours", *(["kernels"] if args.device.startswith("cuda") else []), "dense"):
        line = subprocess.run([sys.executable, *sys.argv, "--form", form], check=True, capture_output=True, text=True)
        results[form] = [float(value) for value in line.stdout.split()]
    print(f"HEX loss, forward and backward, n = {args.rows}, d = {args.dim}, {args.device}, {args.threads} thread(s)")
    for form, (seconds, mib, loss) in results.items():
        ratio = seconds / results["ours"][0], mib / max(results["ours"][1], 1.0)
        print(
            f"{form:7} {seconds:7.3f} s  {mib:7.0f} MiB  loss {loss:.6f}  x{ratio[0]:.1f} time  x{ratio[1]:.1f} memory"
        )


if __name__ == "__main__":
    main()
