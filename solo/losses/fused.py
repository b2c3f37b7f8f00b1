"""InfoNCE, SupCon and HEX by kernels that make each cosine where it is used, so that no block of them is in memory.

As in attention, a first pass makes what an anchor needs of its keys (log-sum-exps, counts), online; a second one the
terms of its positives; for the gradient the cosines are made again, once for the anchors' and once for the keys'.
In a ring (`RingPairs`) each pass is made in turns. The quantiles of `HEX_adaptive` are found by counting.

Products of float32 are made of three of TF32: one alone would change a loss of temperature 0.1 by thousandths. The
kernels need CUDA and Triton; with TRITON_INTERPRET=1 they run on a CPU, to be tested.
"""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solo.errors import UserError
from solo.losses.pairs import Pairs

BLOCK, TILE = 64, 32  # rows of a program, and how many of the others it takes at once: what fits in registers
COLUMNS = 128  # of a gradient that a program makes at once


class Choice(NamedTuple):
    """Who is a hierarchy negative, as kernels can tell, and what is done with these."""

    chooses: bool = False  # there are any
    cut: Tensor | float = math.inf  # negatives with a cosine above it, one for all anchors or (M,)
    named: bool = False  # and those of the anchor's known group
    weigh: bool = True  # they have a local term, or else leave the denominator
    own: bool = True  # the positive is in its denominator
    beta: float = 0.0
    tau_plus: float = 0.0


def check_device(device: torch.device) -> None:
    """Raise a `UserError` where kernels can't run: no CUDA device, or no Triton."""
    runs = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    if not runs or find_spec("triton") is None:
        missing = "the package triton, which isn't installed" if runs else f"a CUDA device, not {device.type}"
        raise UserError(f"performance.fused_loss=true needs {missing}; leave it out, the loss is the same")


