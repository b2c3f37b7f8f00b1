"""Guided: one prototype a class, their distances those of the label tree.

Garnot, Landrieu: Leveraging class hierarchies with metric-guided prototype learning, https://arxiv.org/abs/2007.03047.
"""

import torch
from torch import Tensor

from solo.losses.guided import GuidedLoss
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import GuidedKwargs
from solo.nn.heads import ProjectorHeads, mlp


class Guided(ProjectorHeads, BaseMethod):
    """A projector into the space of the prototypes; images without a label don't count."""

    Kwargs = GuidedKwargs
    trainable = ("projector", "prototypes")
    metric = "train_guided_loss"

    def build(self, kw: GuidedKwargs) -> None:
        """Make projector and prototypes; without a label tree all classes are equally far from each other."""
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, norm=False)
        classes = torch.arange(self.num_classes).numpy()
        tree = (
            torch.from_numpy(self.taxonomy.distance(classes[:, None], classes)).float()
            if self.taxonomy
            else 2.0 * (1 - torch.eye(self.num_classes))
        )
        self.prototypes = GuidedLoss(tree, kw.proj_output_dim, kw.distortion_weight)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy of the distances to the prototypes, and the distortion of the tree."""
        z = torch.cat(out["z"])
        loss: Tensor = self.prototypes(z, step.targets.repeat(len(out["z"])))
        return loss
