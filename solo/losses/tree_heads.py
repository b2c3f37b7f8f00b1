"""Heads on a label tree: what a classifier of classes or nodes is trained towards, of images labelled at any depth.

Every loss here is a module that takes outputs (N, width) and labels (N, L), coarse first, -1 unknown; the deepest known
label of an image is its node, the labels above it are those of the tree. docs/hierarchical.md has formulas and sources.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from solo import distributed
from solo.losses.numerics import full_precision
from solo.losses.pairs import unit
from solo.losses.targets import cross_entropy_loss_func
from solo.taxonomy import Taxonomy


class TreeLoss(nn.Module):
    """A label tree of the classes as tensors, for outputs of some `width`; its M nodes are numbered level by level.

    The coarse ones come first; `sizes` are the nodes of each level.
    """

    classes: Tensor  # (C, L) the way to each class, -1 below its end
    paths: Tensor  # (M, L) the way to each node, -1 below it
    starts: Tensor  # (L,) number of each level's first node
    heights: Tensor  # (M, L + 1) heights of the root and of the nodes on the way; below the node its own
    ends: Tensor  # (M,) whether the node is a class

    def __init__(self, tree: Taxonomy, width: int | None = None) -> None:
        super().__init__()
        self.sizes = [len(names) for names in tree.names]
        self.width = tree.num_classes if width is None else width
        places = [(level, node) for level, names in enumerate(tree.names) for node in range(len(names))]
        paths = torch.tensor([tree.node_path(*place) for place in places])
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        deepest = torch.zeros(len(paths) + 1, dtype=torch.long)  # level of the deepest class below, the root's last
        for level, node in tree.leaves:
            for above, ancestor in enumerate(tree.node_path(level, node)[: level + 1]):
                place = int(starts[above]) + ancestor
                deepest[place] = max(int(deepest[place]), level)
            deepest[-1] = max(int(deepest[-1]), level)
        height = deepest[:-1] - torch.tensor([level for level, _ in places])
        rows = [deepest[-1:].repeat(len(paths)) + 1]
        for level in range(tree.num_levels):
            known = paths[:, level] >= 0
            rows.append(torch.where(known, height[starts[level] + paths[:, level].clamp(min=0)], height))
        for name, value in {
            "classes": torch.tensor(tree.path_table()),
            "paths": paths,
            "starts": starts,
            "heights": torch.stack(rows, dim=1),
            "ends": torch.tensor([not tree.children[level][node] for level, node in places]),
        }.items():
            self.register_buffer(name, value, persistent=False)

    def nodes(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The deepest known node of each image (N,), 0 where nothing is known, and whether something is (N,)."""
        levels = torch.arange(1, labels.shape[1] + 1, device=labels.device)
        deepest = ((labels >= 0) * levels).amax(dim=1)
        at = (deepest - 1).clamp(min=0)
        return self.starts[at] + labels.gather(1, at[:, None])[:, 0].clamp(min=0), deepest > 0

    def completed(self, labels: Tensor) -> Tensor:
        """Labels (N, L) with those above the deepest known one, -1 below it."""
        node, known = self.nodes(labels)
        return self.paths[node].masked_fill(~known[:, None], -1)

    def shared(self, node: Tensor) -> Tensor:
        """How many levels nodes (N,) share with each class, (N, C)."""
        path, same = self.paths[node], torch.ones(len(node), len(self.classes), dtype=torch.bool, device=node.device)
        found = torch.zeros_like(same, dtype=torch.long)
        for mine, theirs in zip(path.T, self.classes.T, strict=True):
            same = same & (mine[:, None] == theirs) & (mine[:, None] >= 0)
            found += same
        return found

    def severity(self, node: Tensor, dtype: torch.dtype) -> Tensor:
        """Height of the lowest common ancestor of nodes (N,) and each class over that of the root, (N, C) in [0, 1]."""
        heights = self.heights[node].to(dtype)
        return heights.gather(1, self.shared(node)) / heights[:, :1]

    def each_level(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean of the levels' cross-entropies of the logits (N, M) of all of them beside each other."""
        pairs = zip(torch.split(logits, self.sizes, dim=1), self.completed(labels).T, strict=True)
        return torch.stack([cross_entropy_loss_func(*pair) for pair in pairs]).mean()

    def marginal(self, logits: Tensor, node: Tensor) -> Tensor:
        """-log of the probability of nodes (N,), that of the classes below together, of logits (N, C)."""
        below = self.shared(node) == (self.paths[node] >= 0).sum(dim=1, keepdim=True)
        return logits.logsumexp(dim=1) - logits.masked_fill(~below, -torch.inf).logsumexp(dim=1)


def mean_of_known(each: Tensor, known: Tensor) -> Tensor:
    """Mean of each (N,) over the rows of all processes that are known (N,); 0 where none is."""
    return means_of_known([each], [known])[0]


def means_of_known(each: Sequence[Tensor], known: Sequence[Tensor]) -> Tensor:
    """`mean_of_known` of several, (k,), whose numbers are asked for together."""
    sums = torch.stack([values.masked_fill(~those, 0).sum() for values, those in zip(each, known, strict=True)])
    return sums / distributed.per_process(torch.stack([those.sum() for those in known]))


class LevelHeads(TreeLoss):
    """Outputs are the logits of all levels beside each other; the mean of the levels' cross-entropies."""

    def __init__(self, tree: Taxonomy) -> None:
        super().__init__(tree, sum(map(len, tree.names)))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, M) and labels (N, L) -> scalar; an image counts at the levels that are known of it."""
        return self.each_level(z, labels)


class SoftLabels(TreeLoss):
    """Cross-entropy with ``softmax(-beta h(node, class) / h(root))``, h the height of the lowest common ancestor.

    The larger `beta`, at least 0, the closer to the class alone. Bertinetto et al., Making Better Mistakes (CVPR 2020),
    section 3.2.
    """

    def __init__(self, tree: Taxonomy, beta: float = 10.0) -> None:
        super().__init__(tree)
        self.beta = beta

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, C) and labels (N, L) -> scalar."""
        node, known = self.nodes(labels)
        target = (-self.beta * self.severity(node, z.dtype)).softmax(dim=1)
        return mean_of_known(-(target * z.log_softmax(dim=1)).sum(dim=1), known)


