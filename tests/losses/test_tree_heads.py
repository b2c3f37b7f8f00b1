"""The losses on a label tree: against loops over images and nodes, their gradients, missing labels, limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from solo.eval.retrieval import retrieve_graded
from solo.losses import cross_entropy_loss_func, pairs
from solo.losses.tree_geometry import HypStructure, LorentzHeads
from solo.losses.tree_heads import (
    DELTA,
    HXE,
    RHO,
    TAU,
    HAFrame,
    Happier,
    HierCOS,
    LevelContrast,
    LevelHeads,
    SoftLabels,
)
from solo.taxonomy import Taxonomy

EVEN = Taxonomy(
    ("script", "group", "letter"),
    (("a", "b"), ("a1", "a2", "b1"), ("p", "q", "r", "s", "t")),
    ((0, 0, 1), (0, 0, 1, 2, 2)),
)
RAGGED = Taxonomy(("kind", "class"), (("animal", "stone"), ("dog", "cat")), ((0, 0),))
FLAT = Taxonomy.flat(["x", "y", "z"])
ONE = Taxonomy.flat(["all"])
LABELS = {
    "even": (EVEN, [[0, 0, 0], [0, 0, 1], [0, 1, -1], [1, -1, -1], [-1, -1, -1], [-1, -1, 4], [1, 2, 3], [0, 0, 0]]),
    "no leaf": (EVEN, [[0, 0, -1], [0, 1, -1], [1, 2, -1], [1, -1, -1]]),
    "ragged": (RAGGED, [[0, 0], [0, 1], [1, -1], [0, -1], [-1, -1], [1, -1]]),
    "flat": (FLAT, [[0], [1], [-1], [0]]),
    "one class": (ONE, [[0], [0], [-1]]),
    "nothing": (EVEN, [[-1, -1, -1]] * 3),
    "one image": (EVEN, [[0, 1, 2]]),
}
KINDS = {
    "LevelHeads": LevelHeads,
    "SoftLabels": lambda tree: SoftLabels(tree, 3.0),
    "HXE": lambda tree: HXE(tree, 0.3),
    "HAFrame": lambda tree: HAFrame(tree, 1.5, 0.3),
    "HierCOS": lambda tree: HierCOS(tree, 0.2),
    "HypStructure": lambda tree: HypStructure(tree, 4, structure_weight=0.7, centre_weight=0.1),
    "CPCC": lambda tree: HypStructure(tree, 4, "euclidean", structure_weight=0.7),
    "LorentzHeads": lambda tree: LorentzHeads(tree, 4, 0.5, 0.3),
    "LevelContrast": lambda tree: LevelContrast(tree, 4, 0.5),
    "Happier": lambda tree: Happier(tree, 4, 0.3),
}


def case(kind, name, seed=0):
    tree, labels = LABELS[name]
    torch.manual_seed(seed)
    loss = KINDS[kind](tree).double()
    return tree, loss, torch.randn(len(labels), loss.width, dtype=torch.float64, requires_grad=True), labels


def way(tree, labels):
    """Nodes (level, node) on the way to the deepest known one."""
    known = [level for level, label in enumerate(labels) if label >= 0]
    return (
        []
        if not known
        else [(level, n) for level, n in enumerate(tree.node_path(known[-1], labels[known[-1]])) if n >= 0]
    )


def ways(tree):
    return [way(tree, path) for path in tree.path_table()]


def nodes(tree):
    return [(level, node) for level, names in enumerate(tree.names) for node in range(len(names))]


def height(tree, node):
    """Edges down to the deepest class below; node None is the root."""
    return max(len(path) - (0 if node is None else node[0] + 1) for path in ways(tree) if node is None or node in path)


def common(tree, one, other):
    """Height of the lowest common ancestor of two ways."""
    both = [node for node in one if node in other]
    return height(tree, both[-1] if both else None)


def softmax(values):
    return [v / sum(map(torch.exp, values)) for v in map(torch.exp, values)]


def mean(values):
    return sum(values) / len(values) if values else torch.zeros((), dtype=torch.float64)


def marginal(tree, logits, path):
    p = softmax(list(logits))
    return -torch.log(sum(p[c] for c, other in enumerate(ways(tree)) if other[: len(path)] == path))


def level_heads(tree, loss, z, labels):
    levels = []
    for level, names in enumerate(tree.names):
        start = sum(map(len, tree.names[:level]))
        rows = [
            (row, way(tree, own)[level][1]) for row, own in zip(z, labels, strict=True) if len(way(tree, own)) > level
        ]
        levels.append(mean([-torch.log(softmax(list(row[start : start + len(names)]))[y]) for row, y in rows]))
    return mean(levels)


def soft_labels(tree, loss, z, labels):
    found, top = [], height(tree, None)
    for row, own in zip(z, labels, strict=True):
        if path := way(tree, own):
            weights = [math.exp(-3.0 * common(tree, path, other) / top) for other in ways(tree)]
            logs = [torch.log(p) for p in softmax(list(row))]
            found.append(-sum(w / sum(weights) * log for w, log in zip(weights, logs, strict=True)))
    return mean(found)


def hxe(tree, loss, z, labels):
    found = []
    for row, own in zip(z, labels, strict=True):
        if path := way(tree, own):
            logs = [0.0, *(-marginal(tree, row, path[: depth + 1]) for depth in range(len(path)))]
            weights = [math.exp(-0.3 * height(tree, node)) for node in path]
            found.append(-sum(w * (logs[i + 1] - logs[i]) for i, w in enumerate(weights)))
    return mean(found)


def haframe(tree, loss, z, labels):
    found, top = [], height(tree, None)
    for row, own in zip(z, labels, strict=True):
        if path := way(tree, own):
            similar = [math.exp(-1.5 * common(tree, path, other) / top) for other in ways(tree)]
            similar = [(1 - loss.least) * value + loss.least for value in similar]
            cosines = [row / row.norm() @ vector for vector in loss.frame]
            apart = sum((cosine - value) ** 2 for cosine, value in zip(cosines, similar, strict=True))
            found.append(0.7 * marginal(tree, torch.stack([row @ v for v in loss.frame]), path) + 0.3 * apart)
    return mean(found)


def hiercos(tree, loss, z, labels):
    places, main, off, over = nodes(tree), [], {}, {}
    leaves = [path[-1] for path in ways(tree)]
    for row, own in zip(z, labels, strict=True):
        if not (path := way(tree, own)):
            continue
        weights = [math.exp(2 / (len(path) - depth)) for depth in range(len(path))]
        p = softmax([value.abs() for value in row])
        shares = [w / sum(weights) for w in weights]
        main.append(sum(t * (math.log(t) - torch.log(p[places.index(n)])) for t, n in zip(shares, path, strict=True)))
        for level in range(tree.num_levels):
            part = {n: row[i].abs() for i, n in enumerate(places) if n[0] == level}
            if level < len(path):
                norm = sum(v**2 for v in part.values()).sqrt()
                off.setdefault(level, []).append(sum(abs(float(n == path[level]) - v / norm) for n, v in part.items()))
            elif path[-1] in leaves:
                over.setdefault(level, []).append(sum(part.values()))
    return mean(main) + 0.2 * sum(mean(values) for levels in (off, over) for values in levels.values())


def structure(geometry):
    def found(tree, loss, z, labels):
        flat = mean(
            [marginal(tree, loss.head(r), way(tree, own)) for r, own in zip(z, labels, strict=True) if way(tree, own)]
        )
        rows = {n: [r for r, own in zip(z, labels, strict=True) if n in way(tree, own)] for n in nodes(tree)}
        means = {n: mean(some) for n, some in rows.items() if some}
        pairs = [(a, b) for i, a in enumerate(means) for b in list(means)[i + 1 :]]

        def ball(v):
            return v.norm().clamp(max=2.3).tanh() * v / v.norm()

        def apart(a, b):
            if geometry == "euclidean":
                return (a - b).norm() if (a != b).any() else (a - b).sum()
            x, y = ball(a), ball(b)
            if (x == y).all():
                return (x - y).sum()
            return torch.acosh(1 + 2 * (x - y).square().sum() / ((1 - x @ x) * (1 - y @ y)))

        def edges(a, b):
            one, other = tree.node_path(*a)[: a[0] + 1], tree.node_path(*b)[: b[0] + 1]
            return len(one) + len(other) - 2 * sum(m == n for m, n in zip(one, other, strict=False))

        x = [apart(means[a], means[b]) for a, b in pairs]
        y = [torch.tensor(float(edges(a, b)), dtype=torch.float64) for a, b in pairs]
        dx, dy = [v - mean(x) for v in x], [v - mean(y) for v in y]
        size = sum(v**2 for v in dx) * sum(v**2 for v in dy) if pairs else 0
        cpcc = sum(a * b for a, b in zip(dx, dy, strict=True)) / size.sqrt() if size > 1e-12 else 0
        centre = 0.1 * mean(list(z)).norm() if geometry == "hyperbolic" else 0
        return flat + 0.7 * (1 - cpcc) + centre

    return found


def lorentz(tree, loss, z, labels):
    def point(v):
        v = v / 2  # the square root of the width
        length = v.norm().clamp(max=3.0)
        return torch.cat([length.cosh()[None], length.sinh() * v / v.norm()])

    def product(x, y):
        return -x[0] * y[0] + x[1:] @ y[1:]

    def outside(parent, child):
        aperture = torch.asin(0.2 / parent[1:].norm())
        inner = product(parent, child)
        angle = (child[0] + parent[0] * inner) / (parent[1:].norm() * (inner**2 - 1).sqrt())
        return (torch.acos(angle) - aperture).clamp(min=0)

    places = [point(v) for v in loss.points]
    order, levels = nodes(tree), []
    images = [(point(row), way(tree, own)) for row, own in zip(z, labels, strict=True)]
    for level in range(tree.num_levels):
        level_nodes = [i for i, n in enumerate(order) if n[0] == level]
        terms = []
        for x, path in images:
            if len(path) > level:
                p = softmax([-torch.acosh(-product(x, places[i])) / 0.5 for i in level_nodes])
                terms.append(-torch.log(p[path[level][1]]))
        levels.append(mean(terms))
    own = mean([outside(places[order.index(path[-1])], x) for x, path in images if path])
    lower = [n for n in order if n[0]]
    parents = [order.index((n[0] - 1, tree.parents[n[0] - 1][n[1]])) for n in lower]
    nested = mean([outside(places[p], places[order.index(n)]) for p, n in zip(parents, lower, strict=True)])
    return mean(levels) + 0.3 * (own + nested)


def level_contrast(tree, loss, z, labels):
    levels, order = [], nodes(tree)
    for level in range(tree.num_levels):
        rows = [(row, way(tree, own)[level]) for row, own in zip(z, labels, strict=True) if len(way(tree, own)) > level]
        present = [n for n in order if n in [node for _, node in rows]]

        def x(row, node):
            point = loss.points[order.index(node)]
            return row @ point / row.norm() / point.norm() / 0.5

        one = [-torch.log(softmax([x(row, n) for n in present])[present.index(own)]) for row, own in rows]
        other = []
        for node in present:
            p = softmax([x(row, node) for row, _ in rows])
            other.append(mean([-torch.log(p[i]) for i, (_, own) in enumerate(rows) if own == node]))
        levels.append((mean(one) + mean(other)) / 2)
    return mean(levels)


def happier(tree, loss, z, labels):
    paths = [way(tree, own) for own in labels]
    proxies = torch.stack([p / p.norm() for p in loss.proxies])
    cluster = [
        marginal(tree, proxies @ row / row.norm() / 0.05, path) for row, path in zip(z, paths, strict=True) if path
    ]
    units, found = [row / row.norm() for row in z], []
    for i, path in enumerate(paths):
        others = [j for j in range(len(z)) if j != i and paths[j]]
        shared = {j: sum(a == b for a, b in zip(path, paths[j], strict=False)) for j in others}
        sizes = {level: list(shared.values()).count(level) for level in shared.values()}
        rel = {j: shared[j] / tree.num_levels / sizes[shared[j]] for j in others}
        score = {j: units[i] @ units[j] for j in others}
        total = sum(rel.values())
        if not total:
            continue
        ap = 0
        for k in others:
            rank, hrank = 1, rel[k]
            for j in others if rel[k] else ():
                if j == k:
                    continue
                t = score[j] - score[k]
                above = float(t >= 0)
                hrank += above * min(rel[j], rel[k])
                step = torch.sigmoid(t / TAU) + 0.5 * (t > 0)
                line = RHO * (t - DELTA) + 0.5 + 1 / (1 + math.exp(-DELTA / TAU))
                rank = rank + ((line if t > DELTA else step) if shared[j] < shared[k] else above)
            ap = ap + hrank / rank / total
        found.append(1 - ap)
    return 0.7 * mean(found) + 0.3 * mean(cluster)


LOOPS = {
    "LevelHeads": level_heads,
    "SoftLabels": soft_labels,
    "HXE": hxe,
    "HAFrame": haframe,
    "HierCOS": hiercos,
    "HypStructure": structure("hyperbolic"),
    "CPCC": structure("euclidean"),
    "LorentzHeads": lorentz,
    "LevelContrast": level_contrast,
    "Happier": happier,
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_loops(kind, name):
    tree, loss, z, labels = case(kind, name)
    ours, expected = loss(z, torch.tensor(labels)), LOOPS[kind](tree, loss, z, labels)
    torch.testing.assert_close(ours, torch.as_tensor(expected), rtol=1e-7, atol=1e-9)
    inputs = [z, *loss.parameters()]
    ours, expected = (
        torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
        if isinstance(value, torch.Tensor) and value.requires_grad
        else [torch.zeros_like(x) for x in inputs]
        for value in (ours, expected)
    )
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient(kind):
    _, loss, z, labels = case(kind, "even", seed=1)
    assert torch.autograd.gradcheck(lambda z: loss(z, torch.tensor(labels)), z, atol=1e-4)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_finite_everywhere(kind, dtype):
    for tree, labels in LABELS.values():
        loss = KINDS[kind](tree).to(dtype)
        for scale in (0, 1, 1e4):
            z = (scale * torch.randn(len(labels), loss.width)).to(dtype).requires_grad_()
            value = loss(z, torch.tensor(labels))
            value.backward()
            assert value.dtype == torch.float32 and value.isfinite() and z.grad.isfinite().all()
            assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("kind", ["LevelHeads", "SoftLabels", "HXE"])
def test_one_level_is_cross_entropy(kind):
    _, loss, z, labels = case(kind, "flat")
    loss.beta = 1e3
    torch.testing.assert_close(loss(z, torch.tensor(labels)), cross_entropy_loss_func(z, torch.tensor(labels)[:, 0]))


def test_hxe_with_equal_weights_is_cross_entropy():
    z, y = torch.randn(6, 5), torch.randint(0, 5, (6,))
    loss = HXE(EVEN, alpha=0.0)
    torch.testing.assert_close(loss(z, torch.tensor(EVEN.path_table())[y]), cross_entropy_loss_func(z, y))


@pytest.mark.parametrize("tree", [EVEN, RAGGED, FLAT])
def test_the_frame_has_the_cosines_of_the_tree_and_lies_as_far_apart_as_it_can(tree):
    loss = HAFrame(tree, gamma=3.0).double()
    cosines = loss.frame @ loss.frame.T
    classes = np.arange(tree.num_classes)
    heights = torch.tensor(tree.lca_height(classes[:, None], classes)) / len(tree.levels)
    expected = (1 - loss.least) * torch.exp(-3 * heights.double()) + loss.least
    torch.testing.assert_close(cosines, expected, rtol=1e-5, atol=1e-5)
    assert torch.linalg.eigvalsh(expected)[0].abs() < 1e-5  # with less similarity it would be negative
    if tree is FLAT:
        assert cosines[0, 1] == pytest.approx(-1 / 2, abs=1e-5)  # the simplex


def test_ranks_bound_average_precision_from_above():
    torch.manual_seed(3)
    labels = torch.tensor(EVEN.path_table())[torch.randint(0, 5, (24,))]
    for _ in range(5):
        z = torch.randn(24, 4)
        assert Happier(EVEN, 4, 0.0)(z, labels) >= 1 - retrieve_graded(z, labels).values["h_ap"].mean() - 1e-6


def test_blocks_of_queries_change_nothing(monkeypatch):
    tree, loss, z, labels = case("Happier", "even")
    whole = loss(z, torch.tensor(labels))
    monkeypatch.setitem(pairs.BLOCK_ELEMENTS, "cpu", 150)
    torch.testing.assert_close(loss(z, torch.tensor(labels)), whole)


def test_unlisted_pairs_are_the_same(monkeypatch):
    _, loss, z, labels = case("Happier", "even")
    one = torch.autograd.grad(loss(z, torch.tensor(labels)), z)[0]
    monkeypatch.setitem(pairs.LISTED, "cpu", False)
    torch.testing.assert_close(torch.autograd.grad(loss(z, torch.tensor(labels)), z)[0], one)


def test_means_at_the_trees_distances_have_no_loss_left():
    loss = HypStructure(FLAT, 2, "euclidean").double()
    labels = torch.tensor(EVEN.path_table())
    # The tree with equal edges, drawn as a tree: each node at the sum of its ancestors' axes.
    loss = HypStructure(EVEN, 10, "euclidean").double()
    axes = torch.eye(10, dtype=torch.float64)
    z = torch.stack([sum(axes[s + n] for s, n in zip((0, 2, 5), path, strict=True)) for path in labels.tolist()])
    from_tree = loss(z, labels) - cross_entropy_loss_func(loss.head(z), torch.arange(5))
    assert 0 < from_tree < 0.2
    scattered = z[torch.tensor([0, 4, 2, 1, 3])]
    assert loss(scattered, labels) - cross_entropy_loss_func(loss.head(scattered), torch.arange(5)) > from_tree + 0.1
