from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from solo.backbones import build_backbone, features_dim, wide_resnet28w2


def test_names_of_the_state_dict() -> None:
    layer = [f"{part}.{what}" for part in ("conv1", "conv2") for what in ("weight", "bias")]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    layer += [f"{part}.{what}" for part in ("bn1", "bn2") for what in norm]
    expected = {"conv1.weight", "conv1.bias", *(f"bn1.{what}" for what in norm)}
    for block in (1, 2, 3):
        expected |= {f"block{block}.layer.{i}.{name}" for i in range(4) for name in layer}
        expected |= {f"block{block}.layer.0.convShortcut.{what}" for what in ("weight", "bias")}
    assert set(wide_resnet28w2(None).state_dict()) == expected


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (64, 1)])
def test_features(size: int, channels: int) -> None:
    backbone = build_backbone("wide_resnet28w2", channels=channels, image_size=size, small=True).eval()
    assert features_dim(backbone) == 128
    assert backbone(torch.randn(2, channels, size, size)).shape == (2, 128)


def test_strides_and_settings() -> None:
    backbone: Any = wide_resnet28w2("simclr", first_stride=2, drop_rate=0.3)
    assert backbone.block1(backbone.conv1(torch.randn(1, 3, 32, 32))).shape == (1, 32, 16, 16)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.momentum == 0.001 and m.eps == 0.001 for m in norms)
    assert backbone.act.negative_slope == 0.1 and backbone.block2.layer[1].drop.p == 0.3


def test_every_parameter_learns() -> None:
    backbone = wide_resnet28w2(None)
    backbone(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None]


def test_the_first_layer_shortens_the_activation_and_the_others_the_input() -> None:
    backbone: Any = wide_resnet28w2(None).eval()
    for block, after in ((backbone.block1, True), (backbone.block2, False)):
        layer = block.layer[0]
        nn.init.zeros_(layer.conv2.weight)
        nn.init.zeros_(layer.conv2.bias)
        x = torch.randn(2, layer.conv1.in_channels, 8, 8)
        start = nn.functional.leaky_relu(layer.bn1(x), 0.1) if after else x
        torch.testing.assert_close(layer(x), layer.convShortcut(start))
