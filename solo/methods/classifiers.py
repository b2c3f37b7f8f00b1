"""Classifiers that train the backbone: of the finest classes, or on a label tree, with one loss each.

An image may be labelled at any depth and counts for what is known of it, one without any label for nothing. The losses
of tree heads are those of `solo.losses.tree_heads` and `tree_geometry`, and get the `method_kwargs` by their
names; docs/hierarchical.md has formulas and sources.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from solo.losses import tree_geometry, tree_heads
from solo.losses.targets import cross_entropy_loss_func
from solo.losses.tree_geometry import GuidedLoss
from solo.methods import catalogue as of
from solo.methods.base import BaseMethod, MlpHeads, Outputs, TrainStep
from solo.nn.networks import mlp
from solo.taxonomy import Taxonomy


class Guided(MlpHeads, BaseMethod):
    """Guided: one prototype a class, their distances those of the label tree.

    Garnot, Landrieu: Leveraging class hierarchies with metric-guided prototype learning,
    https://arxiv.org/abs/2007.03047.
    """

    trainable = ("projector", "prototypes")
    metric = "train_guided_loss"
    projector_form = {"norm": False}

    def build(self, kw: of.GuidedKwargs) -> None:
        super().build(kw)
        classes = torch.arange(self.num_classes).numpy()
        tree = 2.0 * (1 - torch.eye(self.num_classes))  # all classes are equally far from each other
        if self.taxonomy:
            tree = torch.from_numpy(self.taxonomy.distance(classes[:, None], classes)).float()
        self.prototypes = GuidedLoss(tree, kw.proj_output_dim, kw.distortion_weight)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        targets = step.targets.repeat(len(out["z"]))
        return self.prototypes(torch.cat(out["z"]), targets)  # type: ignore[no-any-return]


class TreeHead(BaseMethod):
    """A head, linear or with a hidden layer, and a loss on its outputs."""

    Loss: ClassVar[type[tree_heads.TreeLoss]]
    on_features: ClassVar[bool] = False  # the loss looks at the features themselves
    trainable: ClassVar[tuple[str, ...]] = ("head",)
    metric = "train_tree_loss"

    def build(self, kw: Any) -> None:
        """Make the loss for the classes' tree, and a head as wide as it asks for."""
        tree = self.taxonomy or Taxonomy.flat([str(name) for name in range(self.num_classes)])
        own = {name: value for name, value in vars(kw).items() if not name.startswith("proj_")}
        dim = self.features_dim if self.on_features else getattr(kw, "proj_output_dim", None)
        hidden, wide = getattr(kw, "proj_hidden_dim", None), self.features_dim
        self.criterion = self.Loss(tree, **({} if dim is None else {"dim": dim}), **own)
        width = self.criterion.width
        self.head: nn.Module = mlp(wide, hidden, width, norm=False) if hidden else nn.Linear(wide, width)
        if self.on_features:
            self.head = nn.Identity()

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the head's outputs (B, width)."""
        return {"z": self.head(feats)}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        labels = step.labels.repeat(len(out["z"]), 1)
        return self.criterion(torch.cat(out["z"]), labels)  # type: ignore[no-any-return]


class CrossEntropy(TreeHead):
    """Flat cross-entropy: a classifier of the finest classes that trains the backbone, the plainest use of labels."""

    metric = "train_ce_loss"

    def build(self, kw: of.Keys) -> None:
        self.head = nn.Linear(self.features_dim, self.num_classes)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        losses = [cross_entropy_loss_func(logits, step.targets) for logits in out["z"]]
        return sum(losses[1:], losses[0]) / len(losses)


def _with(loss: type, what: str, trainable: tuple[str, ...] = ("head",), on_features: bool = False) -> Any:
    """The class of a method that only has another loss, which may have parameters of its own, `criterion`."""
    own = {"Loss": loss, "trainable": trainable, "on_features": on_features, "__doc__": what, "__module__": __name__}
    return type(loss.__name__, (TreeHead,), own)


LevelHeads = _with(tree_heads.LevelHeads, "A softmax for each level.")
SoftLabels = _with(tree_heads.SoftLabels, "A softmax over the classes, towards all, the nearer in the tree the more.")
HXE = _with(tree_heads.HXE, "A softmax over the classes, judged edge by edge on the way from the root.")
HAFrame = _with(tree_heads.HAFrame, "Class vectors that stay as the tree has them.")
HierCOS = _with(tree_heads.HierCOS, "An axis for each node of the tree.")
LorentzHeads = _with(tree_geometry.LorentzHeads, "Images and nodes in hyperbolic space.", ("head", "criterion"))
LevelContrast = _with(tree_heads.LevelContrast, "Images and nodes contrasted level by level.", ("head", "criterion"))
_DISTANCES = "A linear classifier on the features, whose means have the distances of the tree."
HypStructure = _with(tree_geometry.HypStructure, _DISTANCES, ("criterion",), on_features=True)


class Happier(TreeHead):
    """Retrieval in the order of the tree."""

    Loss = tree_heads.Happier
    trainable = ("head", "criterion")

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """The mean over the views, in each of which images rank each other."""
        return self.criterion(torch.stack(out["z"]), step.labels)  # type: ignore[no-any-return]
