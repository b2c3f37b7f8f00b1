"""Metric-guided prototypes: a baseline that learns from labels without contrast.

Garnot, Landrieu: Leveraging class hierarchies with metric-guided prototype learning, BMVC 2021,
https://arxiv.org/abs/2007.03047: one prototype a class; images go to the closest one, and the distances between
prototypes follow those of the label tree, up to one factor.
"""

import torch
from torch import Tensor, nn

from solo.losses.numerics import full_precision, off_diagonal
from solo.losses.targets import cross_entropy_loss_func
from solo.precision import at_least_float32


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N, D), (C, D) -> (N, C); equal points have distance 0 and a zero gradient."""
    square = (a[:, None] - b).square().sum(dim=2)
    zero = square == 0
    return square.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


@full_precision
def distortion_loss_func(prototypes: Tensor, tree: Tensor) -> Tensor:
    """How far the prototypes' distances are from those of the tree, up to the factor s that fits best.

    ``mean over k != l of ( (s d(k, l) - D(k, l)) / D(k, l) )^2``, with the s that makes it smallest; the gradient goes
    through s as well.

    Args:
        prototypes: (C, D).
        tree: (C, C) distances of the classes in the label tree, above 0 off the diagonal.

    Returns:
        Scalar in [0, 1]; 0 for a single class.
    """
    between = distances(prototypes, prototypes)
    ratio = (off_diagonal(between) / off_diagonal(tree.to(prototypes))).flatten()
    scale = ratio.sum() / ratio.square().sum().clamp_min(torch.finfo(ratio.dtype).tiny)
    return (scale * ratio - 1).square().sum() / max(1, len(ratio))


class GuidedLoss(nn.Module):
    """``cross-entropy of -d(z, prototype) + weight * distortion``; the prototypes are its parameters.

    Args:
        tree: (C, C) distances of the classes in the label tree, above 0 off the diagonal (``Taxonomy.distance``).
        dim: D of the embeddings.
        weight: of the distortion, at least 0.

    Raises:
        ValueError: if the distances are no such matrix, or the weight is negative.
    """

    tree: Tensor

    def __init__(self, tree: Tensor, dim: int, weight: float = 1.0) -> None:
        super().__init__()
        square = tree.ndim == 2 and tree.shape[0] == tree.shape[1]
        if not square or not (tree + torch.eye(len(tree)).to(tree) > 0).all():
            raise ValueError(f"expected distances (C, C), above 0 between different classes, got {tuple(tree.shape)}")
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        self.weight = weight
        self.register_buffer("tree", tree, persistent=False)
        self.prototypes = nn.Parameter(torch.randn(len(tree), dim))

    def forward(self, z: Tensor, targets: Tensor) -> Tensor:
        """Loss of embeddings (N, D) with classes (N,), -1 for unknown (which then count for nothing)."""
        with torch.autocast(z.device.type, enabled=False):
            nearness = -distances(at_least_float32(z), at_least_float32(self.prototypes))
        loss = cross_entropy_loss_func(nearness, targets)
        return loss + self.weight * distortion_loss_func(self.prototypes, self.tree)
