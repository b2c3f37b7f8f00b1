"""Heads on a label tree: what a classifier of classes or nodes is trained towards, of images labelled at any depth.

Every loss takes outputs (N, width) and labels (N, L), coarse first, -1 unknown; the deepest known label of an image is
its node, the labels above it are those of the tree. docs/hierarchical.md has formulas and sources.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.losses.info_nce import RowLoss, blockwise
from solo.losses.pairs import BLOCK_ELEMENTS, Pairs, listed, unit
from solo.losses.targets import cross_entropy_loss_func
from solo.precision import full_precision
from solo.taxonomy import Taxonomy

TAU, DELTA, RHO = 0.01, 0.05, 100.0  # of HAPPIER's release
_AT_DELTA = 0.5 + 1 / (1 + math.exp(-DELTA / TAU))


class TreeLoss(nn.Module):
    """A label tree as tensors, for outputs of some `width`; its M nodes are numbered level by level, coarse first."""

    classes: Tensor  # (C, L) the way to each class, -1 below its end
    paths: Tensor  # (M, L) the way to each node, -1 below it
    starts: Tensor  # (L,) number of each level's first node
    heights: Tensor  # (M, L + 1) heights of the root and of the nodes on the way; below the node its own
    ends: Tensor  # (M,) whether the node is a class

    def __init__(self, tree: Taxonomy, width: int | None = None) -> None:
        super().__init__()
        self.sizes = [len(names) for names in tree.names]  # of the levels
        self.width = tree.num_classes if width is None else width
        places = [(level, node) for level, names in enumerate(tree.names) for node in range(len(names))]
        paths = torch.tensor([tree.node_path(*place) for place in places])
        way = F.pad(paths, (1, 0))  # from the root
        heights = torch.from_numpy(tree.tables[2])[torch.arange(way.shape[1]), way.clamp(min=0)]
        own = heights.gather(1, (way >= 0).sum(dim=1, keepdim=True) - 1)
        ends = torch.tensor([not tree.children[level][node] for level, node in places])
        self.register_buffer("classes", torch.tensor(tree.path_table()), persistent=False)
        self.register_buffer("paths", paths, persistent=False)
        self.register_buffer("starts", torch.tensor([0, *self.sizes[:-1]]).cumsum(0), persistent=False)
        self.register_buffer("heights", heights.where(way >= 0, own), persistent=False)
        self.register_buffer("ends", ends, persistent=False)

    def nodes(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The deepest known node of each image (N,), 0 where nothing is known, and whether something is (N,)."""
        deepest = ((labels >= 0) * torch.arange(1, labels.shape[1] + 1, device=labels.device)).amax(dim=1)
        at = (deepest - 1).clamp(min=0)
        return self.starts[at] + labels.gather(1, at[:, None])[:, 0].clamp(min=0), deepest > 0

    def completed(self, labels: Tensor) -> Tensor:
        """Labels (N, L) with those above the deepest known one, -1 below it."""
        node, known = self.nodes(labels)
        return self.paths[node].masked_fill(~known[:, None], -1)

    def shared(self, node: Tensor) -> Tensor:
        """How many levels nodes (N,) share with each class, (N, C)."""
        return levels_shared(self.paths[node], self.classes)

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


def levels_shared(mine: Tensor, theirs: Tensor) -> Tensor:
    """How many levels, from the coarsest on, each of N paths (N, L) shares with each of (C, L): (N, C)."""
    same = torch.ones(len(mine), len(theirs), dtype=torch.bool, device=mine.device)
    found = torch.zeros_like(same, dtype=torch.long)
    for one, other in zip(mine.T, theirs.T, strict=True):
        same = same & (one[:, None] == other) & (one[:, None] >= 0)
        found += same
    return found


def mean_of_known(each: Tensor, known: Tensor) -> Tensor:
    """Mean of each (N,) over the rows of all processes that are known (N,); 0 where none is."""
    return means_of_known([each], [known])[0]


def means_of_known(each: Sequence[Tensor], known: Sequence[Tensor]) -> Tensor:
    """`mean_of_known` of several, (k,), whose numbers are asked for together."""
    sums = torch.stack([values.masked_fill(~those, 0).sum() for values, those in zip(each, known, strict=True)])
    return sums / distributed.per_process(torch.stack([those.sum() for those in known]))


class LevelHeads(TreeLoss):
    """The mean of the levels' cross-entropies, of the logits (N, M) of all levels beside each other."""

    def __init__(self, tree: Taxonomy) -> None:
        super().__init__(tree, sum(map(len, tree.names)))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.each_level(z, labels)


