"""Images of sizes that a network does or doesn't take, and position embeddings for another size."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from solo.backbones import build_backbone
from solo.backbones.registry import check_single, check_sizes
from solo.errors import UserError
from solo.weights import load_weights

VIT = {"patch_size": 4, "depth": 1, "embed_dim": 24, "num_heads": 2}


def vit(size: int, method: str | None = None, **kwargs: Any) -> nn.Module:
    return build_backbone("vit_tiny", method, channels=1, image_size=size, kwargs={**VIT, **kwargs})


@pytest.mark.fault(
    3,
    "an image size that patches don't divide, that is too small for a network, or disagrees with `img_size`",
    "one line",
)
@pytest.mark.parametrize(
    ("name", "size", "kwargs", "line"),
    [
        ("vit_tiny", 14, VIT, "data.image_size=14 is no multiple of the 4 pixels of a patch .* choose 12 or 16"),
        ("vit_tiny", 16, {**VIT, "img_size": 32}, r"data.image_size=16 doesn't fit .*\(Input height"),
        ("vit_tiny", 2, VIT, "data.image_size=2 is no multiple of the 4 pixels .*; choose 4, or another"),
        ("convnext_tiny", 8, {}, "data.image_size=8 doesn't fit backbone.name='convnext_tiny'"),
        ("swin_tiny", 30, {"window_size": 4}, "data.image_size=30 "),
    ],
)
def test_sizes_that_do_not_fit_are_said_in_one_line(name: str, size: int, kwargs: Any, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        net = build_backbone(name, channels=1, image_size=size, kwargs=kwargs)
        check_sizes(net, name, {size: "data.image_size"}, 1)
    assert "\n" not in str(error.value)


def test_a_check_changes_nothing() -> None:
    net = build_backbone("resnet10", channels=1, small=True, kwargs={"width": 8})
    net.layer1.eval()
    before, modes = {k: v.clone() for k, v in net.state_dict().items()}, [m.training for m in net.modules()]
    state = torch.get_rng_state()
    check_sizes(net, "resnet10", {8: "a", 16: "b"}, 1)
    assert [m.training for m in net.modules()] == modes and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_backbone_must_give_rows() -> None:
    net = nn.Conv2d(1, 4, 1)
    with pytest.raises(UserError, match=r"gives \(1, 4, 8, 8\) for one image; it must give features \(N, width\)"):
        check_sizes(net, "mine:net", {8: "data.image_size"}, 1)


@pytest.mark.fault(3, "batches of one image", "statistics of batches are not asked of one value")
def test_one_image_at_a_time() -> None:
    net = build_backbone("resnet18", channels=1)
    check_single(net, 64, 1)
    with pytest.raises(UserError, match="optimizer.batch_size=1 is too small"):
        check_single(net, 16, 1)


@pytest.mark.fault(
    3, "a ViT's checkpoint at another image size", "position embeddings are interpolated, said in one line"
)
@pytest.mark.parametrize("method", [None, "mocov3", "mae"])
def test_positions_are_interpolated(method: str | None, caplog: pytest.LogCaptureFixture) -> None:
    old, new = vit(16, method), vit(24, method)
    with caplog.at_level(logging.WARNING, "solo"):
        load_weights(new, old.state_dict(), path="x.ckpt", name="vit_tiny")
    assert len(caplog.messages) == 1 and "position embeddings are interpolated" in caplog.messages[0]
    expected = resample_abs_pos_embed(old.pos_embed.data, new_size=[6, 6], num_prefix_tokens=1)
    torch.testing.assert_close(new.pos_embed.data, expected)
    assert new(torch.zeros(2, 1, 24, 24)).shape == (2, 24)
    same = vit(16, method)
    load_weights(same, old.state_dict(), path="x.ckpt", name="vit_tiny")
    assert len(caplog.messages) == 1 and torch.equal(same.pos_embed, old.pos_embed)


@pytest.mark.fault(3, "a Swin's checkpoint at another window", "relative positions are interpolated")
def test_swins_relative_positions_are_interpolated() -> None:
    kwargs = {"window_size": 4, "depths": (1, 1, 1, 1), "embed_dim": 12, "num_heads": (1, 1, 2, 2)}
    old = build_backbone("swin_tiny", image_size=32, kwargs=kwargs)
    new = build_backbone("swin_tiny", image_size=64, kwargs={**kwargs, "window_size": 8})
    load_weights(new, old.state_dict(), path="x.ckpt", name="swin_tiny")
    assert new(torch.zeros(1, 3, 64, 64)).shape == (1, 96)


def test_other_shapes_are_refused_as_before() -> None:
    with pytest.raises(UserError, match="of another shape"):
        load_weights(vit(16, embed_dim=48), vit(24).state_dict(), path="x.ckpt", name="vit_tiny")
