"""A label tree as geometry: distances of class means and prototypes, nodes in hyperbolic space.

As in `tree_heads`: outputs (N, width) and labels (N, L), coarse first, -1 unknown; see docs/hierarchical.md.
"""

import torch
from torch import Tensor, nn

from solo import distributed
from solo.losses.pairs import off_diagonal, unit
from solo.losses.targets import cross_entropy_loss_func
from solo.losses.tree_heads import TreeLoss, levels_shared, mean_of_known
from solo.precision import at_least_float32, full_precision
from solo.taxonomy import Taxonomy


def root(square: Tensor) -> Tensor:
    """Square root of values of at least 0 up to rounding; of 0 and below it is 0, with a zero gradient."""
    flat = square <= 0
    return square.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)


def clipped(v: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Rows (N, D) of length `most` at most, as directions and lengths (N, 1)."""
    length = root(v.square().sum(dim=-1, keepdim=True))
    return unit(v), length.clamp(max=most)


def correlation(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Pearson's correlation of values under weights, all of one shape; 0 where one of them is constant."""
    total = weight.sum().clamp_min(1)
    x, y = (value - (weight * value).sum() / total for value in (x, y))
    variances = (weight * x * x).sum() * (weight * y * y).sum()
    flat = variances <= 1e-12  # of distances of the order of 1
    return ((weight * x * y).sum() / variances.masked_fill(flat, 1).sqrt()).masked_fill(flat, 0)


class HypStructure(TreeLoss):
    """Cross-entropy, and 1 - CPCC: the correlation of the nodes' mean outputs' distances with those in the tree.

    Over all pairs of nodes, at all levels, of which the batch of all processes has images. `euclidean`: Zeng et al.,
    Learning structured representations by embedding class hierarchy (ICLR 2023). `hyperbolic`: the means are tangent
    vectors of the Poincare ball, and the length of the mean of all is added, so that the whole stays at its centre;
    Sinha et al., Learning structured representations with hyperbolic embeddings (NeurIPS 2024). `structure_weight` is
    that of 1 - CPCC, `centre_weight` that of the length of the mean, both at least 0.
    """

    edges: Tensor  # (M, M) distances in the tree

    def __init__(
        self,
        tree: Taxonomy,
        dim: int,
        geometry: str = "hyperbolic",
        structure_weight: float = 1.0,
        centre_weight: float = 0.01,
    ) -> None:
        super().__init__(tree, dim)
        self.hyperbolic, self.weight, self.centre = geometry == "hyperbolic", structure_weight, centre_weight
        self.head = nn.Linear(dim, tree.num_classes)
        depths = (self.paths >= 0).sum(dim=1)
        edges = depths[:, None] + depths - 2 * levels_shared(self.paths, self.paths)
        self.register_buffer("edges", edges.to(torch.get_default_dtype()), persistent=False)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self._loss(z, self.head(z), labels)

    @full_precision
    def _loss(self, z: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        node, known = self.nodes(labels)
        path = self.paths[node].masked_fill(~known[:, None], -1)
        rows = torch.cat((z, torch.ones_like(z[:, :1])), 1)
        sums = rows.new_zeros(len(self.paths) + 1, rows.shape[1])  # the last: of everybody
        for start, column in zip(self.starts, path.T, strict=True):
            at = (start + column.clamp(min=0)).masked_fill(column < 0, len(self.paths))
            sums = sums.index_add(0, at, rows.masked_fill((column < 0)[:, None], 0))
        sums = distributed.sum_with_grad(torch.cat((sums[:-1], rows.sum(dim=0, keepdim=True))))
        means, there = sums[:, :-1] / sums[:, -1:].clamp_min(1), (sums[:-1, -1] > 0).to(z)
        points = means[:-1]
        if self.hyperbolic:  # in the ball of curvature -1, of tangent vectors at its centre, cut at length 2.3
            direction, length = clipped(points, 2.3)
            room, points = (1 - length.tanh().square()).sqrt(), direction * length.tanh()
        # Not by products, in which near points would drown.
        apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        if self.hyperbolic:
            apart = 2 * (apart / (room * room.T)).asinh()
        cpcc = correlation(apart, self.edges.to(z), (there[:, None] * there).triu(1))
        loss = mean_of_known(self.marginal(logits, node), known) + self.weight * (1 - cpcc)
        return loss + self.centre * root(means[-1].square().sum()) if self.hyperbolic else loss


def outside_cone(parent: tuple[Tensor, Tensor], child: tuple[Tensor, Tensor]) -> Tensor:
    """By how much, as an angle (N,), children lie outside of the cones that open from their parents, outwards.

    The half-aperture is ``asin(0.2 / |parent|)``: Desai et al., MERU (ICML 2023), equations 8 to 10.
    """
    (space, time), (far, later) = parent, child
    product = (space * far).sum(dim=1) - (time * later)[:, 0]
    length = root(space.square().sum(dim=1)).clamp_min(1e-6)
    aperture = (0.2 / length).clamp(max=1 - 1e-6).asin()
    spread = root(product.square() - 1).clamp_min(1e-6)
    cosine = (later[:, 0] + time[:, 0] * product) / (length * spread)
    return (cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos() - aperture).clamp_min(0)


class LorentzHeads(TreeLoss):
    """Nodes are points of hyperbolic space: the nearer to an image, the more probable among those of their level.

    The mean of the levels' cross-entropies of ``-distance / temperature``, and `entailment_weight`, at least 0, times
    the mean angle by which images lie outside of their nodes' cones, and nodes outside of their parents'. Outputs, over
    the root of their width `dim`, are tangent vectors at the origin. Own reading of MERU (Desai et al., ICML 2023).
    """

    parents: Tensor  # (M,) parent of each node, its own number at the coarsest level

    def __init__(self, tree: Taxonomy, dim: int, temperature: float = 0.1, entailment_weight: float = 0.2) -> None:
        super().__init__(tree, dim)
        self.temperature, self.entailment = temperature, entailment_weight
        self.points = nn.Parameter(torch.randn(len(self.paths), dim))
        level = (self.paths >= 0).sum(dim=1) - 1
        above = (level - 1).clamp(min=0)
        parents = self.starts[above] + self.paths.gather(1, above[:, None])[:, 0]
        self.register_buffer("parents", parents, persistent=False)

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        node, known = self.nodes(labels)
        # Points, in space and time, of the hyperboloid of curvature -1: of tangent vectors, cut at 3.
        tangents = (clipped(x / self.width**0.5, 3.0) for x in (z, at_least_float32(self.points)))
        image, (space, time) = ((direction * length.sinh(), length.cosh()) for direction, length in tangents)
        product = image[0] @ space.T - image[1] * time.T
        distances = 2 * (root(-2 * (1 + product)) / 2).asinh()  # acosh(-product), in a form that is exact near 0
        loss = self.each_level(-distances / self.temperature, labels)
        own = mean_of_known(outside_cone((space[node], time[node]), image), known)
        if len(self.sizes) > 1:  # nodes of the coarsest level have no parent
            first, above = self.sizes[0], self.parents[self.sizes[0] :]
            own = own + outside_cone((space[above], time[above]), (space[first:], time[first:])).mean()
        return loss + self.entailment * own


@full_precision
def distortion_loss_func(prototypes: Tensor, tree: Tensor) -> Tensor:
    """How far the prototypes' distances are from those of the tree, up to the factor s that fits best.

    ``mean over k != l of ( (s d(k, l) - D(k, l)) / D(k, l) )^2`` in [0, 1], with gradient through s. Prototypes are
    (C, D), distances of the classes in the tree (C, C), above 0 off the diagonal; 0 for a single class.
    """
    between = root((prototypes[:, None] - prototypes).square().sum(dim=2))
    ratio = (off_diagonal(between) / off_diagonal(tree.to(prototypes))).flatten()
    scale = ratio.sum() / ratio.square().sum().clamp_min(torch.finfo(ratio.dtype).tiny)
    return (scale * ratio - 1).square().sum() / max(1, len(ratio))


class GuidedLoss(nn.Module):
    """Metric-guided prototypes: ``cross-entropy of -d(z, prototype) + weight * distortion``.

    The prototypes, one a class, are its parameters. Garnot, Landrieu: Leveraging class hierarchies with metric-guided
    prototype learning, BMVC 2021, https://arxiv.org/abs/2007.03047. `tree` are distances (C, C) of the classes in the
    label tree, above 0 off the diagonal (``Taxonomy.distance``); embeddings have `dim` features.
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

    @full_precision
    def forward(self, z: Tensor, targets: Tensor) -> Tensor:
        """Loss of embeddings (N, D) with classes (N,), -1 for unknown (which then count for nothing)."""
        nearness = -root((z[:, None] - at_least_float32(self.prototypes)).square().sum(dim=2))
        loss = cross_entropy_loss_func(nearness, targets)
        return loss + self.weight * distortion_loss_func(self.prototypes, self.tree)
