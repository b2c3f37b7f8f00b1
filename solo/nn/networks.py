"""Parts of networks: heads, slow copies that follow (momentum teachers), frozen layers, whitening, shared BatchNorm."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from solo import distributed
from solo.errors import UserError, did_you_mean
from solo.nn.vit import parameters_like
from solo.precision import at_least_float32


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
        for name, other in (("weight_g", "original0"), ("weight_v", "original1")):
            torchs = f"{prefix}parametrizations.weight.{other}"
            if torchs in state_dict:
                state_dict[prefix + name] = state_dict.pop(torchs)
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


@torch.no_grad()
def initialize_momentum_params(online_net: nn.Module, momentum_net: nn.Module) -> None:
    """Copy the online network's parameters and freeze the momentum network's."""
    for online, momentum in zip(online_net.parameters(), momentum_net.parameters(), strict=True):
        momentum.copy_(online)
        momentum.requires_grad = False


@dataclass
class MomentumUpdater:
    """Exponential moving average of parameters, its rate tau following a cosine from `base_tau` to `final_tau`.

    BatchNorm statistics are not averaged: the momentum network keeps its own.
    """

    base_tau: float = 0.996  # rate at the start, in [0, 1]; 1 never changes the momentum network
    final_tau: float = 1.0  # rate at the end, in [base_tau, 1]

    def __post_init__(self) -> None:
        """Refuse rates out of their range."""
        what = f"momentum.base_tau={self.base_tau} and momentum.final_tau={self.final_tau} must hold"
        assert 0 <= self.base_tau <= self.final_tau <= 1, f"{what} 0 <= base <= final <= 1"
        self.cur_tau = self.base_tau

    @torch.no_grad()
    def update(self, online_net: nn.Module, momentum_net: nn.Module) -> None:
        """Momentum parameters <- tau * momentum + (1 - tau) * online; an adapted weight counts with its adapter."""
        slow: dict[str, Tensor] = dict(momentum_net.named_parameters())
        pairs = zip(parameters_like(online_net, slow), slow.values(), strict=True)
        if values := [online.to(momentum.dtype) for online, momentum in pairs]:
            torch._foreach_lerp_(list(slow.values()), values, 1 - self.cur_tau)  # on a GPU a few kernels for all

    def update_tau(self, cur_step: int, max_steps: int) -> None:
        """Set `cur_tau` for a step, from its number alone, so that a resumed run has it."""
        fallen = math.cos(math.pi * cur_step / max_steps) + 1
        self.cur_tau = self.final_tau - (self.final_tau - self.base_tau) * fallen / 2


def freeze_layers(backbone: nn.Module, trained: Sequence[str]) -> list[nn.Module]:
    """Freeze all layers of a backbone but those named, and return them; a `UserError` for a name that isn't there."""
    modules = dict(backbone.named_modules())
    for name in trained:
        if not name or name not in modules:
            parts = [child for child, _ in backbone.named_children()]
            what = f"finetune_layers has {name!r}, which is no layer of {type(backbone).__name__}"
            hint = did_you_mean(name, parts)
            raise UserError(f"{what}; {hint}choose from {', '.join(parts)}, or layers inside of these")
    inside = tuple(f"{name}." for name in trained)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name.startswith(inside))
    # A module around a trained one is not frozen itself; its other parts are on the list by their own names.
    outside = (module for name, module in modules.items() if name and not f"{name}.".startswith(inside))
    frozen = [module for module in outside if not any(p.requires_grad for p in module.parameters())]
    for module in frozen:
        module.eval()  # a trainer leaves the modes as it finds them
    return frozen


