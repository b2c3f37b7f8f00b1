"""The warm-up cosine against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

from solo.optim import LinearWarmupCosineAnnealingLR


def _rates(steps: int, lr: float = 1.0, **kwargs: float) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.ones(1))], lr=lr)
    scheduler = LinearWarmupCosineAnnealingLR(optimizer, **kwargs)  # type: ignore[arg-type]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_golden_values() -> None:
    # 4 warm-up steps: 0.1, then + 0.3 each; then the cosine over 4 steps: (1 + cos(pi t / 4)) / 2.
    root = math.sqrt(2) / 2
    expected = [0.1, 0.4, 0.7, 1.0, 1.0, (1 + root) / 2, 0.5, (1 - root) / 2, 0.0, 0.0]
    assert _rates(10, warmup_epochs=4, max_epochs=8, warmup_start_lr=0.1) == pytest.approx(expected, abs=1e-12)


def test_ends_at_eta_min() -> None:
    rates = _rates(7, warmup_epochs=2, max_epochs=6, warmup_start_lr=0.5, eta_min=0.2)
    assert rates == pytest.approx(
        [0.5, 1.0, 1.0, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2 + 0.4 * (1 - math.sqrt(0.5)), 0.2]
    )


def test_without_and_with_one_step_of_warmup() -> None:
    assert _rates(3, warmup_epochs=0, max_epochs=2, warmup_start_lr=1.0) == pytest.approx([1.0, 0.5, 0.0])
    assert _rates(3, warmup_epochs=1, max_epochs=3, warmup_start_lr=0.3) == pytest.approx([0.3, 1.0, 0.5])


def test_a_fraction_never_leaves_the_range() -> None:
    rates = _rates(20, warmup_epochs=3.7, max_epochs=19.2, warmup_start_lr=0.1)
    assert max(rates) <= 1.0 and min(rates) >= 0.0
    assert rates[3] == 1.0 and rates[2] == pytest.approx(0.1 + 0.9 * 2 / 2.7)
    assert all(a >= b for a, b in zip(rates[3:], rates[4:], strict=False))


def test_each_group_has_its_own_base_and_a_resumed_run_the_same_rates() -> None:
    def make() -> tuple[SGD, LinearWarmupCosineAnnealingLR]:
        groups = [{"params": [nn.Parameter(torch.ones(1))]}, {"params": [nn.Parameter(torch.ones(1))], "lr": 2.0}]
        optimizer = SGD(groups, lr=1.0)
        return optimizer, LinearWarmupCosineAnnealingLR(optimizer, 3, 9)

    def run(optimizer: SGD, scheduler: LinearWarmupCosineAnnealingLR, steps: int) -> list[list[float]]:
        rates = []
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            rates.append(scheduler.get_last_lr())
        return rates

    whole = run(*make(), 9)
    assert all(fast == pytest.approx(2 * slow) for slow, fast in whole)
    optimizer, scheduler = make()
    first = run(optimizer, scheduler, 4)
    again, resumed = make()
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert first + run(again, resumed, 5) == whole
