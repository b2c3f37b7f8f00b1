"""Losses: pure functions of tensors that know nothing of configs or Lightning."""

from solo.losses.barlow import barlow_loss_func
from solo.losses.byol import byol_loss_func
from solo.losses.cross_entropy import cross_entropy_loss_func
from solo.losses.deepclusterv2 import deepclusterv2_loss_func
from solo.losses.dino import DINOLoss
from solo.losses.dinov2 import ibot_loss_func, koleo_loss_func
from solo.losses.frossl import frossl_loss_func
from solo.losses.guided import GuidedLoss, distortion_loss_func
from solo.losses.hierarchical import HierarchicalContrastiveLoss, hierarchical_contrastive_loss
from solo.losses.ijepa import ijepa_loss_func
from solo.losses.info_nce import info_nce
from solo.losses.lejepa import lejepa_loss_func
from solo.losses.mae import mae_loss_func
from solo.losses.mocov2plus import mocov2plus_loss_func
from solo.losses.mocov3 import mocov3_loss_func
from solo.losses.nnclr import nnclr_loss_func
from solo.losses.pairs import Pairs
from solo.losses.ressl import ressl_loss_func
from solo.losses.siglip import siglip_loss_func
from solo.losses.simclr import simclr_loss_func
from solo.losses.simsiam import simsiam_loss_func
from solo.losses.swav import swav_loss_func
from solo.losses.vibcreg import vibcreg_loss_func
from solo.losses.vicreg import vicreg_loss_func
from solo.losses.wmse import wmse_loss_func

__all__ = [
    "DINOLoss",
    "GuidedLoss",
    "HierarchicalContrastiveLoss",
    "Pairs",
    "barlow_loss_func",
    "byol_loss_func",
    "cross_entropy_loss_func",
    "deepclusterv2_loss_func",
    "distortion_loss_func",
    "frossl_loss_func",
    "hierarchical_contrastive_loss",
    "ibot_loss_func",
    "ijepa_loss_func",
    "info_nce",
    "lejepa_loss_func",
    "koleo_loss_func",
    "mae_loss_func",
    "mocov2plus_loss_func",
    "mocov3_loss_func",
    "nnclr_loss_func",
    "ressl_loss_func",
    "siglip_loss_func",
    "simclr_loss_func",
    "simsiam_loss_func",
    "swav_loss_func",
    "vibcreg_loss_func",
    "vicreg_loss_func",
    "wmse_loss_func",
]
