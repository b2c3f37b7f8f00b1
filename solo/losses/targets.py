"""Losses without negatives, each a scalar: views that agree, and targets.

Features of views are kept apart by a target without gradient (BYOL, SimSiam), by whitened rows (W-MSE), or by a term on
those of all processes (the others). Targets are classes, clusters, what a slow network says, and what was hidden.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from solo import distributed
from solo.losses.pairs import off_diagonal, unit
from solo.precision import full_precision

Tensors = Sequence[Tensor] | Tensor  # of several views, or sets of prototypes: a list, or stacked


def mean_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the rows of the cosine of ``a`` and ``b``, (..., D) each; a zero row has cosine 0."""
    return (unit(a) * unit(b)).sum(dim=-1).mean()


def byol_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """BYOL's loss (Grill et al., 2020), in [0, 4]: ``2 - 2 * mean cos(p, sg(z))``.

    Of predictions ``p`` (N, D) of the online network and projections ``z`` (N, D) of the momentum network.
    ``simplified`` has no effect: both of solo-learn's ways to compute it give this value.
    """
    return 2 - 2 * mean_cosine(p, z.detach())


def simsiam_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """SimSiam's loss (Chen and He, 2021), in [-1, 1]: ``-mean cos(p, sg(z))``; arguments as in `byol_loss_func`."""
    return -mean_cosine(p, z.detach())


def wmse_loss_func(z1: Tensor, z2: Tensor, simplified: bool = True) -> Tensor:
    """W-MSE's loss (Ermolov et al., 2021), in [0, 4]: ``2 - 2 * mean cos(z1, z2)`` of whitened features (N, D).

    ``simplified``: ``z2`` gets no gradient, as in solo-learn; False: both do.
    """
    return 2 - 2 * mean_cosine(z1, z2.detach() if simplified else z2)


@full_precision
def barlow_loss_func(z1: Tensor, z2: Tensor, lamb: float = 5e-3, scale_loss: float = 0.025) -> Tensor:
    """Barlow Twins' loss (Zbontar et al., 2021): the cross-correlation of two views should be the identity.

    ``scale_loss * ( sum_i (C_ii - 1)^2 + lamb * sum_{i != j} C_ij^2 )`` with ``C = z1^T z2 / N``, standardised, of the
    projections (N, D), gathered over processes with gradient; a ``ValueError`` if they are one row.
    """
    z1, z2 = distributed.gather_each(z1, z2)
    standard1, standard2 = (F.batch_norm(z, None, None, training=True, eps=1e-5) for z in (z1, z2))
    correlation = standard1.T @ standard2 / len(z1)  # (D, D)
    on = (correlation.diagonal() - 1).square().sum()
    return scale_loss * (on + lamb * off_diagonal(correlation).square().sum())


@full_precision
def invariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared difference of the two views, (N, D) each."""
    return F.mse_loss(z1, z2)


@full_precision
def variance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Sum over the two views of ``mean_d relu(1 - sqrt(var_d + 1e-4))``, with the unbiased variance of N >= 2 rows."""
    std1, std2 = ((z.var(dim=0) + 1e-4).sqrt() for z in (z1, z2))
    return F.relu(1 - std1).mean() + F.relu(1 - std2).mean()


@full_precision
def covariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Sum over the two views of ``1/D * sum_{i != j} Cov_ij^2``, with the unbiased covariance of N >= 2 rows."""
    centred1, centred2 = (z - z.mean(dim=0) for z in (z1, z2))
    cov1, cov2 = (z.T @ z / (len(z) - 1) for z in (centred1, centred2))  # (D, D)
    return (off_diagonal(cov1).square().sum() + off_diagonal(cov2).square().sum()) / z1.shape[1]


@full_precision
def correlation_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Sum over the two views of the squared correlations of different features, divided by ``D^2``."""
    # Columns of length 1, (D, N); a constant feature is zero and correlates with nothing.
    unit1, unit2 = (unit((z - z.mean(dim=0)).T) for z in (z1, z2))
    r1, r2 = unit1 @ unit1.T, unit2 @ unit2.T  # (D, D)
    return (off_diagonal(r1).square().sum() + off_diagonal(r2).square().sum()) / z1.shape[1] ** 2


