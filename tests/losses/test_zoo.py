"""Every loss of the table: value, gradient, precision, edge cases, and that steps along the gradient lower it."""

from __future__ import annotations

import pytest
import torch

from solo import losses
from tests.losses.zoo import CASES

pytestmark = pytest.mark.parametrize("name", CASES)


def moving(case, inputs):
    return [x.clone().requires_grad_(i < case.moving) if x.is_floating_point() else x for i, x in enumerate(inputs)]


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_loops(name, seed):
    case = CASES[name]
    inputs, twin = (moving(case, case.inputs(seed=seed)) for _ in range(2))
    loss, expected = case.func(*inputs), case.reference(*twin)
    assert loss.dtype == torch.float64 and loss.shape == ()
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    grads, expected_grads = (torch.autograd.grad(v, x[: case.moving]) for v, x in ((loss, inputs), (expected, twin)))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-8, atol=1e-10)


def test_gradcheck(name):
    case = CASES[name]
    assert torch.autograd.gradcheck(case.func, moving(case, case.inputs()))


def test_only_what_moves_gets_gradient(name):
    case = CASES[name]
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in case.inputs()]
    case.func(*inputs).backward()
    assert all(x.grad is not None for x in inputs[: case.moving])
    if case.func in (losses.byol_loss_func, losses.simsiam_loss_func, losses.wmse_loss_func):
        assert inputs[1].grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_and_half_inputs_do_not_lower_the_precision(name, dtype):
    case = CASES[name]
    rounded = [x.to(dtype) if x.is_floating_point() else x for x in case.inputs()]
    plain = case.func(*(x.float() if x.is_floating_point() else x for x in rounded))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(case.func(*rounded), plain)


def same_rows(x, dim):
    return x if dim is None else x.narrow(dim, 0, 1).expand_as(x).clone()


@pytest.mark.parametrize("edge", ["identical rows", "zero", "large", "tiny"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_everywhere(name, edge, dtype):
    case = CASES[name]
    change = {
        "identical rows": same_rows,
        "zero": lambda x, _: torch.zeros_like(x),
        "large": lambda x, _: x * 1e4,
        "tiny": lambda x, _: x * 1e-20,
    }[edge]
    inputs = [
        change(x, dim).to(dtype).requires_grad_(i < case.moving) if x.is_floating_point() else x
        for i, (x, dim) in enumerate(zip(case.inputs(), case.batch, strict=True))
    ]
    loss = case.func(*inputs)
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in inputs[: case.moving])


def test_gradient_steps_lower_it(name):
    case = CASES[name]
    inputs = moving(case, case.inputs(rows=32))
    first = loss = case.func(*inputs)
    for _ in range(20):
        grads = torch.autograd.grad(loss, inputs[: case.moving])
        for i, grad in enumerate(grads):
            inputs[i] = (inputs[i] - 0.5 * grad).detach().requires_grad_()
        loss = case.func(*inputs)
    assert first != 0
    assert loss < first
