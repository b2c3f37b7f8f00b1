"""Balanced soft assignments by the algorithm of Sinkhorn and Knopp, as in SwAV (https://arxiv.org/abs/2006.09882)."""

import torch
from torch import Tensor, nn

from solo import distributed
from solo.precision import at_least_float32


class SinkhornKnopp(nn.Module):
    """Scores of samples and prototypes -> soft assignments in which all prototypes are used alike.

    Args:
        num_iters: rounds of normalising the prototypes, then the samples; at least 1.
        epsilon: > 0, the smaller, the harder the assignments.
        world_size: without effect: the process group knows.
    """

    def __init__(self, num_iters: int = 3, epsilon: float = 0.05, world_size: int = 1) -> None:
        super().__init__()
        self.num_iters, self.epsilon, self.world_size = num_iters, epsilon, world_size

    @torch.no_grad()
    def forward(self, Q: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scores (B, K) of this process -> assignments (B, K) whose rows sum to 1, balanced over all processes.

        Or (V, B, K), each of the V balanced by itself. Rows that don't count (`counts` (B,) or (V, B) boolean, None:
        all do) have no part in the balance, and are 0.
        """
        scores = at_least_float32(Q)
        log_q = scores / self.epsilon  # in log space, where no score is too large
        for _ in range(self.num_iters):
            if counts is not None:
                log_q = log_q.masked_fill(~counts[..., None], -torch.inf)
            log_q = log_q - distributed.gather_no_grad(log_q.logsumexp(dim=-2)[None]).logsumexp(dim=0).unsqueeze(-2)
            log_q = log_q.log_softmax(dim=-1)
        return log_q.exp() if counts is None else log_q.exp().masked_fill(~counts[..., None], 0)