def launch(kernel: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Start a kernel on the device of its first argument."""
    from solo.losses import fused_kernels

    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        getattr(fused_kernels, kernel)[grid](*arguments, **constants, num_warps=8, enable_fp_fusion=True)


class _Kernels:
    """What kernels need of `pairs`, with the keys that these have at the moment."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs, self.anchors = pairs, pairs.anchors.detach().contiguous()
        device, self.width = self.anchors.device, self.anchors.shape[1]
        self.power = max(16, 1 << (self.width - 1).bit_length())  # of two, of 16, which a product has at least
        check_device(device)
        card = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
        self.programs = 2 * card.multi_processor_count if card else 4  # what keeps a device busy
        split = self.anchors.dtype == torch.float32 and not torch.version.hip and (card is None or card.major >= 8)
        self.tiles = {"WIDTH": self.width, "PART": min(self.power, TILE), "PRECISION": "tf32x3" if split else "ieee"}

    def rows(self) -> tuple[Tensor, ...]:
        """Anchors and keys, their ids, and their groups or, where there are none, the ids again."""
        pairs = self.pairs
        labels = [pairs.anchor_ids, pairs.key_ids]
        groups = [x for x in (pairs.anchor_groups, pairs.key_groups) if x is not None]
        labels += groups if len(groups) == 2 else labels
        return self.anchors, pairs.keys.detach().contiguous(), *(x.long().contiguous() for x in labels)

    def offset(self) -> int:
        """Which key anchor 0 is: where it is none, one that there isn't."""
        return -1 - len(self.anchors) if self.pairs.offset is None else self.pairs.offset

    def shares(self, mine: int, others: int) -> tuple[tuple[int, int], int]:
        """Blocks of `mine`, and programs for each with a share of the others; the length of a share."""
        blocks, tiles = -(-mine // BLOCK), -(-others // TILE)
        length = max(1, -(-tiles // max(1, self.programs // max(1, blocks))))
        return (blocks, -(-tiles // length)), length * TILE


def fused_sum(loss: Any, d_anchors: Tensor | None, d_keys: Tensor | None) -> Tensor:
    """The summed loss of all rows of an ``InfoNCERows``; adds its gradients to those that are wanted."""
    pairs: Pairs = loss.pairs
    choice = loss.choice()
    scale = loss.inverse_temperature
    anchors = pairs.anchors
    of = _Kernels(pairs)
    if choice.named:
        pairs.same_group(slice(0, 0))  # says so where there are no groups
    cut = anchors.new_zeros(len(anchors)) + choice.cut
    inside, weigh = loss.positives == "inside", choice.chooses and choice.weigh
    words = {**of.tiles, "INSIDE": inside, "WEIGH": weigh}
    chosen = {"CHOOSES": choice.chooses, "NAMED": choice.named}
    rows = {"ROWS": BLOCK, "KEYS": TILE}
    m, n, first = len(anchors), len(pairs.keys), pairs.positives_only

    numbers: Tensor | None = None
    groups = pairs.anchor_groups is not None and pairs.key_groups is not None
    grid, share = of.shares(m, n)
    for _ in pairs.turns():
        out = anchors.new_empty(grid[1], 8, m)
        settings: tuple[Any, ...] = (m, n, of.offset(), first, share, scale, choice.beta)
        launch("statistics", grid, *of.rows(), cut, out, *settings, **words, **chosen, **rows, GROUPS=groups)
        out = out if numbers is None else torch.cat([numbers[None], out])
        numbers = torch.cat([out[:, :4].logsumexp(dim=0), out[:, 4:].sum(dim=0)])
    assert numbers is not None

    terms, k = anchors.new_zeros(6, m), 1 if inside else n
    grid, share = of.shares(m, k)
    for _ in (True,) if inside else pairs.turns():
        out = anchors.new_empty(grid[1], 6, m)
        settings = (m, k, of.offset(), share, scale, choice.tau_plus)
        launch("scores", grid, *of.rows()[:4], numbers, out, *settings, **words, **rows, OWN=choice.own)
        terms += out.sum(dim=0)

    columns = min(of.power, COLUMNS)
    for _ in pairs.turns(d_keys):
        for to_keys, total in ((False, d_anchors), (True, d_keys)):
            if total is None:
                continue
            grid, share = of.shares(*((n, m) if to_keys else (m, n)))
            out = anchors.new_empty(grid[1], *total.shape)
            rows = {"ROWS": TILE, "KEYS": BLOCK} if to_keys else {"ROWS": BLOCK, "KEYS": TILE}
            settings = (m, n, of.offset(), first, share, scale, choice.beta, choice.tau_plus)
            more = {**words, **chosen, **rows, "OWN": choice.own, "TO_KEYS": to_keys, "COLUMNS": columns}
            grid3 = (*grid, -(-of.width // columns))
            launch("gradient", grid3, *of.rows(), cut, numbers, terms, out, *settings, **more)
            total += out.sum(dim=0)
    loss.see(numbers, terms)
    return terms[0].sum()


def _counted(pairs: Pairs, cuts: Tensor) -> tuple[Tensor, Tensor]:
    """How many cosines of each anchor are above each of its ascending cuts (8, M); and the lowest of all, (M,)."""
    of, m, n, first = _Kernels(pairs), len(pairs.anchors), len(pairs.keys), pairs.positives_only
    grid, share = of.shares(m, n - first)
    found = cuts.new_empty(grid[1], m, 8, dtype=torch.int32)
    lowest = cuts.new_empty(grid[1], m)
    sizes = (m, n, first, share)
    launch("counts", grid, *of.rows()[:2], cuts, found, lowest, *sizes, **of.tiles, ROWS=BLOCK, KEYS=TILE)
    return found.sum(dim=0).flip(1).cumsum(dim=1).flip(1).T, lowest.amin(dim=0)


@torch.no_grad()
def lowest_cosine(pairs: Pairs) -> Tensor:
    """The lowest cosine of each anchor with whoever can be a negative, (M,)."""
    return _counted(pairs, pairs.anchors.new_zeros(8, len(pairs.anchors)))[1]


@torch.no_grad()
def row_quantile(pairs: Pairs, quantile: float) -> Tensor:
    """The nearest quantile of each anchor's cosines with whoever can be a negative, (M,), by counting.

    It is above that cosine by what float32 (float64) rounds at most, so that nobody is above the one and not the other.
    """
    n = len(pairs.keys) - pairs.positives_only
    place = n - round(quantile * (n - 1))  # counted from the largest, which is 1
    edges = pairs.anchors.new_full((2, len(pairs.anchors)), 1.01)
    edges[0] = -1.01
    ninths = torch.arange(1, 9, device=edges.device)[:, None] / 9.0
    for _ in range(17 if edges.dtype == torch.float64 else 8):  # 9^8 is more than 2^25, and 9^17 than 2^53
        cuts = (edges[0] + (edges[1] - edges[0]) * ninths.to(edges)).contiguous()
        below = (_counted(pairs, cuts)[0] >= place).sum(dim=0, keepdim=True)  # cuts that are below it
        around = torch.cat([edges[:1], cuts, edges[1:]])
        edges = around.gather(0, torch.cat([below, below + 1]))
    return edges[1]
