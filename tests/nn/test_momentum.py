from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from solo.nn.networks import MomentumUpdater, initialize_momentum_params


def test_copy_then_follow() -> None:
    online, momentum = nn.Linear(2, 2), nn.Linear(2, 2)
    initialize_momentum_params(online, momentum)
    assert torch.equal(online.weight, momentum.weight) and not momentum.weight.requires_grad
    old = momentum.weight.clone()
    nn.init.constant_(online.weight, 3.0)
    MomentumUpdater(0.75, 1.0).update(online, momentum)
    torch.testing.assert_close(momentum.weight, 0.75 * old + 0.25 * 3.0)


def test_tau_is_a_function_of_the_step() -> None:
    updater = MomentumUpdater(0.9, 1.0)
    assert updater.cur_tau == 0.9
    for step in (0, 7, 3, 10):
        updater.update_tau(step, 10)
        assert updater.cur_tau == pytest.approx(1 - 0.1 * (math.cos(math.pi * step / 10) + 1) / 2)


@pytest.mark.parametrize(("base", "final"), [(-0.1, 1.0), (0.9, 0.5), (0.9, 1.1)])
def test_rates_out_of_range(base: float, final: float) -> None:
    with pytest.raises(AssertionError, match="base_tau"):
        MomentumUpdater(base, final)
