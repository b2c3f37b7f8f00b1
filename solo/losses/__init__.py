"""Losses: pure functions of tensors that know nothing of configs or Lightning."""

from solo.losses.hierarchical import HierarchicalContrastiveLoss, hierarchical_contrastive_loss
from solo.losses.info_nce import (
    info_nce,
    mocov2plus_loss_func,
    mocov3_loss_func,
    nnclr_loss_func,
    siglip_loss_func,
    simclr_loss_func,
)
from solo.losses.pairs import Pairs
from solo.losses.targets import (
    DINOLoss,
    barlow_loss_func,
    byol_loss_func,
    cross_entropy_loss_func,
    deepclusterv2_loss_func,
    frossl_loss_func,
    ibot_loss_func,
    ijepa_loss_func,
    koleo_loss_func,
    lejepa_loss_func,
    mae_loss_func,
    ressl_loss_func,
    simsiam_loss_func,
    swav_loss_func,
    vibcreg_loss_func,
    vicreg_loss_func,
    wmse_loss_func,
)
from solo.losses.tree_geometry import GuidedLoss, distortion_loss_func

__all__ = ["DINOLoss", "GuidedLoss", "HierarchicalContrastiveLoss", "Pairs", "barlow_loss_func", "byol_loss_func"]
__all__ += ["cross_entropy_loss_func", "deepclusterv2_loss_func", "distortion_loss_func", "frossl_loss_func"]
__all__ += ["hierarchical_contrastive_loss", "ibot_loss_func", "ijepa_loss_func", "info_nce", "koleo_loss_func"]
__all__ += ["lejepa_loss_func", "mae_loss_func", "mocov2plus_loss_func", "mocov3_loss_func", "nnclr_loss_func"]
__all__ += ["ressl_loss_func", "siglip_loss_func", "simclr_loss_func", "simsiam_loss_func", "swav_loss_func"]
__all__ += ["vibcreg_loss_func", "vicreg_loss_func", "wmse_loss_func"]
