"""Every method with every HEX type: the loss is finite and falls, gradients arrive, the state round-trips."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from solo.methods import METHODS

TYPES = ("standard", "HEX_fixed", "HEX_adaptive", "superclass")
CASES = [(method, kind) for method in METHODS if method not in ("base", "linear") for kind in TYPES]


@pytest.fixture(params=CASES, ids="-".join)
def model(request: pytest.FixtureRequest, make_cfg: Any) -> Any:
    method, kind = request.param
    return METHODS[method](make_cfg(method, type=kind, warm_epoch=0, distance_thresh=0.5))


def test_loss_is_finite_and_every_trainable_parameter_gets_gradient(model: Any, make_batch: Any) -> None:
    loss = model.training_step(make_batch(), 0)
    loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss)
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    silent = [
        name for name, grad in trained.items() if grad is None or not torch.isfinite(grad).all() or not grad.any()
    ]
    assert not silent


def test_every_trainable_parameter_is_in_one_group(model: Any) -> None:
    grouped = [id(p) for group in model.learnable_params for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_loss_falls(model: Any, make_batch: Any) -> None:
    batch = make_batch()
    optimizer = model.configure_optimizers()
    losses = []
    for _ in range(12):
        loss = model.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_state_round_trips(model: Any, make_batch: Any) -> None:
    other = METHODS[model.cfg.method](model.cfg)
    other.load_state_dict(model.state_dict())
    images = make_batch()[1][0]
    for key, value in model.eval()(images).items():
        assert torch.equal(value, other.eval()(images)[key]), key
