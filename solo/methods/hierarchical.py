"""HiMulCon, HiConE and HiMulConE: contrastive with the labels of all levels.

Zhang, Xu, Xiong, Ramaiah: Use All The Labels, https://arxiv.org/abs/2204.13207. Any image may have all, some or none of
its labels: what it has no label for, it is compared by itself, as in SimCLR. `type: HEX_adaptive` (or another) takes
the hierarchy from the batch where labels don't give it, see `solo/hex/denominator.py`; `hex.temperature` is then the
temperature of the whole loss, as in the methods whose loss HEX replaces.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from solo import distributed
from solo.losses.hierarchical import Kind, hierarchical_contrastive_loss
from solo.losses.pairs import Pairs
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import HierarchicalKwargs
from solo.methods.simclr import SimCLR


class HiMulConE(SimCLR):
    """SimCLR's network; the views of an image meet at its leaf, other images where their labels part."""

    Kwargs = HierarchicalKwargs
    metric = "train_hierarchical_loss"
    kind: ClassVar[Kind] = "himulcone"

    def build(self, kw: Any) -> None:
        super().build(kw)
        self.kw: HierarchicalKwargs = kw

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """The multi-label loss over all views."""
        labels = step.labels
        if self.kw.instance:
            labels = torch.cat((labels, step.ids[:, None].to(labels)), dim=1)
        labels = labels.repeat(len(out["z"]), 1)
        key_labels = distributed.gather_later(labels)
        pairs = Pairs.from_views(out["z"], step.ids, step.groups)
        own = (pairs, labels, self.kind, self.hex.temperature)
        settings = (self.kw.level_penalty, self.kw.pairs, self.kw.granularity)
        return hierarchical_contrastive_loss(*own, *settings, self.hex.denominator(pairs, step), *key_labels())


class HiMulCon(HiMulConE):
    """Levels weigh differently, and no level constrains another."""

    kind = "himulcon"


class HiConE(HiMulConE):
    """No pair of a coarser level has a smaller loss than any of a finer one."""

    kind = "hicone"
