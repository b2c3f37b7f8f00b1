"""BatchNorm over the batches of all processes, on any device: torch's own `SyncBatchNorm` has no CPU path."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from solo import distributed


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm whose mean and variance, in training, are those of the rows of all processes.

    Values, gradients (averaged over processes, as DDP does) and running statistics are those of torch's BatchNorm in
    one process on the whole batch. Processes may hold different numbers of rows. Outside of training, or without a
    process group, it is torch's BatchNorm. Arguments, parameters and buffers are torch's as well.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C) or (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) or (N, C, ...) -> the same shape and type.

        Raises a `ValueError` if all processes together have one value a channel, which has no variance.
        """
        self._check_input_dim(input)
        batch_statistics = self.training or self.running_mean is None or self.running_var is None
        if not (batch_statistics and distributed.is_distributed()):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            half = input.dtype in (torch.float16, torch.bfloat16)
            return self._normalise(input.float() if half else input).to(input.dtype)

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
        if self.training and self.track_running_stats:
            self._move_statistics(mean, variance * (count / (count - 1)))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is None:
            return y
        return torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))

    @torch.no_grad()
    def _move_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


class _SyncedBatchNormAct(SyncedBatchNorm):
    """timm's BatchNorm that also drops and activates."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        activated: Tensor = self.act(self.drop(super().forward(input)))
        return activated


def synchronise(module: nn.Module) -> nn.Module:
    """Make every BatchNorm within `module` a `SyncedBatchNorm`, in place, with the same tensors; the module."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            part.__class__ = _SyncedBatchNormAct if hasattr(part, "act") else SyncedBatchNorm  # type: ignore[assignment]
    return module
