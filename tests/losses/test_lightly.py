"""Agreement with lightly, where it has the loss."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import (
    BarlowTwinsLoss,
    FroSSLLoss,
    LeJEPALoss,
    NegativeCosineSimilarity,
    SwaVLoss,
    VICRegLoss,
    wmse_loss,
)
from lightly.loss import DINOLoss as LightlyDINO
from lightly.models.utils import patchify as lightly_patchify

from solo import losses
from solo.losses.targets import patchify


@pytest.fixture
def views():
    torch.manual_seed(0)
    return torch.randn(16, 8), torch.randn(16, 8)


def test_barlow(views):
    expected = 0.1 * BarlowTwinsLoss(lambda_param=0.02)(*views)
    torch.testing.assert_close(losses.barlow_loss_func(*views, lamb=0.02, scale_loss=0.1), expected)


def test_vicreg(views):
    # lightly takes the mean of the variance terms of the two views, solo-learn the sum.
    expected = VICRegLoss(lambda_param=3, mu_param=8, nu_param=2)(*views)
    torch.testing.assert_close(losses.vicreg_loss_func(*views, 3, 4, 2), expected)


def test_cosines(views):
    expected = NegativeCosineSimilarity()(*views)
    torch.testing.assert_close(losses.simsiam_loss_func(*views), expected)
    torch.testing.assert_close(losses.byol_loss_func(*views), 2 + 2 * expected)
    torch.testing.assert_close(losses.wmse_loss_func(*views), wmse_loss.norm_mse_loss(*views).mean())


def test_swav(views):
    loss = SwaVLoss(temperature=0.2)
    targets = torch.randn(16, 8).softmax(dim=1)
    expected = loss.subloss(views[1], targets)
    torch.testing.assert_close(losses.swav_loss_func(views, [targets], temperature=0.2), expected)


def test_dino_over_three_steps():
    torch.manual_seed(1)
    ours = losses.DINOLoss(8, 0.04, 0.07, 2, 5, student_temp=0.2, center_momentum=0.8)
    theirs = LightlyDINO(8, 0.04, 0.07, 2, student_temp=0.2, center_momentum=0.8)
    for epoch in range(3):
        student, teacher = torch.randn(32, 8), torch.randn(32, 8)
        ours.epoch = epoch
        expected = theirs(teacher.chunk(2), student.chunk(2), epoch=epoch)
        torch.testing.assert_close(ours(student, teacher), expected)
        torch.testing.assert_close(ours.center, theirs.center[0])


def test_lejepa(views):
    z, small = torch.stack(views), torch.randn(3, 16, 8)
    torch.manual_seed(1)
    expected = LeJEPALoss(0.1, sigreg_num_vectors=32)(global_proj=z, local_proj=small)
    torch.manual_seed(1)
    ours = losses.lejepa_loss_func(torch.cat((z, small)), torch.randn(8, 32), 0.1)
    torch.testing.assert_close(ours, expected)


def test_frossl(views):
    torch.testing.assert_close(losses.frossl_loss_func(views, 2.0), FroSSLLoss(2.0)([*views]))


def test_patchify():
    imgs = torch.randn(2, 3, 12, 12)
    assert torch.equal(patchify(imgs, 4), lightly_patchify(imgs, 4))
