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

    def forward(self, Q: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scores (B, K) of this process -> assignments (B, K) whose rows sum to 1, balanced over all processes.

        Or (V, B, K), each of the V balanced by itself. Rows that don't count (`counts` (B,) or (V, B) boolean, None:
        all do) have no part in the balance, and are 0.
        """
        return self.each(Q, counts=counts)[0]

    @torch.no_grad()
    def each(self, *scores: Tensor, counts: Tensor | None = None) -> list[Tensor]:
        """Assignments of several scores, each balanced by itself; their sums travel together."""
        log_q = [at_least_float32(own) / self.epsilon for own in scores]  # in log space, where no score is too large
        for _ in range(self.num_iters):
            if counts is not None:
                log_q = [q.masked_fill(~counts[..., None], -torch.inf) for q in log_q]
            sums = distributed.gather_each(*(q.logsumexp(dim=-2)[None] for q in log_q))
            balanced = (q - every.logsumexp(dim=0).unsqueeze(-2) for q, every in zip(log_q, sums, strict=True))
            log_q = [q.log_softmax(dim=-1) for q in balanced]
        return [q.exp() if counts is None else q.exp().masked_fill(~counts[..., None], 0) for q in log_q]
