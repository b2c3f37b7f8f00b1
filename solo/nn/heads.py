"""One builder for every projector and predictor."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn


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

    The places in the `Sequential` are those of solo-learn's heads, so that checkpoints are exchangeable.

    Args:
        in_dim: width of the input.
        hidden_dim: width of every layer but the last.
        out_dim: width of the output.
        depth: number of linear layers, at least 1.
        norm: put a BatchNorm1d after each hidden layer.
        bias: give the hidden layers a bias.
        last_bias: give the last layer a bias.
        last_norm: BatchNorm1d after the last layer, with (`affine`) or without (`plain`) weight and bias.
        activation: called for each activation.
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


class ProjectorHeads:
    """Mixin of the methods whose output is a projection."""

    projector: nn.Module

    def heads(self, feats: Tensor) -> dict[str, Any]:
        """Add `z`, the projections (B, proj_output_dim)."""
        return {"z": self.projector(feats)}


class PredictorHeads:
    """Mixin of the methods whose outputs are a projection and its prediction."""

    projector: nn.Module
    predictor: nn.Module

    def heads(self, feats: Tensor) -> dict[str, Any]:
        """Add `z`, the projections, and `p`, the predictions, both (B, proj_output_dim)."""
        z = self.projector(feats)
        return {"z": z, "p": self.predictor(z)}
