"""W-MSE: whitened projections of two views should be the same; whitening keeps them from collapsing.

Ermolov, Siarohin, Sangineto, Sebe: Whitening for self-supervised representation learning,
https://arxiv.org/abs/2007.06346.
"""

from itertools import combinations

import torch
from torch import Tensor

from solo import distributed
from solo.errors import UserError
from solo.losses.views import wmse_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import WMSEKwargs
from solo.nn.heads import ProjectorHeads, mlp
from solo.nn.whitening import Whitening2d
from solo.precision import at_least_float32


class WMSE(ProjectorHeads, BaseMethod):
    """One projector, and whitening; any number of large views."""

    Kwargs = WMSEKwargs
    trainable = ("projector",)
    metric = "train_wmse_loss"

    def build(self, kw: WMSEKwargs) -> None:
        self.whitening_iters, self.whitening_size = kw.whitening_iters, kw.whitening_size
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim)
        self.whitening = Whitening2d(kw.proj_output_dim, eps=kw.whitening_eps)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Mean over random partitions of the batch, their parts whitened, and over the pairs of large views.

        A partition is of the batch of all processes; each whitens its share of the parts.
        """
        batch = len(out["z"][0])
        if batch % self.whitening_size:
            raise UserError(
                f"a batch of {batch} can't be cut into parts of method_kwargs.whitening_size={self.whitening_size}; "
                "choose a divisor of optimizer.batch_size"
            )
        views = distributed.gather_each(*map(at_least_float32, out["z"][: self.num_large_crops]))
        number, device, losses = len(views[0]), views[0].device, []
        drawn = torch.stack([torch.randperm(number, device=device) for _ in range(self.whitening_iters)])
        for order in distributed.of_first(drawn):
            parts = distributed.own_rows(order.view(-1, self.whitening_size))
            white = [torch.cat([self.whitening(z[part]) for part in parts]) for z in views]
            losses += [wmse_loss_func(a, b) for a, b in combinations(white, 2)]
        return torch.stack(losses).mean()
