"""Flat cross-entropy: a classifier of the finest classes that trains the backbone, the plainest use of labels."""

from torch import Tensor, nn

from solo.losses.targets import cross_entropy_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import CrossEntropyKwargs


class CrossEntropy(BaseMethod):
    """A linear head on the backbone; images without a label don't count."""

    Kwargs = CrossEntropyKwargs
    trainable = ("head",)
    metric = "train_ce_loss"

    def build(self, kw: CrossEntropyKwargs) -> None:
        """Make the head; the online classifier beside it sees detached features, as in every method."""
        self.head = nn.Linear(self.features_dim, self.num_classes)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the head's logits (B, classes)."""
        return {"z": self.head(feats)}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy of the classes, the mean over the views."""
        losses = [cross_entropy_loss_func(logits, step.targets) for logits in out["z"]]
        return sum(losses[1:], losses[0]) / len(losses)
