"""Slow references, written with loops in float64 straight from the formulas."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosines(z: Tensor) -> Tensor:
    """All cosines of the rows, with autograd."""
    z = z / z.norm(dim=1, keepdim=True)
    return z @ z.T


def info_nce(z: Tensor, ids: Tensor, temperature: float, joint: bool = False) -> Tensor:
    """Mean over anchors of each positive against the negatives, or of the summed positives (joint)."""
    s, losses = cosines(z), []
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and ids[j] == ids[i]]
        negatives = [j for j in range(len(z)) if ids[j] != ids[i]]
        if not positives:
            continue
        rest = sum(torch.exp(s[i, k] / temperature) for k in negatives)
        if joint:
            top = sum(torch.exp(s[i, p] / temperature) for p in positives)
            losses.append(-torch.log(top / (top + rest)))
            continue
        terms = []
        for p in positives:
            top = torch.exp(s[i, p] / temperature)
            terms.append(-torch.log(top / (top + rest)))
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


def hex_loss(
    z: Tensor, ids: Tensor, hierarchy: Tensor, temperature: float, beta: float, tau_plus: float, release: bool = False
) -> Tensor:
    """Steps 3 to 5 of the paper for a given set of hierarchy negatives (N, N), literally."""
    s, losses = cosines(z), []
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and ids[j] == ids[i]]
        negatives = [j for j in range(len(z)) if ids[j] != ids[i]]
        inside = [j for j in negatives if hierarchy[i, j]]
        rest = sum((torch.exp(s[i, k] / temperature) for k in negatives if k not in inside), torch.zeros(()).double())
        raised = [torch.exp(beta * s[i, h] / temperature) for h in inside]
        local = torch.zeros(()).double()
        for h, weight in zip(inside, raised, strict=True):
            local = local + weight / (sum(raised) / len(raised)) * torch.exp(s[i, h] / temperature)
        terms = []
        for p in positives:
            top = torch.exp(s[i, p] / temperature)
            if release:
                terms.append(-s[i, p] / temperature + torch.log(rest))
                continue
            debiased = (local - tau_plus * len(inside) * top) / (1 - tau_plus)
            floor = torch.tensor(len(inside) * math.exp(-1 / temperature)).double()
            terms.append(-torch.log(top / (top + rest + torch.maximum(debiased, floor))))
        if terms:
            losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


def hcl(z: Tensor, ids: Tensor, temperature: float, beta: float, tau_plus: float) -> Tensor:
    """Robinson et al. (2021), equation 4, on all negatives, as their text states it."""
    s, losses = cosines(z), []
    for i in range(len(z)):
        negatives = [torch.exp(s[i, j] / temperature) for j in range(len(z)) if ids[j] != ids[i]]
        n = len(negatives)
        importance = [x**beta for x in negatives]
        reweighted = sum(w * x for w, x in zip(importance, negatives, strict=True)) / (sum(importance) / n)
        for p in range(len(z)):
            if p != i and ids[p] == ids[i]:
                top = torch.exp(s[i, p] / temperature)
                ng = torch.clamp(
                    (-tau_plus * n * top + reweighted) / (1 - tau_plus), min=n * math.exp(-1 / temperature)
                )
                losses.append(-torch.log(top / (top + ng)))
    return sum(losses) / len(losses)


def dcl(z: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Yeh et al. (2022), equation 5: InfoNCE without the positive in the denominator."""
    s, losses = cosines(z), []
    for i in range(len(z)):
        rest = sum(torch.exp(s[i, j] / temperature) for j in range(len(z)) if ids[j] != ids[i])
        terms = [torch.log(rest) - s[i, p] / temperature for p in range(len(z)) if p != i and ids[p] == ids[i]]
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