class HXE(TreeLoss):
    """``-sum_l exp(-alpha h(n_l)) log p(n_l | n_{l-1})`` over the known nodes n_l on the way to the class.

    A node's probability is that of its classes together. Bertinetto et al., section 3.1, equation 4. The larger
    `alpha`, at least 0, the less a higher edge weighs; 0 is cross-entropy.
    """

    def __init__(self, tree: Taxonomy, alpha: float = 0.4) -> None:
        super().__init__(tree)
        self.alpha = alpha

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, C) and labels (N, L) -> scalar."""
        node, known = self.nodes(labels)
        shared, path = self.shared(node), self.paths[node]
        above, total = z.logsumexp(dim=1), z.new_zeros(len(z))
        for level in range(path.shape[1]):  # below the node the set stays, and adds nothing
            inside = shared >= (path[:, : level + 1] >= 0).sum(dim=1, keepdim=True)
            here = z.masked_fill(~inside, -torch.inf).logsumexp(dim=1)
            total = total + (-self.alpha * self.heights[node, level + 1].to(z)).exp() * (above - here)
            above = here
        return mean_of_known(total, known)


class HAFrame(TreeLoss):
    """A fixed class vector each, whose cosines fall with the height of the lowest common ancestor.

    ``S = (1 - s) exp(-gamma h / h(root)) + s`` with the least s, of -1 or more, for which S is positive semidefinite,
    and `gamma` above 0; the frame is its square root. The loss has the weight of `cosine_weight`, in [0, 1], on the
    squared differences from S of the outputs' cosines with the class vectors, and the rest on cross-entropy. Liang,
    Davis: Inducing neural collapse to a fixed hierarchy-aware frame for reducing mistake severity (ICCV 2023,
    https://arxiv.org/abs/2303.05689), and its release, which searches s on a grid. With one level the frame is the
    simplex of neural collapse.
    """

    frame: Tensor  # (C, C)

    def __init__(self, tree: Taxonomy, gamma: float = 2.0, cosine_weight: float = 0.4) -> None:
        super().__init__(tree)
        self.gamma, self.weight = gamma, cosine_weight
        at = self.starts[[level for level, _ in tree.leaves]] + torch.tensor([node for _, node in tree.leaves])
        kernel = (-gamma * self.severity(at, torch.float64)).exp()
        most = (1 / torch.linalg.solve(kernel, torch.ones_like(kernel[0])).sum()).clamp(max=0.5)
        self.least = float(-most / (1 - most))
        values, vectors = torch.linalg.eigh((1 - self.least) * kernel + self.least)
        frame = vectors * values.clamp(min=0).sqrt() @ vectors.T
        self.register_buffer("frame", frame.to(torch.get_default_dtype()), persistent=False)

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Outputs (N, C) and labels (N, L) -> scalar."""
        node, known = self.nodes(labels)
        frame = self.frame.to(z)
        similar = (1 - self.least) * (-self.gamma * self.severity(node, z.dtype)).exp() + self.least
        apart = (unit(z) @ frame.T - similar).square().sum(dim=1)
        each = (1 - self.weight) * self.marginal(z @ frame.T, node) + self.weight * apart
        return mean_of_known(each, known)


class HierCOS(TreeLoss):
    """An axis a node; an image lies in the subspace of its node and those above it.

    ``KL(t || softmax |z|)`` with t on the way down, ``t_l ~ exp(2 / (d - l))`` for depth d, plus `level_weight`, at
    least 0, times the sum over the levels of ``|one_hot - |z_l| / |z_l|_2|_1``; where a class ends early, of
    ``|z_l|_1`` below. Sani, Anand: Hier-COS (CVPR 2026), https://arxiv.org/abs/2503.07853, and its release.
    """

    def __init__(self, tree: Taxonomy, level_weight: float = 0.05) -> None:
        super().__init__(tree, sum(map(len, tree.names)))
        self.weight = level_weight

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Outputs (N, M), a coordinate a node, and labels (N, L) -> scalar."""
        node, known = self.nodes(labels)
        path, size = self.paths[node].masked_fill(~known[:, None], -1), z.abs()
        there = path >= 0
        left = (there.sum(dim=1, keepdim=True) - torch.arange(path.shape[1], device=z.device)).clamp(min=1)
        target = (2 / left.to(z)).exp().masked_fill(~there, 0)
        target = target / target.sum(dim=1, keepdim=True).clamp(min=1)
        found = size.log_softmax(dim=1).gather(1, self.starts + path.clamp(min=0))
        each, of = [(torch.xlogy(target, target) - target * found).sum(dim=1)], [known]
        for level, part in enumerate(torch.split(size, self.sizes, dim=1)):
            share, right = unit(part), path[:, level]
            each += [share.sum(dim=1) + 1 - 2 * share.gather(1, right.clamp(min=0)[:, None])[:, 0], part.sum(dim=1)]
            of += [right >= 0, known & self.ends[node] & (right < 0)]
        loss, *others = means_of_known(each, of).unbind()
        for wrong, over in zip(others[::2], others[1::2], strict=True):
            loss = loss + self.weight * (wrong + over)
        return loss
