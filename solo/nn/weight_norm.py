"""A linear layer whose weight is a direction times a length."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What torch.nn.utils.parametrizations.weight_norm calls the two.
_OTHER_NAMES = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


class WeightNormLinear(nn.Module):
    """Linear without bias, `weight = weight_g * weight_v / |weight_v|` row by row, all lengths 1 at first.

    Unlike torch's, it can be copied, and its names are those of published checkpoints; torch's newer ones load, too.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        learn_length: whether `weight_g` is trained.
    """

    def __init__(self, in_features: int, out_features: int, learn_length: bool = False) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_features, 1), requires_grad=learn_length)
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """The matrix that is applied, (out_features, in_features)."""
        return F.normalize(self.weight_v, dim=1) * self.weight_g

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(x, self.weight)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, other in _OTHER_NAMES.items():
            if prefix + other in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + other)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
