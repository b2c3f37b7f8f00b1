"""Losses towards a target: classes, clusters, what a slow network says, and what was hidden. Each is a scalar."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from solo import distributed
from solo.losses.pairs import unit
from solo.precision import full_precision


@full_precision
def cross_entropy_loss_func(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the rows with a label; its mean over processes is that of one process with all rows.

    Logits are (N, C); targets classes (N,), -1 for unknown, or soft (N, C). ``label_smoothing`` is in [0, 1). 0 if no
    process has a label.
    """
    if targets.is_floating_point():
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing)
    return total / distributed.per_process((targets >= 0).sum())


@full_precision
def deepclusterv2_loss_func(
    outputs: Sequence[Tensor] | Tensor, assignments: Tensor, temperature: float = 0.1
) -> Tensor:
    """DeepCluster v2's loss (Caron et al., 2020): classify every view into the cluster of its image.

    Mean over the P sets of prototypes; one without any assigned image counts as 0 (solo-learn: NaN). Of logits
    (P, V, N, C), or P tensors (V, N, C) of different C, and the cluster (P, N) of every image, -1 for not assigned.
    """
    sums, counts = [], []
    for logits, clusters in zip(outputs, assignments, strict=True):
        rows = logits.flatten(0, -2) / temperature  # (V * N, C)
        target = clusters.repeat(len(rows) // len(clusters))
        sums.append(F.cross_entropy(rows, target, ignore_index=-1, reduction="sum"))
        counts.append((target >= 0).sum())
    return (torch.stack(sums) / distributed.per_process(torch.stack(counts).to(sums[0].dtype))).mean()


@full_precision
def swav_loss_func(
    preds: Sequence[Tensor] | Tensor, assignments: Sequence[Tensor] | Tensor, temperature: float = 0.1
) -> Tensor:
    """SwAV's loss (Caron et al., 2020): predict the cluster assignment of a view from the other views.

    Mean over the pairs of different views of the cross-entropy of prediction b under assignment a; a ``ValueError``
    where there is none. Predictions are logits (N, C) of every view, assignments distributions (N, C) of the first.
    """
    pairs = [(logits, own) for a, own in enumerate(assignments) for b, logits in enumerate(preds) if a != b]
    if not pairs:
        raise ValueError(f"got {len(preds)} views and {len(assignments)} assignments: two views are needed at least")
    return torch.stack([F.cross_entropy(logits / temperature, own) for logits, own in pairs]).mean()


class DINOLoss(nn.Module):
    """DINO's loss (Caron et al., 2021): cross-entropy of the student's views under the teacher's other views.

    The teacher is centred and sharpened: ``epoch``, set from outside, picks its temperature; ``center`` (1, P) is the
    moving mean of its outputs.

    Args:
        num_prototypes: P, the width of the outputs.
        warmup_teacher_temp: > 0, the teacher's temperature at first.
        teacher_temp: > 0, its temperature once ``warmup_teacher_temp_epochs`` of ``num_epochs`` are over.
        num_large_crops: V, how many views both outputs hold, at least 2.
        center_momentum: in [0, 1], share of the old centre that an update keeps.
    """

    center: Tensor

    def __init__(
        self,
        num_prototypes: int,
        warmup_teacher_temp: float,
        teacher_temp: float,
        warmup_teacher_temp_epochs: int,
        num_epochs: int,
        student_temp: float = 0.1,
        num_large_crops: int = 2,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.epoch, self.num_large_crops = 0, num_large_crops
        self.student_temp, self.center_momentum = student_temp, center_momentum
        self.register_buffer("center", torch.zeros(1, num_prototypes))
        self.teacher_temp_schedule = self.temperatures(
            warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs, num_epochs
        )

    @staticmethod
    def temperatures(first: float, last: float, warmup: int, epochs: int) -> NDArray[np.float64]:
        """The teacher's temperature in each epoch: from `first` to `last` in `warmup` epochs, and on as it is."""
        return np.concatenate([np.linspace(first, last, warmup), np.full(epochs, last)])[:epochs]

    @full_precision
    def forward(self, student_output: Tensor, teacher_output: Tensor) -> Tensor:
        """Scalar loss of the outputs of student (any views * N, P) and teacher (V * N, P); then moves the centre.

        The student's begin with the large views, in the order of the teacher's.
        """
        temperature, views = float(self.teacher_temp_schedule[self.epoch]), self.num_large_crops
        target = ((teacher_output.detach() - self.center) / temperature).softmax(dim=-1)
        students = student_output.chunk(views * len(student_output) // len(target))
        loss = swav_loss_func(students, target.chunk(views), self.student_temp)
        self.update_center(teacher_output)
        return loss

    @torch.no_grad()
    def update_center(self, teacher_output: Tensor) -> None:
        """Move the centre towards the mean of the outputs (V * N, P) of all processes."""
        mean = distributed.all_reduce_mean(teacher_output.mean(dim=0, keepdim=True))
        self.center.lerp_(mean.to(self.center), 1 - self.center_momentum)


@full_precision
def ibot_loss_func(scores: Tensor, assignments: Tensor, temperature: float = 0.1) -> Tensor:
    """Let the trained network say of a hidden patch what the slow one says, who sees it: iBOT (Zhou et al., 2021).

    Mean over the hidden patches of -sum_p a_p log softmax(s / temperature)_p, of scores s and assignments a, (M, P)
    each; rows of a sum to 1.
    """
    return F.cross_entropy(scores / temperature, assignments)


def koleo_loss_func(feats: Tensor, eps: float = 1e-8) -> Tensor:
    """Keep features apart: Kozachenko and Leonenko's estimate of minus their entropy (Sablayrolles et al., 2018).

    Mean over all rows of -log(sqrt(d^2 + eps)), d the distance to the nearest other row, among those of all processes,
    rows at length 1; eps > 0 keeps equal rows finite. DINOv2 (Oquab et al., 2023) adds it, with iBOT's loss, to DINO's.
    Features are (N, D), two rows at least, or (V, N, D) of several views, each compared with itself.
    """
    return koleo_later(feats, eps)()


def koleo_later(feats: Tensor, eps: float = 1e-8) -> Callable[[], Tensor]:
    """`koleo_loss_func` whose rows travel with what is gathered next; what is returned is the loss."""
    views = unit(feats).reshape(-1, *feats.shape[-2:]).unbind()
    found = distributed.gather_later(*views)
    return lambda: _koleo(views, found(), eps)


@full_precision
def _koleo(views: Sequence[Tensor], every: Sequence[Tensor], eps: float) -> Tensor:
    losses = []
    for z, others in zip(views, every, strict=True):
        with torch.no_grad():
            own = distributed.rank() * len(z) + torch.arange(len(z), device=z.device)
            nearest = (z @ others.T).scatter_(1, own[:, None], -torch.inf).argmax(dim=1)
        losses.append(-0.5 * ((z - others.index_select(0, nearest)).square().sum(dim=1) + eps).log().mean())
    return torch.stack(losses).mean()


@full_precision
def ressl_loss_func(
    q: Tensor, k: Tensor, queue: Tensor, temperature_q: float = 0.1, temperature_k: float = 0.04
) -> Tensor:
    """ReSSL's loss (Zheng et al., 2021): two views should relate to a queue in the same way.

    Cross-entropy of the student's relations to the queue under those of the teacher: of unit rows ``q`` (N, D) of the
    student and ``k`` (N, D) of the teacher, which get no gradient, to ``queue`` (K, D). Temperatures are above 0.
    """
    target = F.softmax((k @ queue.T).detach() / temperature_k, dim=1)  # (N, K)
    return F.cross_entropy(q @ queue.T / temperature_q, target)


def patchify(imgs: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches: (N, C, H, H) -> (N, (H / patch_size)^2, patch_size^2 * C), each row, column, channel.

    A ``ValueError`` if the images are not square or not divisible by the patch size.
    """
    n, c, h, w = imgs.shape
    if h != w or h % patch_size:
        raise ValueError(f"images of {h} x {w} do not split into patches of {patch_size}: use square ones, a multiple")
    side = h // patch_size
    grid = imgs.reshape(n, c, side, patch_size, side, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, side * side, patch_size**2 * c)


@full_precision
def mae_loss_func(imgs: Tensor, pred: Tensor, mask: Tensor, patch_size: int, norm_pix_loss: bool = True) -> Tensor:
    """The loss of masked autoencoders (He et al., 2022): mean squared error of the removed patches.

    Of images (N, C, H, H) and predictions (N, L, patch_size^2 * C) of their patches, where the mask (N, L) is 1, not 0;
    every image has lost as many; 0 if that is none. ``norm_pix_loss`` standardises every target patch first.
    """
    target = patchify(imgs, patch_size)
    if norm_pix_loss:
        variance, mean = target.var(dim=-1, keepdim=True), target.mean(dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    error = (pred - target).square().mean(dim=-1)  # (N, L)
    return (error * mask).sum() / mask.sum().clamp_min(1)


@full_precision
def ijepa_loss_func(pred: Tensor, target: Tensor) -> Tensor:
    """The loss of I-JEPA (Assran et al., 2023): predict features of what is hidden, not its pixels.

    Mean over all numbers of the smooth L1 distance, e^2 / 2 for |e| < 1, else |e| - 1/2, of predicted features
    (N, T, D) of T hidden patches from those of the slow network, standardised for each patch, without gradient.
    """
    return F.smooth_l1_loss(pred, F.layer_norm(target.detach(), target.shape[-1:]))
