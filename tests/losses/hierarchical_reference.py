"""The hierarchical losses with loops in float64, straight from the formulas: by pairs, and layer by layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.losses.reference import cosines

PENALTIES = {
    "released": lambda level, levels: 2 ** (1 / (levels - level)),
    "exp2": lambda level, levels: 2**level,
    "linear": lambda level, levels: level + 1,
    "constant": lambda level, levels: 1,
}


def random_labels(rows: int, levels: int, branches: int = 2, missing: float = 0.2, seed: int = 0) -> Tensor:
    """Labels (rows, levels) of a random tree: numbers below their parent, unknown from some level on for some rows."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        labels = torch.randint(0, branches, (rows, levels))
        end = torch.where(torch.rand(rows) < missing, torch.randint(0, levels, (rows,)), levels)
    return labels.masked_fill(torch.arange(levels) >= end[:, None], -1)


def meeting_level(a: int, b: int, image: list[int], labels: Tensor) -> int:
    """Level of the lowest common ancestor of two rows, -1 for the root."""
    levels = labels.shape[1]
    if image[a] == image[b]:
        return levels - 1
    for level in range(levels):
        x, y = labels[image[a], level], labels[image[b], level]
        if x != y or x < 0:
            return level - 1
    return levels - 1


def hierarchical(
    features: Tensor, labels: Tensor, kind: str, temperature: float, penalty: str | list[float], cumulative: bool
) -> Tensor:
    """Equations 4, 6 and 7, literally: a bound at a time, finest first."""
    batch, views, _ = features.shape
    levels = labels.shape[1]
    rows = features.transpose(0, 1).flatten(0, 1)
    image = list(range(batch)) * views
    s = cosines(rows)
    others = [[a for a in range(len(rows)) if a != i] for i in range(len(rows))]
    norm = [torch.log(sum(torch.exp(s[i, a] / temperature) for a in others[i])) for i in range(len(rows))]
    total, bound = torch.zeros(()).double(), None
    for level in reversed(range(levels)):
        means, seen = [], []
        for i in range(len(rows)):
            terms = []
            for p in others[i]:
                meets = meeting_level(i, p, image, labels)
                if meets == level or (cumulative and meets > level):
                    pair = norm[i] - s[i, p] / temperature
                    terms.append(pair if bound is None or kind == "himulcon" else torch.maximum(pair, bound))
            if terms:
                means.append(sum(terms) / len(terms))
                seen += terms
        weight = 1.0
        if kind != "hicone":
            weight = PENALTIES[penalty](level, levels) if isinstance(penalty, str) else penalty[level]
            weight = 1.0 if levels == 1 and isinstance(penalty, str) else weight
        if means:
            total = total + weight * sum(means) / len(means)
            bound = torch.stack(seen).max() if bound is None else torch.maximum(bound, torch.stack(seen).max())
    return total / levels


def supcon(features: Tensor, same: list[list[bool]], temperature: float) -> Tensor:
    """Equation 2 over images (B, V, d) and which of them are partners."""
    batch, views, _ = features.shape
    rows = features.transpose(0, 1).flatten(0, 1)
    s, losses = cosines(rows), []
    for i in range(len(rows)):
        others = [a for a in range(len(rows)) if a != i]
        norm = torch.log(sum(torch.exp(s[i, a] / temperature) for a in others))
        terms = [norm - s[i, p] / temperature for p in others if same[i % batch][p % batch]]
        if terms:
            losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


def released(features: Tensor, labels: Tensor, kind: str, temperature: float) -> Tensor:
    """What the paper's release computes from labels whose last column is the instance.

    Step s masks the last s columns, takes SupCon among the rows that are left, weighs it by 2^(1/s), and keeps the
    first row of each group of equal masked labels, in the order of these labels. The sum is divided by the columns.
    """
    columns = labels.shape[1]
    rows = list(range(len(labels)))
    total, largest = torch.zeros(()).double(), None
    for step in range(1, columns):
        masked = {row: tuple(labels[row, : columns - step].tolist()) for row in rows}
        same = [[masked[a] == masked[b] for b in rows] for a in rows]
        layer = supcon(features[rows], same, temperature)
        if kind != "himulcon" and largest is not None:
            layer = torch.maximum(largest, layer)
        total = total + (1.0 if kind == "hicone" else 2 ** (1 / step)) * layer
        largest = layer
        first: dict[tuple[int, ...], int] = {}
        for row in rows:
            first.setdefault(masked[row], row)
        rows = [first[key] for key in sorted(first)]
    return total / columns


def hex_himulcon(
    features: Tensor, labels: Tensor, temperature: float, quantile: float, beta: float, tau_plus: float
) -> Tensor:
    """HiMulCon with HEX's denominator: hierarchy negatives above the mean quantile, or of the same coarse label."""
    batch, views, _ = features.shape
    levels = labels.shape[1]
    image = list(range(batch)) * views
    s = cosines(features.transpose(0, 1).flatten(0, 1))
    n = len(s)
    threshold = s.detach().sort(dim=1).values[:, round(quantile * (n - 1))].mean()
    totals: list[list[Tensor]] = [[] for _ in range(levels)]
    for i in range(n):
        meets = [meeting_level(i, j, image, labels) for j in range(n)]
        leaf = [j for j in range(n) if j != i and meets[j] == levels - 1]
        rest = [j for j in range(n) if j != i and meets[j] < levels - 1]
        inside = [j for j in rest if s[i, j] > threshold or meets[j] >= 0]
        positive = sum((torch.exp(s[i, p] / temperature) for p in leaf), torch.zeros(()).double())
        raised = [torch.exp(beta * s[i, h] / temperature) for h in inside]
        local = torch.zeros(()).double()
        for h, weight in zip(inside, raised, strict=True):
            local = local + weight / (sum(raised) / len(raised)) * torch.exp(s[i, h] / temperature)
        debiased = (local - tau_plus * len(inside) * positive / max(1, len(leaf))) / (1 - tau_plus)
        floor = torch.tensor(len(inside) * math.exp(-1 / temperature)).double()
        outside = sum((torch.exp(s[i, k] / temperature) for k in rest if k not in inside), torch.zeros(()).double())
        norm = torch.log(positive + outside + torch.maximum(debiased, floor))
        for level in range(levels):
            partners = [j for j in range(n) if j != i and meets[j] == level]
            if partners:
                totals[level].append(sum(norm - s[i, p] / temperature for p in partners) / len(partners))
    means = [sum(found) / len(found) if found else torch.zeros(()).double() for found in totals]
    return sum(PENALTIES["released"](level, levels) * mean for level, mean in enumerate(means)) / levels
