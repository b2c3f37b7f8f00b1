from __future__ import annotations

import math

import pytest
import torch
from omegaconf import OmegaConf
from solo.utils import misc
from torch import nn


def test_filter_inf_n_nan_keeps_rows_finite_in_all_tensors() -> None:
    a = torch.tensor([[1.0, 2.0], [torch.nan, 1.0], [3.0, 4.0]])
    b = torch.tensor([1.0, 2.0, torch.inf])
    (kept_a, kept_b), selected = misc.filter_inf_n_nan([a, b], return_indexes=True)
    assert selected.tolist() == [True, False, False]
    assert kept_a.tolist() == [[1.0, 2.0]] and kept_b.tolist() == [1.0]
    assert misc.filter_inf_n_nan(a).shape == (2, 2)
    with pytest.raises(RuntimeError, match=r"\[3\]"):
        misc.filter_inf_n_nan(torch.zeros(1, 1, 1))


def test_filter_module_forwards_attributes() -> None:
    class Shift(nn.Module):
        offset = torch.inf

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x > 0, x, self.offset)

    module = misc.FilterInfNNan(Shift())
    assert module.offset == torch.inf and module(torch.tensor([1.0, -1.0])).tolist() == [1.0]
    with pytest.raises(AttributeError):
        getattr(module, "nothing")  # noqa: B009


def test_weight_decay_groups_are_split_by_dimension() -> None:
    layer = nn.Linear(2, 3)
    groups = misc.remove_bias_and_norm_from_weight_decay([{"name": "x", "params": layer.parameters(), "lr": 3}])
    assert [group["name"] for group in groups] == ["x", "x_no_decay"]
    assert groups[0]["params"][0] is layer.weight and groups[1]["params"][0] is layer.bias
    assert groups[1]["weight_decay"] == 0 and "weight_decay" not in groups[0] and groups[1]["lr"] == 3


def test_one_process_gathers_itself() -> None:
    x = torch.randn(2, 3)
    assert misc.gather(x) is x and torch.equal(misc.gather(x, dim=1), x) and misc.get_rank() == 0
    assert torch.equal(misc.GatherLayer.apply(x)[0], x) and torch.equal(misc.concat_all_gather_no_grad(x), x)


def test_omegaconf_select_reads_the_text_none() -> None:
    cfg = OmegaConf.create({"a": {"b": "None", "c": 2}})
    assert misc.omegaconf_select(cfg, "a.b", 1) is None
    assert misc.omegaconf_select(cfg, "a.c") == 2 and misc.omegaconf_select(cfg, "a.d", 5) == 5


def test_make_contiguous() -> None:
    layer = nn.Linear(2, 3)
    layer.weight.data = torch.arange(6.0).reshape(2, 3).T
    misc.make_contiguous(layer)
    assert layer.weight.is_contiguous() and layer.weight[0].tolist() == [0.0, 3.0]


def test_sincos_positions_against_a_loop() -> None:
    dim, side = 8, 3
    table = misc.generate_2d_sincos_pos_embed(dim, side)
    for row in range(side):
        for column in range(side):
            waves = [[at / 10000 ** (k / (dim // 4)) for k in range(dim // 4)] for at in (column, row)]
            expected = [f(a) for angles in waves for f in (math.sin, math.cos) for a in angles]
            assert table[row * side + column] == pytest.approx(expected)
    with_token = misc.generate_2d_sincos_pos_embed(dim, side, cls_token=True)
    assert with_token.shape == (10, dim) and (with_token[0] == 0).all() and (with_token[1:] == table).all()
    with pytest.raises(ValueError, match="odd width 3"):
        misc.generate_2d_sincos_pos_embed(6, side)
