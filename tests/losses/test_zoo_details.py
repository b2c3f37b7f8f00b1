"""What is special to one loss: exports, temperatures, empty targets, errors, schedules and state."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

from solo import losses
from solo.losses import vibcreg, vicreg
from solo.losses.pairs import off_diagonal
from solo.losses.targets import patchify, sigreg

SIGNATURES = {
    "barlow": "z1, z2, lamb=0.005, scale_loss=0.025",
    "byol": "p, z, simplified=True",
    "deepclusterv2": "outputs, assignments, temperature=0.1",
    "dino": "num_prototypes, warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs, num_epochs, "
    "student_temp=0.1, num_large_crops=2, center_momentum=0.9",
    "mae": "imgs, pred, mask, patch_size, norm_pix_loss=True",
    "mocov2plus": "query, key, queue, temperature=0.1",
    "mocov3": "query, key, temperature=0.2",
    "nnclr": "nn, p, temperature=0.1",
    "ressl": "q, k, queue, temperature_q=0.1, temperature_k=0.04",
    "simclr": "z, indexes, temperature=0.1",
    "simsiam": "p, z, simplified=True",
    "swav": "preds, assignments, temperature=0.1",
    "vibcreg": "z1, z2, sim_loss_weight=25.0, var_loss_weight=25.0, cov_loss_weight=200.0",
    "vicreg": "z1, z2, sim_loss_weight=25.0, var_loss_weight=25.0, cov_loss_weight=1.0",
    "wmse": "z1, z2, simplified=True",
}


@pytest.mark.parametrize("file", SIGNATURES)
def test_name_and_signature_are_those_of_solo_learn(file):
    name = "DINOLoss" if file == "dino" else f"{file}_loss_func"
    func = getattr(losses, name)
    assert getattr(importlib.import_module(f"solo.losses.{file}"), name) is func
    assert name in losses.__all__
    parameters = inspect.signature(func).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
    assert ", ".join(shown) == SIGNATURES[file]


def test_half_arguments_by_name_are_raised_too():
    views = {"z1": torch.randn(6, 4).bfloat16(), "z2": torch.randn(6, 4).bfloat16()}
    loss = losses.barlow_loss_func(**views)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, losses.barlow_loss_func(*(z.float() for z in views.values())))


def unit_rows(n, d=4):
    return torch.nn.functional.normalize(torch.randn(n, d))


def with_temperature(t):
    torch.manual_seed(0)
    q, k, queue = unit_rows(6).requires_grad_(), unit_rows(6), unit_rows(9)
    dino = losses.DINOLoss(4, t, t, 1, 2, student_temp=t)
    yield q, losses.mocov2plus_loss_func(q, k, queue.T, t)
    yield q, losses.mocov3_loss_func(q, k, t)
    yield q, losses.nnclr_loss_func(k, q, t)
    yield q, losses.ressl_loss_func(q, k, queue, t, t)
    yield q, losses.swav_loss_func([q, q], [k.softmax(dim=1)] * 2, t)
    yield q, losses.deepclusterv2_loss_func(q[None, None], torch.zeros(1, 6, dtype=torch.long), t)
    yield q, dino(q, k)


@pytest.mark.parametrize("temperature", [1e-4, 100.0])
def test_finite_at_extreme_temperatures(temperature):
    for q, loss in with_temperature(temperature):
        assert loss.isfinite()
        assert torch.autograd.grad(loss, q)[0].isfinite().all()


def test_deepcluster_without_any_assignment_is_zero_with_zero_gradient():
    outputs = torch.randn(3, 2, 1, 6, 4, requires_grad=True)
    loss = losses.deepclusterv2_loss_func(outputs, torch.full((3, 6), -1))
    loss.backward()
    assert loss == 0
    assert torch.equal(outputs.grad, torch.zeros_like(outputs))


def test_deepcluster_takes_sets_of_different_size_and_an_extra_dimension():
    torch.manual_seed(1)
    outputs, clusters = [torch.randn(2, 6, c) for c in (4, 7)], torch.randint(0, 4, (2, 6))
    each = [losses.deepclusterv2_loss_func(x[None, :, None], c[None]) for x, c in zip(outputs, clusters, strict=True)]
    torch.testing.assert_close(losses.deepclusterv2_loss_func(outputs, clusters), sum(each) / 2)


def test_vicreg_is_the_weighted_sum_of_its_terms():
    torch.manual_seed(2)
    z1, z2 = torch.randn(2, 6, 4)
    for module, func in ((vicreg, losses.vicreg_loss_func), (vibcreg, losses.vibcreg_loss_func)):
        terms = vicreg.invariance_loss(z1, z2), vicreg.variance_loss(z1, z2), module.covariance_loss(z1, z2)
        for i, term in enumerate(terms):
            weights = [float(i == j) for j in range(3)]
            assert torch.equal(func(z1, z2, *weights), term)


@pytest.mark.parametrize(
    "func", [losses.barlow_loss_func, losses.vicreg_loss_func, losses.vibcreg_loss_func], ids=lambda f: f.__name__
)
def test_one_row_has_no_variance(func):
    with pytest.raises(ValueError, match="1"):
        func(torch.ones(1, 4), torch.ones(1, 4))


def test_siglip_trains_its_scale_and_bias_too():
    z1, z2, scale, bias = torch.randn(6, 4), torch.randn(6, 4), torch.tensor(1.3), torch.tensor(-2.0)
    inputs = [x.double().requires_grad_() for x in (z1, z2, scale, bias)]
    assert torch.autograd.gradcheck(losses.siglip_loss_func, inputs)


def test_sigreg_is_small_for_a_gaussian_only():
    torch.manual_seed(0)
    z, directions = torch.randn(1, 512, 8), torch.randn(8, 64)
    small = sigreg(z, directions)
    others = {"moved": z + 1, "small": z / 2, "constant": 0 * z, "a line": z[..., :1].expand_as(z), "flat": z.sign()}
    assert all(sigreg(other, directions) > 2 * small for other in others.values())


@pytest.mark.parametrize("shape", [(1, 3, 8, 12), (1, 3, 9, 9)])
def test_patches_must_fit(shape):
    with pytest.raises(ValueError, match="patches of 4"):
        patchify(torch.zeros(shape), 4)


def test_mae_with_raw_pixels_is_zero_for_the_image_itself():
    imgs = torch.rand(2, 1, 8, 8)
    pred, mask = patchify(imgs, 4), torch.ones(2, 4)
    assert losses.mae_loss_func(imgs, pred, mask, 4, norm_pix_loss=False) == 0
    assert losses.mae_loss_func(imgs, pred, mask, 4) > 0
    assert losses.mae_loss_func(imgs, pred, torch.zeros(2, 4), 4) == 0


def test_swav_needs_two_views():
    with pytest.raises(ValueError, match="two views"):
        losses.swav_loss_func([torch.ones(2, 3)], [torch.ones(2, 3)])


def test_dino_schedule_and_state():
    module = losses.DINOLoss(8, warmup_teacher_temp=0.04, teacher_temp=0.07, warmup_teacher_temp_epochs=4, num_epochs=6)
    assert module.teacher_temp_schedule.tolist() == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    assert {name: tuple(x.shape) for name, x in module.state_dict().items()} == {"center": (1, 8)}
    assert len(losses.DINOLoss(8, 0.04, 0.07, 30, 5).teacher_temp_schedule) == 5


def test_dino_falls_while_its_centre_and_epoch_move():
    torch.manual_seed(3)
    module = losses.DINOLoss(16, 0.4, 0.7, 10, 20)
    student, teacher = torch.randn(32, 16, requires_grad=True), torch.randn(32, 16)
    first = module(student, teacher)
    for epoch in range(20):
        module.epoch = epoch
        loss = module(student, teacher)
        student = (student - 0.5 * torch.autograd.grad(loss, student)[0]).detach().requires_grad_()
    assert 0 < loss < first


def test_off_diagonal():
    assert off_diagonal(torch.arange(9).reshape(3, 3)).flatten().tolist() == [1, 2, 3, 5, 6, 7]
    assert off_diagonal(torch.ones(1, 1)).numel() == 0
