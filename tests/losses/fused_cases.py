"""Losses by kernels, in Triton's interpreter, and without them: `python -m tests.losses.fused_cases OUT CASE ...`.

A program of its own, for the interpreter has to be chosen before anybody imports Triton. It writes for each case what
was found, or the error.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from solo import distributed
from solo.doctor.parity import on_processes
from solo.hex import AdaptivePercentile, Constant, FixedThreshold, Superclass, hex_nce
from solo.hex.policy import EveryNegative, NoNegative, Policy, WithNamed
from solo.losses import fused, info_nce
from solo.losses.pairs import Pairs, RingPairs
from tests.losses import reference

N, D = 70, 20  # two blocks and three tiles; neither is a power of two
GENERATOR = torch.Generator().manual_seed(0)
VIEWS, CLASSES, GROUPS = torch.arange(N // 2).repeat(2), torch.arange(N) % 7, (torch.arange(N) % 4) - 1
ALONE = torch.cat([torch.arange(10).repeat(2), torch.arange(100, 100 + N - 20)])
RANDOM = torch.randn(N, D, dtype=torch.float64, generator=GENERATOR)
CLOSE = RANDOM[:9].repeat(8, 1)[:N] + 0.3 * RANDOM
TABLE: dict[str, Policy] = {
    "adaptive": AdaptivePercentile(0.9, 0),
    "low quantile": AdaptivePercentile(0.2, 0),
    "fixed": FixedThreshold(Constant(0.7)),
    "cosine": FixedThreshold(Constant(0.3), "cosine"),
    "superclass": Superclass(),
    "named": WithNamed(AdaptivePercentile(0.9, 0)),
    "hcl": EveryNegative(),
    "dcl": NoNegative(),
}


class Case(NamedTuple):
    """A loss of some rows; settings are powers of two, which float32 holds as they are."""

    policy: str = ""  # none: InfoNCE
    ids: Tensor = VIEWS
    positives: Any = "outside"
    z: Tensor = CLOSE
    temperature: float = 0.25
    words: dict[str, Any] = {}  # for `hex_nce`
    pairs: Callable[[Tensor, Tensor], Pairs] | None = None
    dtype: torch.dtype = torch.float32

    def loss(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and what it records."""
        if not self.policy:
            return info_nce(pairs, self.temperature, self.positives), {}
        words = {"tau_plus": 0.125, **self.words}
        return hex_nce(pairs, TABLE[self.policy], temperature=self.temperature, positives=self.positives, **words)

    def found(self, kernels: bool, dtype: torch.dtype) -> list[Tensor]:
        """Loss, gradient, records in the order of their names."""
        z = self.z.to(dtype if self.dtype == torch.float32 else self.dtype).requires_grad_()
        pairs = self.pairs(z, self.ids) if self.pairs else Pairs.from_ids(z, self.ids, GROUPS[: len(z)])
        value, stats = self.loss(dataclasses.replace(pairs, fused=kernels))
        gradient = torch.autograd.grad(value, z)[0]
        return [x.detach().double() for x in (value, gradient, *(stats[key] for key in sorted(stats)))]

    def loops(self) -> list[Tensor]:
        """Loss and gradient of the references."""
        z = self.z.clone().requires_grad_()
        if self.policy:
            pairs = Pairs.from_ids(z, self.ids, GROUPS)
            selector = TABLE[self.policy].selector(pairs, 0, 1)
            assert selector is not None
            chosen, words = selector(pairs.similarity(slice(0, N)), slice(0, N)), {"beta": 1.0, **self.words}
            settings = (
                self.temperature,
                words["beta"],
                words.get("tau_plus", 0.125),
                words.get("variant") == "release",
            )
            value = reference.hex_loss(z, self.ids, chosen, *settings)
        else:
            value = reference.info_nce(z, self.ids, self.temperature, self.positives == "inside")
        return [value.detach(), torch.autograd.grad(value, z)[0]]


def queue(z: Tensor, ids: Tensor) -> Pairs:
    """16 anchors with a key each, and a queue."""
    return Pairs.with_queue(z[:16], z[16:32], z[32:], GROUPS[:16], GROUPS[32:])


