"""A method of your own, outside of the package, in one file.

From the folder that holds it:

    solo pretrain scripts/pretrain/digits simclr.yaml method=own_method:Alignment method_kwargs.uniformity=0.5

Its loss is alignment and uniformity (Wang, Isola, ICML 2020, https://arxiv.org/abs/2005.10242). `Kwargs` are checked
and explained as those of any method; watching, checkpoints, resuming and evaluation come with `BaseMethod`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from solo.args.fields import REQUIRED, key
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.catalogue import MethodFacts
from solo.nn import mlp


@dataclass(kw_only=True)
class AlignmentKwargs:
    """Keys of `method_kwargs`: type, default, range and a sentence for `--help`."""

    proj_hidden_dim: int = key(REQUIRED, "width of the projector's hidden layers", ge=1)
    proj_output_dim: int = key(REQUIRED, "width of the projection", ge=1)
    temperature: float = key(0.2, "of HEX, where it is blended in", gt=0)
    uniformity: float = key(1.0, "weight of the uniformity", ge=0)


class Alignment(BaseMethod):
    """Views of an image lie close together, all images together spread over the sphere."""

    Kwargs = AlignmentKwargs
    facts = MethodFacts(hex="blends")  # so that type=HEX_adaptive is allowed; the rest are the defaults
    trainable = ("projector",)
    metric = "train_alignment_loss"

    def build(self, kw: Any) -> None:
        """Make the heads; `kw` is an `AlignmentKwargs`."""
        self.uniformity = kw.uniformity
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, norm=False)

    def heads(self, feats: Tensor) -> Outputs:
        """From features (B, F) to what the loss needs; `z` is what HEX, watching and evaluation look at."""
        return {"z": self.projector(feats)}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """The loss of all views; each key of `out` holds one tensor a view."""
        z0, z1 = (F.normalize(z, dim=1) for z in out["z"])
        align = (z0 - z1).square().sum(dim=1).mean()
        spread = torch.stack([torch.pdist(z).square().mul(-2).exp().mean().log() for z in (z0, z1)]).mean()
        own = align + self.uniformity * spread
        return self.hex.blend(own, out["z"], step)
