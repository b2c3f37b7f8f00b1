from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrizations

from solo.nn.networks import WeightNormLinear


def test_the_same_as_torchs_and_loads_its_names() -> None:
    torchs = parametrizations.weight_norm(nn.Linear(4, 3, bias=False))
    layer = WeightNormLinear(4, 3)
    assert sorted(layer.state_dict()) == ["weight_g", "weight_v"]
    layer.load_state_dict(torchs.state_dict())
    x = torch.randn(5, 4)
    torch.testing.assert_close(layer(x), torchs(x))
    torch.testing.assert_close(copy.deepcopy(layer)(x), torchs(x))


def test_rows_start_with_length_one_and_keep_it() -> None:
    layer = WeightNormLinear(4, 3)
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(3))
    assert not layer.weight_g.requires_grad and WeightNormLinear(4, 3, learn_length=True).weight_g.requires_grad
