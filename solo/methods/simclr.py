"""SimCLR: every image against all others, its own other views as positives.

Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual representations,
https://arxiv.org/abs/2002.05709. `type: HEX_fixed | HEX_adaptive | superclass` replaces its loss by HEX.
"""

from torch import Tensor

from solo.losses.info_nce import info_nce
from solo.losses.pairs import Pairs
from solo.losses.ring import RingPairs
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import SimCLRKwargs
from solo.nn.heads import ProjectorHeads, mlp


class SimCLR(ProjectorHeads, BaseMethod):
    """One projector, one contrastive loss over all views."""

    Kwargs = SimCLRKwargs
    trainable = ("projector",)
    metric = "train_nce_loss"

    def build(self, kw: SimCLRKwargs) -> None:
        self.temperature = kw.temperature
        self.pairs: type[Pairs] = RingPairs if self.config.performance.ring_loss else Pairs
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, norm=False)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """InfoNCE over all views, or HEX."""
        return self.hex.replace(self.info_nce, self.pairs.from_views(out["z"], step.ids, step.groups), step)

    def info_nce(self, pairs: Pairs) -> Tensor:
        """The method's own loss; `hex.positives` says how several positives of one anchor count."""
        return info_nce(pairs, self.temperature, self.hex.positives)