class Whitening2d(nn.Module):
    """Whitening by the Cholesky factor of the batch's covariance, as in W-MSE (https://arxiv.org/abs/2007.06346).

    `eps`, in [0, 1], is the share of the identity in the covariance.
    """

    def __init__(self, output_dim: int, eps: float = 0.0) -> None:
        super().__init__()
        self.output_dim, self.eps = output_dim, eps

    def forward(self, x: Tensor) -> Tensor:
        """Rows (N, D) -> rows (N, D) in float32 or better, with mean 0 and, for eps 0, the identity as covariance.

        Raises a `UserError` if the covariance can't be inverted, on a CPU; elsewhere the rows are NaN then.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = at_least_float32(x)
            centred = x - x.mean(dim=0)
            eye = torch.eye(self.output_dim, dtype=x.dtype, device=x.device)
            covariance = (1 - self.eps) * centred.T @ centred / (len(x) - 1) + self.eps * eye
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if not x.is_cpu:  # nobody waits for the answer: the loss is refused where all losses are looked at
                factor = factor.masked_fill(failed != 0, torch.nan)
            elif failed:
                what = f"the covariance of {len(x)} rows of {self.output_dim} features can't be inverted"
                cure = "method_kwargs.whitening_size well above proj_output_dim, or a whitening_eps above 0"
                raise UserError(f"{what}; take a {cure}")
            white: Tensor = torch.linalg.solve_triangular(factor, centred.T, upper=False).T
            return white


class IterNorm(nn.Module):
    """Whitening within groups of features, by Newton's iterations for the inverse square root of the covariance.

    Iterative normalization (https://arxiv.org/abs/1904.03441), which VIbCReg uses. `num_features` are cut into
    `num_groups`, or into groups of `num_channels`, halved until it divides them; `eps` is added to the variances. The
    input has `dim` dimensions, features second; `momentum` is the share of the batch in the running statistics.
    """

    running_mean: Tensor
    running_wm: Tensor

    def __init__(
        self,
        num_features: int,
        num_groups: int = 64,
        num_channels: int | None = None,
        T: int = 5,
        dim: int = 2,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__()
        size = num_channels or (num_features - 1) // num_groups + 1
        while num_features % size:
            size //= 2
        self.num_features, self.num_groups, self.num_channels = num_features, num_features // size, size
        self.T, self.eps, self.momentum = T, eps, momentum
        self.track_running_stats = True  # False: training leaves them alone
        shape = [1, num_features, *[1] * (dim - 2)]
        self.weight = nn.Parameter(torch.ones(shape)) if affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if affine else None
        self.register_buffer("running_mean", torch.zeros(self.num_groups, size, 1))
        self.register_buffer("running_wm", torch.eye(size).repeat(self.num_groups, 1, 1))

    def forward(self, X: Tensor) -> Tensor:
        """(N, D, ...) -> (N, D, ...), whitened over all but the second dimension."""
        with torch.autocast(X.device.type, enabled=False):
            first = X.transpose(0, 1).to(self.running_wm.dtype)  # (D, N, ...)
            x = first.reshape(self.num_groups, self.num_channels, -1)  # (G, C, M)
            mean, wm = self._statistics(x) if self.training else (self.running_mean, self.running_wm)
            whitened = (wm @ (x - mean)).reshape(first.shape).transpose(0, 1)
            return whitened if self.weight is None or self.bias is None else whitened * self.weight + self.bias

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (G, C, 1) and whitening matrix (G, C, C) of the batch; moves the running ones."""
        mean = x.sum(dim=2, keepdim=True) / x.shape[2]
        centred = x - mean
        eye = torch.eye(self.num_channels, dtype=x.dtype, device=x.device)
        sigma = centred @ centred.mT / x.shape[2] + self.eps * eye
        trace = sigma.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]  # scales sigma's eigenvalues into (0, 1]
        p = eye.expand_as(sigma)
        for _ in range(self.T):
            p = 1.5 * p - 0.5 * p @ p @ p @ (sigma / trace)
        wm = p / trace.sqrt()
        if self.track_running_stats:
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_wm.lerp_(wm, self.momentum)
        return mean, wm


class LateIterNorm(IterNorm):
    """In training a loss whitens by `whiten`, when it has the rows of all processes; until then they pass."""

    whiten = IterNorm.forward

    def forward(self, X: Tensor) -> Tensor:
        """(N, D, ...) -> the same in training, in the buffers' precision; whitened by the running statistics else."""
        return X.to(self.running_wm.dtype) if self.training else self.whiten(X)


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm whose mean and variance, in training, are those of the rows of all processes, on any device.

    Values, gradients (averaged over processes, as DDP does) and running statistics are those of torch's BatchNorm in
    one process on the whole batch; processes may hold different numbers of rows. Torch's own has no CPU path. timm's
    BatchNorm also drops and activates.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C) or (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape and type; a `ValueError` for one value a channel in all processes together."""
        self._check_input_dim(input)
        if (self.training or self.running_mean is None) and distributed.is_distributed():
            with torch.autocast(input.device.type, enabled=False):
                y = self._normalise(at_least_float32(input)).to(input.dtype)
        else:
            y = super().forward(input)
        return self.act(self.drop(y)) if "act" in self._modules else y  # type: ignore[no-any-return, operator]

    def _normalise(self, x: Tensor) -> Tensor:
        over = [dim for dim in range(x.ndim) if dim != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.new_tensor([x.numel() / x.shape[1]])
        # Two passes: the mean first, for the square of the mean of large values would swallow a small variance.
        sums = distributed.sum_with_grad(torch.cat([x.sum(over), count]))
        total, count = sums[:-1], sums[-1:].detach()
        if count <= 1:
            raise ValueError(f"BatchNorm needs more than 1 value a channel in training, got {tuple(x.shape)}")
        mean = total / count
        centred = x - mean.view(shape)
        variance = distributed.sum_with_grad(centred.square().sum(over)) / count
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = variance * (count / (count - 1))
            for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.lerp_(value.detach().to(running), share)  # type: ignore[union-attr]
        y = centred * (variance + self.eps).rsqrt().view(shape)
        return y if self.weight is None else torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))


def synchronise(module: nn.Module) -> nn.Module:
    """Make every BatchNorm within `module` a `SyncedBatchNorm`, in place, with the same tensors; the module."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            part.__class__ = SyncedBatchNorm  # type: ignore[assignment]
    return module
