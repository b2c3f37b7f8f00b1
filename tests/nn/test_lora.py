"""Low-rank adapters: what they compute, what is trained, and that a checkpoint with them is a plain one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn

from solo.errors import UserError
from solo.methods import METHODS
from solo.nn.networks import MomentumUpdater
from solo.nn.vit import add_adapters
from solo.run.source import adapt
from tests.methods.conftest import TINY_VIT, make_batch, make_cfg

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 0}


def adapted(rank: int = 3, name: str = "vit_tiny_patch16_224") -> tuple[nn.Module, nn.Module]:
    """A network as it was, and inside a module one that has adapters, which were moved."""
    torch.manual_seed(0)
    plain = timm.create_model(name, **SMALL).eval()
    holder = nn.Module()
    holder.backbone = copy.deepcopy(plain)
    names = add_adapters(holder, "backbone", rank)
    assert len(names) == 4
    assert torch.equal(holder.backbone(images()), plain(images()))
    with torch.no_grad():
        for name, parameter in holder.named_parameters():
            if name.endswith(".0.b"):
                parameter.normal_()
    return plain, holder


def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_a_weight_is_its_sum_with_a_product_of_low_rank() -> None:
    plain, holder = adapted()
    state = holder.state_dict()
    for name, weight in plain.state_dict().items():
        moved = state[f"backbone.{name}"] - weight
        if name.endswith(("attn.qkv.weight", "attn.proj.weight")):
            layer = name.removesuffix(".weight")
            a, b = (state[f"lora.backbone.{layer}.{x}"] for x in "ab")
            expected = torch.tensor([[sum(b[i, r] * a[r, j] for r in range(3)) for j in range(12)] for i in range(2)])
            torch.testing.assert_close(moved[:2], expected, atol=1e-5, rtol=1e-4)
            assert torch.linalg.matrix_rank(moved, atol=1e-4) == 3
        else:
            assert not moved.any()
    again = timm.create_model("vit_tiny_patch16_224", **SMALL).eval()
    again.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})
    torch.testing.assert_close(again(images()), holder.backbone(images()))


def test_loading_goes_on_with_the_same_bits_also_from_plain_weights() -> None:
    plain, holder = adapted()
    _, other = adapted()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    other.load_state_dict(holder.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(holder.parameters(), other.parameters(), strict=True))
    weights = {f"backbone.{name}": value for name, value in plain.state_dict().items()}
    assert not [key for key in other.load_state_dict(weights, strict=False).missing_keys if "lora" not in key][8:]


def test_a_slow_copy_follows_the_sums() -> None:
    plain, holder = adapted()
    MomentumUpdater(0.75, 0.75).update(holder.backbone, slow := copy.deepcopy(plain))
    for (name, before), after in zip(plain.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(after, 0.75 * before + 0.25 * holder.state_dict()[f"backbone.{name}"])


@pytest.mark.parametrize("method", ["byol", "dino"])
def test_a_method_trains_the_adapters_alone(method: str) -> None:
    model: Any = METHODS[method](make_cfg(method, backbone=TINY_VIT, finetune_from="x", momentum={"classifier": False}))
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    adapt(model, 2)
    model.train()
    model.training_step(make_batch(size=12), 0).backward()
    trained = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained == {name for name in trained if name.endswith((".0.a", ".0.b"))} and len(trained) == 4
    assert all(model.backbone.get_parameter(name).grad is not None for name in trained)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    optimizer.step()
    state = model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(state[f"backbone.{name}"], value)}
    assert moved == {"blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight"}


def test_a_network_without_attention_is_refused() -> None:
    with pytest.raises(UserError, match=r"finetune_lora=2 needs a backbone with attention .*'resnet10' has none"):
        adapt(METHODS["simclr"](make_cfg("simclr")), 2)
