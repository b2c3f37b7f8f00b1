"""One builder for every projector and predictor, and a layer whose weight is a direction times a length."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What torch.nn.utils.parametrizations.weight_norm calls the two.
_OTHER_NAMES = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


class WeightNormLinear(nn.Module):
    """Linear without bias, `weight = weight_g * weight_v / |weight_v|` row by row, all lengths 1 at first.

    Unlike torch's, it can be copied, and its names are those of published checkpoints; torch's newer ones load, too.
    `weight_g` is trained with `learn_length`.
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


def mlp(
    in_dim: int,
    hidden_dim: int,
    out_dim: int,
    depth: int = 2,
    *,
    norm: bool = True,
    bias: bool = True,
    last_bias: bool = True,
    last_norm: Literal["affine", "plain"] | None = None,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """`depth` linear layers with BatchNorm and an activation between them: (N, in_dim) -> (N, out_dim).

    The places in the `Sequential` are those of solo-learn's heads, so that checkpoints are exchangeable. `bias` is that
    of the hidden layers; a BatchNorm after the last one is with (`affine`) or without (`plain`) weight and bias.
    """
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers.append(nn.Linear(in_dim, hidden_dim, bias=bias))
        layers += [nn.BatchNorm1d(hidden_dim)] if norm else []
        layers.append(activation())
        in_dim = hidden_dim
    layers.append(nn.Linear(in_dim, out_dim, bias=last_bias))
    if last_norm is not None:
        layers.append(nn.BatchNorm1d(out_dim, affine=last_norm == "affine"))
    return nn.Sequential(*layers)