def weigh(
    z1: Tensor,
    z2: Tensor,
    weights: Sequence[float],
    covariance: Callable[[Tensor, Tensor], Tensor],
    whiten: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``sim * invariance + var * variance + cov * covariance`` of the rows of all processes, whitened if wanted."""
    z1, z2 = distributed.gather_each(z1, z2)
    if len(z1) < 2:
        raise ValueError("a batch of 1 row has no variance: use 2 at least")
    if whiten is not None:
        z1, z2 = whiten(z1), whiten(z2)
    return weights[0] * invariance_loss(z1, z2) + weights[1] * variance_loss(z1, z2) + weights[2] * covariance(z1, z2)


def vicreg_loss_func(
    z1: Tensor, z2: Tensor, sim_loss_weight: float = 25.0, var_loss_weight: float = 25.0, cov_loss_weight: float = 1.0
) -> Tensor:
    """VICReg's loss (Bardes et al., 2022): invariance, and the variance and covariance of the features, weighted.

    The views, (N, D) each, are gathered over processes with gradient; a ``ValueError`` if that makes one row.
    """
    return weigh(z1, z2, (sim_loss_weight, var_loss_weight, cov_loss_weight), covariance_loss)


def vibcreg_loss_func(
    z1: Tensor, z2: Tensor, sim_loss_weight: float = 25.0, var_loss_weight: float = 25.0, cov_loss_weight: float = 200.0
) -> Tensor:
    """VIbCReg's loss (Lee and Aune, 2021): `vicreg_loss_func` with correlations in the place of covariances."""
    return weigh(z1, z2, (sim_loss_weight, var_loss_weight, cov_loss_weight), correlation_loss)


@full_precision
def frossl_loss_func(z: Tensors, invariance_weight: float = 1.0) -> Tensor:
    """FroSSL's loss (Skean et al., 2024): views agree, and the entropy of their features' covariance is large.

    ``sum_v [ log ||C_v||_F^2 + invariance_weight * V * D * mean (u_v - u)^2 ]``: ``u_v`` are a view's embeddings with
    columns of unit length, ``u`` their mean over the views, and ``C_v`` is ``u_v^T u_v`` divided by its trace. The
    logarithm is minus the matrix-based Renyi entropy of order 2. Embeddings ``z`` (N, D) of V >= 2 views are gathered
    over processes with gradient; ``invariance_weight`` >= 0.
    """
    u = torch.stack([unit(view.T) for view in distributed.gather_each(*z)])  # (V, D, N)
    views, width, rows = u.shape
    gram = u @ u.mT if width <= rows else u.mT @ u  # both have the same norm
    traces = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    tiny = 1e-12  # of a trace of up to D: an embedding that is zero has the logarithm of 1
    entropy = (gram.square().sum(dim=(1, 2)) + tiny).log() - (traces.square() + tiny).log()
    return entropy.sum() + invariance_weight * views * width * (u - u.mean(dim=0)).square().mean(dim=(1, 2)).sum()


@full_precision
def sigreg(z: Tensor, directions: Tensor, t_max: float = 3.0, points: int = 17) -> Tensor:
    """Sketched isotropic Gaussian regularization: mean over views and slices of Epps and Pulley's statistic.

    ``n * integral_{-t_max}^{t_max} |mean_j exp(i t x_j) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt``, by the trapezoidal rule
    of ``points`` for the half that starts at 0, where ``x`` are the ``n`` embeddings of all processes along a slice.
    ``z`` is (V, N, D) of V views, ``directions`` (D, K) of any length, the same on all processes.
    """
    x = z @ F.normalize(directions, dim=0)  # (V, N, K)
    count = distributed.world_size() * x.shape[1]
    t = torch.linspace(0, t_max, points, dtype=x.dtype, device=x.device)
    angles = x[..., None] * t  # (V, N, K, points)
    sums = torch.stack((angles.cos().sum(dim=1), angles.sin().sum(dim=1)))
    real, imaginary = distributed.sum_with_grad(sums) / count
    gaussian = (-(t**2) / 2).exp()
    error = ((real - gaussian).square() + imaginary.square()) * gaussian
    return 2 * count * torch.trapezoid(error, t).mean()


@full_precision
def lejepa_loss_func(z: Tensors, directions: Tensor, lamb: float = 0.05, num_large_crops: int = 2) -> Tensor:
    """LeJEPA's loss (Balestriero and LeCun, 2025): views agree, and embeddings look Gaussian from every side.

    ``(1 - lamb) * mean (z_v - c)^2 + lamb * SIGReg(z)``, where ``c`` is an image's mean over its large views, the first
    ``num_large_crops`` of the embeddings ``z`` (N, D) of V views; ``directions`` are those of `sigreg`, lamb is 0 to 1.
    """
    views = z if isinstance(z, Tensor) else torch.stack(tuple(z))
    centre = views[:num_large_crops].mean(dim=0)
    return (1 - lamb) * (views - centre).square().mean() + lamb * sigreg(views, directions)


@full_precision
def cross_entropy_loss_func(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the rows with a label; its mean over processes is that of one process with all rows.

    Of logits (N, C); targets (N,), -1 for unknown, or soft (N, C). ``label_smoothing`` is in [0, 1). 0 without labels.
    """
    if targets.is_floating_point():
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing)
    return total / distributed.per_process((targets >= 0).sum())


@full_precision
def deepclusterv2_loss_func(outputs: Tensors, assignments: Tensor, temperature: float = 0.1) -> Tensor:
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
def swav_loss_func(preds: Tensors, assignments: Tensors, temperature: float = 0.1) -> Tensor:
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

    The teacher is centred by its moving mean, ``center`` (1, P); ``epoch``, set from outside, picks its temperature.

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
        warm_up = warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs
        self.teacher_temp_schedule = self.temperatures(*warm_up, num_epochs)

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

    Mean over M hidden patches of -sum_p a_p log softmax(s / temperature)_p, of scores s and distributions a, (M, P).
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
