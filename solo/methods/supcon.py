"""SupCon: SimCLR whose positives are all images of the same label.

Khosla et al.: Supervised contrastive learning, https://arxiv.org/abs/2004.11362. Positives are summed inside the log
(their L_in), as in solo-learn; `hex.positives=outside` takes the mean of the logs (L_out, which they recommend).
`type: HEX_*` replaces its loss by HEX, with the same positives.
"""

import torch
from torch import Tensor

from solo.methods.base import Outputs, TrainStep
from solo.methods.simclr import SimCLR


class SupCon(SimCLR):
    """SimCLR's network; an image without a label has its own views as positives, as in SimCLR."""

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """InfoNCE over all views, or HEX, with the labels for ids."""
        ids = torch.where(step.targets >= 0, step.targets, -1 - step.ids)
        return self.hex.replace(self.info_nce, self.pairs.from_views(out["z"], ids, step.groups), step)
