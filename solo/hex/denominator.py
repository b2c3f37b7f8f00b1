"""HEX where labels name partners at several levels: labels say who attracts whom, emergence who is kept apart.

The multi-label losses (``solo/losses/hierarchical``) sum ``ell(i, p) = log D_i - x_ip`` over the partners p of all
levels. With S(i) the partners of anchor i at the finest level (its other views, and images of its class where the class
is the leaf) and N(i) everybody else,

    D_i = sum_{p in S(i)} exp(x_ip) + sum_{k in N(i) - H(i)} exp(x_ik) + L_i

where H(i) are the hierarchy negatives of the policy and L_i their local term, debiased with the mean of exp(x_ip) over
S(i) (``solo/hex/loss``). So a row without labels, of two views, has the HEX loss; with H(i) empty, or
``beta = tau_plus = 0``, D_i is that of the multi-label losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solo.hex.local import LocalTerm, debias
from solo.hex.policy import Selector
from solo.losses.hierarchical_rows import Rows, RowSoftmax
from solo.losses.info_nce import MaskedSoftmax
from solo.losses.label_levels import LabelLevels


class HexDenominator:
    """Makes the denominators of a block of anchors; see the top of this file.

    Args:
        levels: the label tree's nodes of the rows.
        selector: H(i) before it is cut to N(i).
        temperature: > 0.
        beta: >= 0.
        tau_plus: in [0, 1).

    Attributes:
        stats: means over the rows so far: ``hierarchy_negatives``, ``local_share``, ``bounded``, and ``threshold``.
    """

    def __init__(
        self, levels: LabelLevels, selector: Selector, temperature: float, beta: float, tau_plus: float
    ) -> None:
        self.levels, self.selector = levels, selector
        self.inverse_temperature, self.beta, self.tau_plus = 1 / temperature, beta, tau_plus
        self.stats: dict[str, Tensor] = {}
        self._rows = 0
        if selector.threshold is not None:
            self.stats["threshold"] = selector.threshold

    def __call__(self, similarity: Tensor, x: Tensor, rows: Rows, self_columns: Tensor) -> RowSoftmax:
        """Denominators of the block."""
        leaf = self.levels.anchors[rows, None, -1] == self.levels.keys[:, -1]
        chosen = self.selector(similarity, rows)  # type: ignore[arg-type]  # indices of anchors work as slices do
        hierarchy = chosen & ~leaf
        other = torch.ones_like(leaf).scatter_(1, self_columns[:, None], False)
        softmax = _HexSoftmax(x, leaf & other, hierarchy, other & ~hierarchy, self)
        if isinstance(rows, slice):
            self._record(softmax)
        return softmax

    def _record(self, softmax: _HexSoftmax) -> None:
        seen = self._rows + len(softmax.lse)
        means = {
            "hierarchy_negatives": softmax.local.size.to(softmax.lse.dtype).mean(),
            "local_share": (softmax.log_debiased - softmax.lse).exp().mean(),
            "bounded": (~softmax.active & (softmax.local.size > 0)).to(softmax.lse.dtype).mean(),
        }
        for name, value in means.items():
            self.stats[name] = self.stats.get(name, value).lerp(value, len(softmax.lse) / max(1, seen))
        self._rows = seen


class _HexSoftmax:
    """``log D_i`` and its gradient."""

    def __init__(self, x: Tensor, leaf: Tensor, hierarchy: Tensor, rest: Tensor, settings: HexDenominator) -> None:
        self._leaf, self._rest = MaskedSoftmax(x, leaf), MaskedSoftmax(x, rest)
        self.local, self._tau_plus = LocalTerm(x, hierarchy, settings.beta), settings.tau_plus
        partners = leaf.sum(dim=1).clamp_min(1).to(x.dtype)
        self._mean = self._leaf.lse - partners.log()  # log of the mean of exp(x) over S(i)
        self.log_debiased, self.active = debias(
            self.local.log, self.local.log_size, self._mean, settings.tau_plus, settings.inverse_temperature
        )
        self.lse = torch.logaddexp(self._rest.lse, self.log_debiased)

    def gradient(self, per_row: Tensor) -> Tensor:
        """Gradient (R, N) of ``sum_i per_row_i * log D_i``."""
        lse = self.lse.masked_fill(self.lse == -torch.inf, 0)
        log_norm = lse + math.log1p(-self._tau_plus)
        grad = self._rest.gradient(per_row * (self._rest.lse - lse).exp())
        d_local = torch.where(self.active, per_row * (self.local.log - log_norm).exp(), 0.0)
        self.local.add_gradient(grad, d_local)
        if self._tau_plus > 0:
            taken = math.log(self._tau_plus) + self.local.log_size + self._mean - log_norm
            grad -= self._leaf.gradient(torch.where(self.active, per_row * taken.exp(), 0.0))
        return grad