INSIDE, RELEASE = {"positives": "inside"}, {"words": {"variant": "release"}}
LOOPS = {
    "info_nce": Case(),
    "info_nce, classes": Case(ids=CLASSES),
    "info_nce, inside": Case(ids=CLASSES, **INSIDE),
    "adaptive": Case("adaptive"),
    "adaptive, classes": Case("adaptive", CLASSES),
    "fixed, tau_plus 0": Case("fixed", CLASSES, words={"tau_plus": 0.0, "beta": 0.5}),
    "superclass": Case("superclass"),
    "release": Case("cosine", CLASSES, **RELEASE),
    "alone": Case("named", ALONE),
}
USUAL = {
    "one row": Case(z=RANDOM[:1], ids=VIEWS[:1]),
    "no positives": Case("adaptive", torch.arange(N)),
    "one id": Case("adaptive", torch.zeros(N, dtype=torch.long)),
    "equal rows": Case("adaptive", z=torch.ones(N, D)),
    "equal rows, cold": Case(z=torch.ones(N, D), temperature=1 / 128, ids=CLASSES),
    "zero rows": Case("hcl", z=RANDOM * (torch.arange(N) % 2)[:, None]),
    # float32's cosines, times 128, are known to 1e-5 only, in blocks as well; so is a term just above its bound.
    "cold": Case("fixed", CLASSES, z=RANDOM, temperature=1 / 128, dtype=torch.float64),
    "bounded": Case("hcl", CLASSES, z=RANDOM, words={"tau_plus": 0.75}, dtype=torch.float64),
    "nobody": Case("dcl", **RELEASE),
    "all dropped": Case("cosine", z=RANDOM + 9, words={"variant": "release"}),
    "low quantile": Case("low quantile", words={"beta": 0.0}),
    "inside": Case("named", CLASSES, **INSIDE),
    "inside, release": Case("cosine", CLASSES, **INSIDE, **RELEASE),
    "queue": Case("adaptive", pairs=queue),
    "queue, scaled rows": Case("fixed", pairs=queue),
    "between": Case("hcl", pairs=lambda z, ids: Pairs.between(z[:35], z[35:], ids[:35], GROUPS[:35])),
    "bfloat16": Case("adaptive", dtype=torch.bfloat16),
    "half": Case(ids=CLASSES, dtype=torch.float16),
    "narrow": Case("adaptive", z=CLOSE[:, :3]),
    "wide": Case("adaptive", z=CLOSE.repeat(1, 8)),  # more columns than a program has
    "nan": Case("adaptive", z=CLOSE.where(torch.arange(N)[:, None] > 0, torch.nan)),
}
CASES = {**{f"loops: {name}": case for name, case in LOOPS.items()}, **USUAL}


def quantiles() -> list[list[Tensor]]:
    """By counting, and by sorting."""
    pairs = Pairs.from_ids(CLOSE.float(), VIEWS)
    s = pairs.similarity(slice(0, N))
    found = [fused.row_quantile(pairs, q) for q in (0.0, 0.3, 0.99, 1.0)] + [fused.lowest_cosine(pairs)]
    sorted_ = [torch.quantile(s, q, dim=1, interpolation="nearest") for q in (0.0, 0.3, 0.99, 1.0, 0.0)]
    return [found, sorted_]


def right_derivative() -> bool:
    """Numerical gradients, in float64."""
    z = CLOSE[:9, :4].clone().requires_grad_()
    cases = [
        Case(policy, torch.arange(9) % 4, where) for policy in ("", "cosine", "hcl") for where in ("outside", "inside")
    ]
    return all(
        torch.autograd.gradcheck(
            lambda z, c=case: c.loss(dataclasses.replace(Pairs.from_ids(z, c.ids), fused=True))[0], z
        )
        for case in cases
    )


def _of_a_process(ring: bool) -> list[tuple[str, list[Tensor], list[Tensor]]]:
    found = []
    z = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(distributed.rank())) + 0.5
    labels = torch.arange(6) % 4 + 10 * (distributed.rank() == 1) * (torch.arange(6) == 0)
    for name in ("", "adaptive", "fixed", "superclass"):
        for where in ("outside", "inside"):
            both = []
            for kernels in (True, False):
                views = z.clone().requires_grad_()
                kind = RingPairs if ring and kernels else Pairs
                pairs = dataclasses.replace(kind.from_views(views, labels, labels % 2), fused=kernels)
                value, stats = Case(name, positives=where).loss(pairs)
                gradient = torch.autograd.grad(2 * value, views)[0]
                both.append([value.detach(), gradient, *(stats[key] for key in sorted(stats))])
            found.append((f"{name} {where}", *both))
    return found


def processes(ring: bool) -> Any:
    """Kernels in two processes, whose keys are gathered or pass from one to the other, beside gathered blocks."""
    return on_processes(_of_a_process, 2, ring)


SPECIAL: dict[str, Callable[[], Any]] = {
    "quantiles": quantiles,
    "derivative": right_derivative,
    "gathered": lambda: processes(False),
    "ring": lambda: processes(True),
}


def one(name: str) -> Any:
    """What is found in a case."""
    if name in SPECIAL:
        return SPECIAL[name]()
    case = CASES[name]
    found = [case.found(True, torch.float32), case.found(False, torch.float32)]
    return [*found, case.found(True, torch.float64), case.loops()] if name.startswith("loops") else found


if __name__ == "__main__":
    warnings.simplefilter("error", RuntimeWarning)  # numpy's, of overflows in the interpreter
    warnings.filterwarnings("ignore", "All-NaN slice")
    out: dict[str, Any] = {}
    for name in sys.argv[2:]:
        try:
            out[name] = one(name)
        except Exception as error:
            out[name] = f"{type(error).__name__}: {error}"
    torch.save(out, sys.argv[1])
