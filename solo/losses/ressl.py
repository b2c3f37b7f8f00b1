"""ReSSL's loss (Zheng et al., 2021): two views should relate to a queue in the same way."""

import torch.nn.functional as F
from torch import Tensor

from solo.losses.numerics import full_precision


@full_precision
def ressl_loss_func(
    q: Tensor, k: Tensor, queue: Tensor, temperature_q: float = 0.1, temperature_k: float = 0.04
) -> Tensor:
    """Cross-entropy of the student's relations to the queue under those of the teacher.

    Args:
        q: (N, D) unit rows of the student.
        k: (N, D) unit rows of the teacher; get no gradient.
        queue: (K, D) unit rows, the same on all processes; get a gradient through the student only.
        temperature_q: > 0, of the student.
        temperature_k: > 0, of the teacher; the smaller, the sharper its relations.

    Returns:
        Scalar.
    """
    target = F.softmax((k @ queue.T).detach() / temperature_k, dim=1)  # (N, K)
    return F.cross_entropy(q @ queue.T / temperature_q, target)
