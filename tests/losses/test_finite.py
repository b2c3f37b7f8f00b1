"""No loss is NaN or infinite for finite input, whatever the shapes, temperatures and embeddings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solo.hex import AdaptivePercentile, Cosine, EveryNegative, FixedThreshold, NoNegative, Superclass, hex_nce
from solo.losses import (
    DINOLoss,
    Pairs,
    barlow_loss_func,
    byol_loss_func,
    deepclusterv2_loss_func,
    frossl_loss_func,
    info_nce,
    lejepa_loss_func,
    mae_loss_func,
    mocov2plus_loss_func,
    mocov3_loss_func,
    nnclr_loss_func,
    ressl_loss_func,
    siglip_loss_func,
    simclr_loss_func,
    simsiam_loss_func,
    swav_loss_func,
    vibcreg_loss_func,
    vicreg_loss_func,
    wmse_loss_func,
)
from solo.losses.pairs import unit
from solo.losses.targets import cross_entropy_loss_func

POLICIES = {
    "adaptive": AdaptivePercentile(0.7, warm_epoch=0),
    "fixed": FixedThreshold(Cosine(0.5, 0.1)),
    "superclass": Superclass(),
    "every": EveryNegative(),
    "none": NoNegative(),
}
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": lambda x: x,
    "zero": torch.zeros_like,
    "a zero row": lambda x: x.index_fill(-2, torch.tensor(0), 0),
    "equal rows": lambda x: x[..., :1, :].expand_as(x),
    "opposite rows": lambda x: x[..., :1, :] * (1 - 2 * (torch.arange(x.shape[-2]) % 2))[:, None],
    "huge": lambda x: x * 1e4,
    "tiny": lambda x: x * 1e-30,
    "one-hot": lambda x: torch.zeros_like(x).index_fill(-1, torch.tensor(0), 1),
}
# x: (4, N, D) with gradient; y: (N,) labels; t: temperature.
LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "simclr": lambda x, y, t: simclr_loss_func(x[:2].flatten(0, 1), torch.arange(len(y)).repeat(2), t),
    "supcon": lambda x, y, t: simclr_loss_func(x[0], y, t),
    "labels each": lambda x, y, t: info_nce(Pairs.from_ids(x[0], y), t),
    "nnclr": lambda x, y, t: nnclr_loss_func(x[0], x[1], t),
    "mocov2plus": lambda x, y, t: mocov2plus_loss_func(unit(x[0]), unit(x[1]), unit(x[2]).T, t),
    "mocov3": lambda x, y, t: mocov3_loss_func(x[0], x[1], t),
    "ressl": lambda x, y, t: ressl_loss_func(unit(x[0]), unit(x[1]), unit(x[2]), t, t / 2),
    "byol": lambda x, y, t: byol_loss_func(x[0], x[1]),
    "simsiam": lambda x, y, t: simsiam_loss_func(x[0], x[1]),
    "wmse": lambda x, y, t: wmse_loss_func(x[0], x[1], simplified=False),
    "barlow": lambda x, y, t: barlow_loss_func(x[0], x[1]),
    "vicreg": lambda x, y, t: vicreg_loss_func(x[0], x[1]),
    "vibcreg": lambda x, y, t: vibcreg_loss_func(x[0], x[1]),
    "lejepa": lambda x, y, t: lejepa_loss_func(x, torch.ones(x.shape[-1], 3).cumsum(dim=1).to(x.dtype), 0.5),
    "frossl": lambda x, y, t: frossl_loss_func(x),
    "siglip": lambda x, y, t: siglip_loss_func(x[0], x[1], -torch.tensor(t).log(), torch.tensor(-t)),
    "swav": lambda x, y, t: swav_loss_func(x, x[:2].detach().float().softmax(dim=-1), t),
    "deepclusterv2": lambda x, y, t: deepclusterv2_loss_func(x[None, :2], y[None].clamp(max=x.shape[-1] - 1), t),
    "dino": lambda x, y, t: DINOLoss(x.shape[-1], t, t, 0, 1, t)(x[:2].flatten(0, 1), x[2:].flatten(0, 1)),
    "mae": lambda x, y, t: mae_loss_func(x[:3, :4].detach().mean() + torch.zeros(2, 1, 4, 4), _patches(x), MASK, 2),
    "cross-entropy": lambda x, y, t: cross_entropy_loss_func(x[0], y.clamp(max=x.shape[-1] - 1), 0.1),
}
MASK = torch.tensor([[1.0, 0, 1, 0]] * 2)


def _patches(x: Tensor) -> Tensor:
    return x.flatten()[: 2 * 4 * 4].reshape(-1)[:1].expand(32).reshape(2, 4, 4)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    rows, width = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    seed = draw(st.integers(0, 2**31))
    x = torch.randn(4, rows, width, generator=torch.Generator().manual_seed(seed))
    x = KINDS[draw(st.sampled_from(list(KINDS)))](x)
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    labels = draw(st.lists(st.integers(-1, 3), min_size=rows, max_size=rows) | st.just([0] * rows))
    temperature = 10 ** draw(st.floats(-3, 2))
    return x.to(dtype).requires_grad_(), torch.tensor(labels), temperature


def assert_finite(loss: Tensor, x: Tensor) -> None:
    assert loss.ndim == 0 and torch.isfinite(loss), loss
    if loss.requires_grad:
        (grad,) = torch.autograd.grad(loss, x)
        assert torch.isfinite(grad).all(), grad


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(batch=batches())
def test_losses_are_finite(name: str, batch: tuple[Tensor, Tensor, float]) -> None:
    x, labels, temperature = batch
    assert_finite(LOSSES[name](x, labels, temperature), x)


@pytest.mark.parametrize("variant", ["reweight", "release"])
@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(batch=batches(), beta=st.floats(0, 50), tau_plus=st.floats(0, 0.99))
def test_hex_is_finite(
    policy: str, variant: str, batch: tuple[Tensor, Tensor, float], beta: float, tau_plus: float
) -> None:
    x, labels, temperature = batch
    pairs = Pairs.from_views(list(x[:2]), groups=labels)
    settings = {"temperature": temperature, "beta": beta, "tau_plus": tau_plus, "variant": variant}
    loss, stats = hex_nce(pairs, POLICIES[policy], **settings)  # type: ignore[arg-type]
    assert_finite(loss, x)
    assert all(torch.isfinite(value) for value in stats.values())
