"""The local term of HEX over a list of hierarchy negatives, and its debiasing; both in log space."""

import math

import torch
from torch import Tensor

from solo.losses.blockwise import WHOLE, Whole
from solo.losses.info_nce import MaskedSoftmax
from solo.losses.pairs import listed


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

    On a CPU over a list of H(i), a small share of the row; elsewhere over whole rows: see `listed`.

    Args:
        x: (R, N) logits.
        hierarchy: (R, N) boolean, H(i).
        beta: >= 0.
        among: (R, N) whose mean of exp(beta x) the weights are relative to; H(i) by default.
        whole: makes numbers of whole rows, where N isn't all keys.

    Attributes:
        size: (R,) |H(i)|.
        log_size: (R,), -inf where H(i) is empty.
        log: (R,) log L_i, -inf where H(i) is empty.
    """

    def __init__(
        self, x: Tensor, hierarchy: Tensor, beta: float, among: Tensor | None = None, whole: Whole = WHOLE
    ) -> None:
        self._beta = beta
        self._listed = hierarchy.nonzero(as_tuple=True) if listed(x) and whole is WHOLE else None
        if self._listed is None:
            self.size = whole(hierarchy.sum(dim=1))
            self._parts = [MaskedSoftmax(factor * x, hierarchy, whole) for factor in (1 + beta, beta)]
            tilted, weights = (part.lse for part in self._parts)
        else:
            row, negatives = self._listed[0], x[self._listed]
            self.size = torch.bincount(row, minlength=len(x))
            self._lists = [ListSoftmax(factor * negatives, row, len(x)) for factor in (1 + beta, beta)]
            tilted, weights = (part.lse for part in self._lists)
        self.log_size = self.size.to(x.dtype).log()
        self._all: MaskedSoftmax | None = None
        log_number = self.log_size
        if among is not None:
            self._all = MaskedSoftmax(beta * x, among, whole)
            log_number, weights = whole(among.sum(dim=1)).to(x.dtype).log(), self._all.lse
        self.log = torch.where(self.size > 0, log_number + tilted - weights, -torch.inf)

    def add_gradient(self, grad: Tensor, per_row: Tensor) -> None:
        """Add the gradient of ``sum_i per_row_i * log L_i`` with respect to the logits to ``grad`` (R, N); once."""
        if self._all is not None:
            grad -= self._all.gradient(per_row * self._beta)
        if self._listed is None:
            tilted, weights = self._parts
            grad.add_(tilted.gradient(per_row), alpha=1 + self._beta)
            if self._all is None:
                grad.sub_(weights.gradient(per_row), alpha=self._beta)
            return
        change, row = (1 + self._beta) * self._lists[0].softmax, per_row[self._listed[0]]
        if self._all is None:
            change = change - self._beta * self._lists[1].softmax
        grad[self._listed] += row * change


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