class SoftLabels(TreeLoss):
    """Cross-entropy with ``softmax(-beta h(node, class) / h(root))``, h the height of the lowest common ancestor.

    The larger `beta`, at least 0, the closer to the class alone. Bertinetto et al. (CVPR 2020), section 3.2.
    """

    def __init__(self, tree: Taxonomy, beta: float = 10.0) -> None:
        super().__init__(tree)
        self.beta = beta

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        node, known = self.nodes(labels)
        target = (-self.beta * self.severity(node, z.dtype)).softmax(dim=1)
        return mean_of_known(-(target * z.log_softmax(dim=1)).sum(dim=1), known)


class HXE(TreeLoss):
    """``-sum_l exp(-alpha h(n_l)) log p(n_l | n_{l-1})`` over the known nodes n_l on the way to the class.

    A node's probability is that of its classes together. The larger `alpha`, at least 0, the less a higher edge weighs;
    0 is cross-entropy. Bertinetto et al., Making Better Mistakes (CVPR 2020), section 3.1, equation 4.
    """

    def __init__(self, tree: Taxonomy, alpha: float = 0.4) -> None:
        super().__init__(tree)
        self.alpha = alpha

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
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
    and `gamma` above 0; the frame is its square root, with one level the simplex of neural collapse. The loss has the
    weight of `cosine_weight`, in [0, 1], on the squared differences from S of the outputs' cosines with the class
    vectors, and the rest on cross-entropy. Liang, Davis: Inducing neural collapse to a fixed hierarchy-aware frame
    (ICCV 2023, https://arxiv.org/abs/2303.05689), and its release, which searches s on a grid.
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
        node, known = self.nodes(labels)
        frame = self.frame.to(z)
        similar = (1 - self.least) * (-self.gamma * self.severity(node, z.dtype)).exp() + self.least
        apart = (unit(z) @ frame.T - similar).square().sum(dim=1)
        each = (1 - self.weight) * self.marginal(z @ frame.T, node) + self.weight * apart
        return mean_of_known(each, known)


class HierCOS(TreeLoss):
    """An axis a node, of outputs (N, M); an image lies in the subspace of its node and those above it.

    ``KL(t || softmax |z|)`` with t on the way down, ``t_l ~ exp(2 / (d - l))`` for depth d, plus `level_weight`, at
    least 0, times the sum over the levels of ``|one_hot - |z_l| / |z_l|_2|_1``; where a class ends early, of
    ``|z_l|_1`` below. Sani, Anand: Hier-COS (CVPR 2026), https://arxiv.org/abs/2503.07853, and its release.
    """

    def __init__(self, tree: Taxonomy, level_weight: float = 0.05) -> None:
        super().__init__(tree, sum(map(len, tree.names)))
        self.weight = level_weight

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
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


class LevelContrast(TreeLoss):
    """Images and nodes contrasted both ways, each level by itself, so that no node has its own ancestors as negatives.

    For each level, over the images of all processes with a label there: of an image among the nodes that occur, and of
    a node among these images, averaged over its own ones; the mean of both, and of the levels. Own reading of
    level-restricted contrast (Tao et al., BioCLIP-HC, https://arxiv.org/abs/2606.21838, which says what is compared,
    not how): learned vectors stand for the nodes' names. `temperature`, above 0, divides the cosines.
    """

    def __init__(self, tree: Taxonomy, dim: int, temperature: float = 0.1) -> None:
        super().__init__(tree, dim)
        self.temperature = temperature
        self.points = nn.Parameter(torch.randn(len(self.paths), dim))

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        columns = distributed.gather_no_grad(self.completed(labels)).T
        logits = distributed.gather(unit(z)) @ unit(self.points).T / self.temperature
        losses = []
        for part, column in zip(torch.split(logits, self.sizes, dim=1), columns, strict=True):
            own = column[:, None] == torch.arange(part.shape[1], device=part.device)  # (N, nodes)
            labelled, count = (column >= 0).to(part), own.sum(dim=0)
            far = -1e4  # as a logit; -inf would have no gradient where nothing is known
            among_nodes = part.masked_fill((count == 0) & (column >= 0)[:, None], far).log_softmax(dim=1)
            among_images = part.masked_fill((column < 0)[:, None], far).log_softmax(dim=0)
            of_images = -(own * among_nodes).sum() / labelled.sum().clamp_min(1)
            of_nodes = -(own * among_images / count.clamp_min(1)).sum() / (count > 0).sum().clamp_min(1)
            losses.append((of_images + of_nodes) / 2)
        return torch.stack(losses).mean()


class HierarchicalAP(RowLoss):
    """1 - H-AP, see `solo.eval.retrieval`, of each anchor among all keys, with an upper bound of the ranks.

    A key j that is less relevant than k enters rank(k) by a smooth step of ``t = s_j - s_k``: ``sigma(t / tau)`` below
    0, a half more up to delta, then a line of slope rho; all others, and Hrank, by the plain step, without a gradient.
    """

    def __init__(self, pairs: Pairs, levels: Tensor, key_levels: Tensor) -> None:
        super().__init__(pairs)
        self.levels, self.key_levels, self.offset = levels, key_levels, pairs.offset or 0
        coarse = key_levels[:, 0].sort().values
        alike = (coarse[1:] == coarse[:-1]) & (coarse[1:] >= 0)  # of all processes' anchors, who has a relevant key
        self.queries = (F.pad(alike, (1, 0)) | F.pad(alike, (0, 1))).sum()

    def __call__(self, rows: slice) -> tuple[Tensor, Tensor]:
        similarity = self.pairs.similarity(rows)
        most = BLOCK_ELEMENTS.get(similarity.device.type, BLOCK_ELEMENTS["cuda"])
        step = max(1, most // max(1, similarity.shape[1] ** 2))
        parts = zip(torch.split(similarity, step), range(rows.start, rows.stop, step), strict=True)
        losses, grads = zip(*(self._score(part, start) for part, start in parts), strict=True)
        return torch.stack(losses).sum(), torch.cat(grads)

    def _score(self, s: Tensor, start: int) -> tuple[Tensor, Tensor]:
        mine, depth = self.levels[start : start + len(s)], self.levels.shape[1]
        shared = levels_shared(mine, self.key_levels)
        shared.diagonal(self.offset + start).fill_(0)
        there = (self.key_levels[:, 0] >= 0).expand_as(shared).clone()
        there.diagonal(self.offset + start).fill_(False)
        sizes = torch.stack([(shared == level).sum(dim=1) for level in range(depth + 1)], dim=1).clamp(min=1)
        relevance = (shared.to(s) / depth) / sizes.gather(1, shared)  # (R, N)
        total = relevance.sum(dim=1)
        # A list of P anchors with a k each: the relevant ones where counting them waits for no device, else all, of
        # which the others add nothing. That k itself is at no distance makes it count in both of its ranks.
        if listed(s):
            row, k = relevance.nonzero(as_tuple=True)
        else:
            each = torch.arange(s.numel(), device=s.device)
            row, k = each // s.shape[1], each % s.shape[1]
        t, level, taking_part = s[row] - s[row, k][:, None], shared[row, k][:, None], there[row]  # (P, N), but level
        above = (t >= 0) & taking_part
        hrank = (torch.minimum(relevance[row], relevance[row, k][:, None]) * above).sum(dim=1)
        smooth, far = (shared[row] < level) & taking_part, t > DELTA
        sigma = (t / TAU).sigmoid()
        soft = torch.where(far, RHO * (t - DELTA) + _AT_DELTA, sigma + 0.5 * (t > 0))
        rank = torch.where(smooth, soft, above.to(s)).sum(dim=1).clamp_min(1)
        share = hrank / rank / total.masked_fill(total == 0, 1)[row]
        slope = torch.where(far, RHO, sigma * (1 - sigma) / TAU).masked_fill_(~smooth, 0)
        pull = slope.mul_((share / rank)[:, None])  # d loss / d t
        grad = torch.zeros_like(s).index_add_(0, row, pull)
        grad.index_put_((row, k), -pull.sum(dim=1), accumulate=True)
        return (total > 0).sum() - share.sum(), grad

    def scale(self) -> Tensor:
        """1 / (anchors with a relevant key, per process)."""
        return distributed.world_size() / self.queries.clamp_min(1).to(torch.get_default_dtype())


class Happier(TreeLoss):
    """HAPPIER: 1 - H-AP of the images of a view, and a cross-entropy with class proxies, which share the weight of 1.

    `cluster_weight`, in [0, 1], is that of the cross-entropy of ``cosine / temperature``. Ramzi et al.: Hierarchical
    average precision training for pertinent image retrieval (ECCV 2022, https://arxiv.org/abs/2207.04873), as released.
    """

    def __init__(self, tree: Taxonomy, dim: int, cluster_weight: float = 0.1, temperature: float = 0.05) -> None:
        super().__init__(tree, dim)
        self.weight, self.temperature = cluster_weight, temperature
        self.proxies = nn.Parameter(torch.randn(tree.num_classes, dim))

    @full_precision
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Outputs (N, dim), or (V, N, dim) of views that are ranked one by one, and labels (N, L) -> scalar."""
        node, known = self.nodes(labels)
        own = self.completed(labels)
        views = z.reshape(-1, *z.shape[-2:]).unbind()
        key_levels = distributed.gather_later(own)
        later = [Pairs.views_later([view]) for view in views]
        far = [self.marginal(unit(view) @ unit(self.proxies).T / self.temperature, node) for view in views]
        cluster = means_of_known(far, [known] * len(far))
        pairs = [found() for found in later]
        ranking = torch.stack([blockwise(HierarchicalAP(view, own, *key_levels())) for view in pairs])
        return ((1 - self.weight) * ranking + self.weight * cluster).mean()
