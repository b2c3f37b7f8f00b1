"""Keys that pass from process to process give the loss, the gradient and the records of keys that are gathered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from solo import distributed
from solo.doctor.parity import on_processes
from solo.errors import UserError
from solo.hex import AdaptivePercentile, Constant, FixedThreshold, Superclass, hex_nce
from solo.hex.policy import EveryNegative, FalseNegatives, NoNegative
from solo.hex.rows import RELEASE, Action
from solo.losses import info_nce
from solo.losses.pairs import Pairs, RingPairs

B, D = 5, 3  # images of a process, numbers of a row
HEX: dict[str, dict[str, Any]] = {
    "adaptive": {"policy": AdaptivePercentile(0.8, 0)},
    "adaptive, low quantile": {"policy": AdaptivePercentile(0.2, 0), "beta": 0.0},
    "fixed, scaled rows": {"policy": FixedThreshold(Constant(0.6))},
    "fixed, cosine, relative": {"policy": FixedThreshold(Constant(0.3), "cosine"), "relative": True},
    "superclass": {"policy": Superclass(), "tau_plus": 0.0},
    "HCL": {"policy": EveryNegative()},
    "DCL": {"policy": NoNegative(), "action": RELEASE},
    "release": {"policy": AdaptivePercentile(0.8, 0), "action": RELEASE},
    "drop": {"policy": Superclass(), "action": Action("drop", "all")},
    "kin": {"policy": Superclass(), "kin": AdaptivePercentile(0.8, 0)},
}


def cases() -> list[tuple[str, str, bool]]:
    """Name, positives, whether labels are the ids, so that rows have several positives, or one."""
    return [
        (name, where, labels) for name in ("info_nce", *HEX) for where in ("outside", "inside") for labels in (0, 1)
    ]


def found(
    kind: type[Pairs], views: Tensor, labels: Tensor, groups: Tensor, case: tuple[str, str, bool]
) -> list[Tensor]:
    """Loss, gradient as DDP has it, and what the loss records."""
    name, positives, labelled = case
    z = views.clone().requires_grad_()
    pairs = kind.from_views(z, labels if labelled else None, groups)
    assert pairs.ring == (kind is RingPairs and distributed.is_distributed())
    if name == "info_nce":
        loss, stats = info_nce(pairs, 0.3, positives), {}
    else:
        loss, stats = hex_nce(pairs, **HEX[name], temperature=0.3, positives=positives)
    (gradient,) = torch.autograd.grad(2 * loss, z)
    return [loss.detach(), gradient, *(stats[key] for key in sorted(stats))]


def both(argument: Any) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Of each case, in a ring and gathered; one process has a label that nobody else has."""
    generator = torch.Generator().manual_seed(distributed.rank())
    views = torch.randn(2, B, D, dtype=torch.float64, generator=generator)
    labels = torch.randint(3, (B,), generator=generator) + 10 * (distributed.rank() == 1)
    groups = torch.randint(-1, 2, (B,), generator=generator)
    return [tuple(found(kind, views, labels, groups, case) for kind in (RingPairs, Pairs)) for case in cases()]


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.thorough)])
def test_ring_is_gathered(count: int) -> None:
    for process in on_processes(both, count, None):
        for case, (ring, gathered) in zip(cases(), process, strict=True):
            assert len(ring) == len(gathered) and gathered[1].abs().max() > 1e-4, case
            for mine, truth in zip(ring, gathered, strict=True):
                torch.testing.assert_close(
                    mine, truth, rtol=1e-9, atol=1e-11, equal_nan=True, msg=f"{case}: %s" % case[0]
                )


def test_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process: the same object; nothing is sent."""
    z, ids = torch.randn(8, 3), torch.arange(4).repeat(2)
    assert type(RingPairs.from_ids(z, ids)) is Pairs


def refused(argument: Any) -> list[str]:
    """What is said where a ring can't do what is asked."""
    texts = []
    for policy, action in ((FalseNegatives(), None), (Superclass(), Action("pull"))):
        pairs = RingPairs.from_views(torch.randn(2, B, D), groups=torch.zeros(B, dtype=torch.long))
        try:
            hex_nce(pairs, policy, action=action)
        except UserError as error:
            texts.append(str(error))
    return texts


@pytest.mark.thorough
def test_what_a_ring_cant_do_is_refused() -> None:
    for texts in on_processes(refused, 2, None):
        assert len(texts) == 2 and all("performance.ring_loss=true pulls no relatives" in text for text in texts)
