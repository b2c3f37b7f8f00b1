"""Losses: pure functions of tensors that know nothing of configs or Lightning."""

from solo.losses.info_nce import info_nce
from solo.losses.pairs import Pairs
from solo.losses.simclr import simclr_loss_func

__all__ = ["Pairs", "info_nce", "simclr_loss_func"]
