from __future__ import annotations

import pytest
import torch
from torch import nn

from solo.nn import mlp


def test_layers_stand_where_solo_learns_do() -> None:
    # SimCLR; BYOL; the last layers of NNCLR and MoCo v3
    assert [type(layer) for layer in mlp(4, 5, 6, norm=False)] == [nn.Linear, nn.ReLU, nn.Linear]
    assert list(mlp(4, 5, 6).state_dict())[:2] == ["0.weight", "0.bias"]
    assert [type(layer) for layer in mlp(4, 5, 6)] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    last = mlp(4, 5, 6, depth=3, last_norm="affine")[-1]
    assert isinstance(last, nn.BatchNorm1d) and last.affine and last.num_features == 6
    moco = mlp(4, 5, 6, depth=3, bias=False, last_bias=False, last_norm="plain")
    assert not any("bias" in name for name in moco.state_dict() if name.split(".")[0] in ("0", "3", "6"))
    assert not moco[-1].affine


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shapes_and_activation(depth: int) -> None:
    head = mlp(4, 5, 6, depth, activation=nn.GELU)
    assert head(torch.randn(3, 4)).shape == (3, 6)
    assert sum(isinstance(layer, nn.GELU) for layer in head) == depth - 1
