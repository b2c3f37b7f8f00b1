"""The local term of HEX over a list of hierarchy negatives, and its debiasing; both in log space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solo.losses.info_nce import MaskedSoftmax


class ListSoftmax:
    """Log-sum-exp of each row over a list of entries, and its gradient.

    Args:
        x: (K,) logits.
        row: (K,) row of each.
        rows: number of rows R.

    Attributes:
        lse: (R,), -inf for rows without an entry.
        softmax: (K,), sums to 1 over the entries of a row.
    """

    def __init__(self, x: Tensor, row: Tensor, rows: int) -> None:
        largest = x.new_zeros(rows).scatter_reduce_(0, row, x, "amax", include_self=False)
        exp = (x - largest[row]).exp_()
        total = x.new_zeros(rows).index_add_(0, row, exp)
        self.lse = largest + total.log()
        self.softmax = exp.div_(total[row])


class LocalTerm:
    """``log L_i = log |H(i)| + LSE((1 + beta) x) - LSE(beta x)`` over H(i), for a block of rows.

    Args:
        x: (R, N) logits.
        listed: (K,) and (K,), row and column of each hierarchy negative.
        beta: >= 0.
        among: (R, N) whose mean of exp(beta x) the weights are relative to; H(i) by default.

    Attributes:
        row, column: (K,) the hierarchy negatives.
        size: (R,) |H(i)|.
        log_size: (R,), -inf where H(i) is empty.
        log: (R,) log L_i, -inf where H(i) is empty.
    """

    def __init__(self, x: Tensor, listed: tuple[Tensor, ...], beta: float, among: Tensor | None = None) -> None:
        self.row, self.column = listed
        negatives, self._beta = x[listed], beta
        self._all: MaskedSoftmax | None = None
        self.size = torch.bincount(self.row, minlength=len(x))
        self._tilted = ListSoftmax((1 + beta) * negatives, self.row, len(x))
        self._weights = ListSoftmax(beta * negatives, self.row, len(x))
        self.log_size = self.size.to(x.dtype).log()
        log_number, log_weights = self.log_size, self._weights.lse
        if among is not None:
            self._all = MaskedSoftmax(beta * x, among)
            log_number, log_weights = among.sum(dim=1).to(x.dtype).log(), self._all.lse
        self.log = torch.where(self.size > 0, log_number + self._tilted.lse - log_weights, -torch.inf)

    def gradient(self, per_row: Tensor) -> Tensor:
        """Gradient (K,) of ``sum_i per_row_i * log L_i`` with respect to the logits of the hierarchy negatives."""
        return per_row[self.row] * ((1 + self._beta) * self._tilted.softmax - self._beta * self._weights.softmax)

    def add_gradient(self, grad: Tensor, per_row: Tensor) -> None:
        """Add the same to ``grad`` (R, N), which is 0 at the hierarchy negatives."""
        if self._all is None:
            grad[self.row, self.column] = self.gradient(per_row)
            return
        grad -= self._all.gradient(per_row * self._beta)
        grad[self.row, self.column] += per_row[self.row] * (1 + self._beta) * self._tilted.softmax


def debias(
    log_local: Tensor, log_size: Tensor, x: Tensor, tau_plus: float, inverse_temperature: float
) -> tuple[Tensor, Tensor]:
    """``log max( (L - tau_plus |H| exp(x)) / (1 - tau_plus), |H| exp(-1 / tau) )`` of each term.

    Args:
        log_local: (K,) log L.
        log_size: (K,) log |H|.
        x: (K,) logit of the positive.
        tau_plus: in [0, 1).
        inverse_temperature: 1 / tau.

    Returns:
        The logs (K,), and whether each is above its lower bound, where it has a gradient.
    """
    log_floor = log_size - inverse_temperature
    if tau_plus == 0:
        return torch.maximum(log_local, log_floor), log_local > log_floor
    # L - c with c = tau_plus |H| exp(x), as log L + log(1 - c / L); below the bound its value is not needed.
    ratio = torch.where(log_local > -torch.inf, math.log(tau_plus) + log_size + x - log_local, 0.0)
    log_rest = torch.log1p(-ratio.exp().clamp_max(1.0))  # -inf where c >= L
    debiased = log_local + log_rest - math.log1p(-tau_plus)
    return torch.maximum(debiased, log_floor), debiased > log_floor
