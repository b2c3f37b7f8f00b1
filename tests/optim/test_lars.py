"""LARS against the formula, one parameter at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from solo.optim import LARS


def _reference(
    p: torch.Tensor,
    grads: list[torch.Tensor],
    *,
    lr: float,
    momentum: float,
    wd: float,
    eta: float,
    clip: bool,
    nesterov: bool,
    damp: float,
    eps: float = 1e-8,
) -> torch.Tensor:
    buffer = None
    for g in grads:
        norm_p, norm_g = float(p.norm()), float(g.norm())
        if norm_p != 0 and norm_g != 0:
            r = eta * norm_p / (norm_g + wd * norm_p + eps)
            r = min(r / lr, 1) if clip else r
            g = r * (g + wd * p)
        if momentum:
            buffer = g.clone() if buffer is None else momentum * buffer + (1 - damp) * g
            g = g + momentum * buffer if nesterov else buffer
        p = p - lr * g
    return p


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("momentum", "nesterov", "damp"), [(0.0, False, 0.0), (0.9, False, 0.5), (0.9, True, 0.0)])
@pytest.mark.parametrize("eta", [1e-3, 5.0])
def test_steps_follow_the_formula(clip: bool, momentum: float, nesterov: bool, damp: float, eta: float) -> None:
    torch.manual_seed(0)
    start = [torch.randn(3, 4, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)]
    start.append(torch.randn(5, dtype=torch.float64))
    grads = [[torch.randn_like(p) for p in start] for _ in range(3)]
    params = [nn.Parameter(p.clone()) for p in start]
    optimizer = LARS(
        params, lr=0.2, momentum=momentum, nesterov=nesterov, dampening=damp, weight_decay=0.1, eta=eta, clip_lr=clip
    )
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = g.clone()
        optimizer.step()
    for i, p in enumerate(params):
        expected = _reference(
            start[i],
            [step[i] for step in grads],
            lr=0.2,
            momentum=momentum,
            wd=0.1,
            eta=eta,
            clip=clip,
            nesterov=nesterov,
            damp=damp,
        )
        torch.testing.assert_close(p.detach(), expected)


def test_excluded_parameters_get_neither_scaling_nor_decay() -> None:
    bias, weight = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, 1))
    optimizer = LARS([bias, weight], lr=0.5, weight_decay=0.1, exclude_bias_n_norm=True)
    bias.grad, weight.grad = torch.full((3,), 2.0), torch.full((3, 1), 2.0)
    optimizer.step()
    assert torch.equal(bias.detach(), torch.zeros(3))
    assert (weight > 0.99).all()


def test_zero_norms_and_missing_gradients() -> None:
    still, empty, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = LARS([still, empty, unused], lr=0.5, weight_decay=0.1, momentum=0.9)
    still.grad, empty.grad = torch.zeros(2, 2), torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(still.detach(), torch.ones(2, 2)) and torch.equal(unused.detach(), torch.ones(2))
    assert torch.equal(empty.detach(), torch.full((2, 2), -0.5))


def test_resumes_from_its_state() -> None:
    def run(steps: int, state: Any = None, start: Any = None) -> Any:
        p = nn.Parameter(start.clone() if start is not None else torch.arange(4.0).reshape(2, 2))
        optimizer = LARS([p], lr=0.1, momentum=0.9)
        if state:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            loss = optimizer.step(lambda: float(_backward(p)))
            assert loss is not None
        return p.detach(), optimizer.state_dict()

    def _backward(p: nn.Parameter) -> torch.Tensor:
        p.grad = None
        value = (p - 1).square().sum()
        value.backward()
        return value.detach()

    whole, _ = run(5)
    half, state = run(2)
    assert torch.equal(run(3, state, half)[0], whole)


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"lr": 1, "momentum": -1}, {"lr": 1, "nesterov": True}])
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="LARS"):
        LARS([nn.Parameter(torch.ones(1))], **wrong)


class _Launches(TorchDispatchMode):
    """Counts operations: on a GPU a kernel each."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_step_takes_few_operations_however_many_parameters_there_are() -> None:
    params = [nn.Parameter(torch.randn(4, 3)) for _ in range(50)]
    optimizer = LARS(params, lr=0.1, momentum=0.9, weight_decay=0.1)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    with _Launches() as launches:
        optimizer.step()
    assert launches.count < 30