def relatives_loss(z, ids, chosen, kin, action, tau, beta, tau_plus, elsewhere=None, relative=False, keys=None):
    """What is done with relatives, as `solo.hex.loss` states it: one anchor, one denominator at a time.

    With `keys`, the anchors' own and a queue behind them, a positive is the anchor's own and negatives are the queue.
    """
    s, losses = cosines(z) if keys is None else cosines(torch.cat([z, keys]))[: len(z), len(z) :], []
    unit = z / z.norm(dim=1, keepdim=True)
    for i in range(len(z)):
        positives, negatives = [i], list(range(len(z), s.shape[1]))
        if keys is None:
            positives = [j for j in range(len(z)) if j != i and ids[j] == ids[i]]
            negatives = [j for j in range(len(z)) if ids[j] != ids[i]]
        found = [j for j in negatives if chosen[i, j]]
        siblings = [j for j in negatives if kin[i, j] and j not in found]
        hierarchy = siblings + (found if action.name == "weigh" else [])
        gone = found if action.name in ("drop", "pull") else []
        rest = [j for j in negatives if j not in gone and j not in hierarchy]
        if action.denominator in ("all", "inside"):
            gone = found if action.name == "drop" else []
            rest = [j for j in positives + negatives if j not in hierarchy and j not in gone]
        outside = sum((torch.exp(s[i, j] / tau) for j in rest), torch.zeros(()).double())
        raised = [torch.exp(beta * s[i, h] / tau) for h in hierarchy]
        inside = torch.zeros(()).double()
        if relative:
            every = [torch.exp(beta * s[i, j] / tau) for j in negatives]
        else:
            every = raised
        for h, weight in zip(hierarchy, raised, strict=True):
            inside = inside + weight / (sum(every) / len(every)) * torch.exp(s[i, h] / tau)

        def ell(top, outside=outside, inside=inside, hierarchy=hierarchy, with_top=action.denominator == "own"):
            number = len(hierarchy)
            floor = torch.tensor(number * math.exp(-1 / tau)).double()
            local = torch.maximum((inside - tau_plus * number * top) / (1 - tau_plus), floor)
            bottom = outside + local + (top if with_top else 0)
            return (torch.log(bottom) if bottom > 0 else 0) - torch.log(top)

        tops = [torch.exp(s[i, j] / tau) for j in found]
        if elsewhere is not None:
            known = zip(elsewhere.rows[i], elsewhere.known[i], strict=True)
            tops += [torch.exp((unit[i] * row).sum() / tau) for row, there in known if there]
        own = [ell(torch.exp(s[i, p] / tau)) for p in positives]
        if action.denominator == "inside" and action.name == "pull":
            near = found or negatives
            total = sum(torch.exp(s[i, j] / tau) for j in near)
            own = [ell(torch.exp(s[i, p] / tau), total, 0 * total, [], True) for p in positives]
        pulled = [ell(top) for top in tops] if action.name == "pull" else []
        if action.share is None:
            losses.append(sum(own + pulled) / len(own + pulled))
        elif pulled:
            weights, share = [torch.ones(()).double() / len(pulled)] * len(pulled), action.share
            if action.softness:
                raised = [top.detach() ** (tau / action.softness) for top in tops]
                weights = [each / sum(raised) for each in raised]
            if action.confident and len(pulled) > 1:
                share = share * (1 + sum(w * torch.log(w) for w in weights) / math.log(len(pulled)))
            far = sum(w * each for w, each in zip(weights, pulled, strict=True))
            losses.append((1 - share) * sum(own) / len(own) + share * far)
        else:
            losses.append(sum(own) / len(own))
    return sum(losses) / len(losses)


def who_is_found(name, anchors, keys, groups, queue):
    """Whom a row of the table of policies finds, (M, N), by rows at length 1 and groups of anchors and of keys.

    Without a queue the keys are the anchors, i and i + M / 2 two views of an image; with one the key i is a view of the
    anchor i, and the queue is behind the anchors' own keys.
    """
    s, (own, other) = anchors @ keys.T, groups
    m, n, first = len(s), len(keys), len(s) if queue else 0
    view = [i if queue else (i + m // 2) % m for i in range(m)]
    negatives = [[j for j in range(first, n) if j not in (view[i], i)] for i in range(m)]
    rows = [sorted(float(s[i, j]) for j in range(first, n)) for i in range(m)]

    def quantile(row, q):
        return row[round(q * (len(row) - 1))]

    threshold, label = sum(quantile(row, 0.7) for row in rows) / m, list(range(m // 2))
    for i in range(m // 2):  # the end of the edge from the first view of each image
        j = max(negatives[i], key=lambda j, i=i: s[i, j]) % (m // 2)
        label = [label[j] if each == label[i] else each for each in label]
    found = torch.zeros(m, n, dtype=torch.bool)
    for i in range(m):
        best = {j: max(s[i, j], keys[view[i]] @ keys[j]) for j in negatives[i]}
        for j in negatives[i]:
            found[i, j] = {
                "adaptive": s[i, j] > threshold,
                "fixed": (s[i, j] - rows[i][0]) / (1 - rows[i][0]) > 0.6,
                "superclass": own[i] == other[j] and own[i] >= 0,
                "coarse": own[i] == other[j] and own[i] >= 0,
                "hcl": True,
                "soft": True,
                "fnc": j in sorted(best, key=best.get)[-3:] and best[j] > 0.0,
                "ring": s[i, j] < quantile(rows[i], 0.3) or s[i, j] > quantile(rows[i], 0.7),
                "components": label[i % (m // 2)] == label[j % (m // 2)],
            }.get(name, False)
    return found
