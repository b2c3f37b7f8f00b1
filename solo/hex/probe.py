"""What HEX did in a step, beside its loss: how far it is from InfoNCE, whom it found, and how much these weigh.

It costs about two losses more, so it is asked for in some steps of an epoch only.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from solo import distributed
from solo.hex.policy import Selector
from solo.losses.info_nce import MaskedSoftmax
from solo.losses.pairs import Pairs


def gradient_cosine(one: Callable[[Pairs], Tensor], other: Callable[[Pairs], Tensor], pairs: Pairs) -> Tensor:
    """Cosine of the gradients of two losses with respect to the anchors of all processes; 0 where one vanishes.

    Where the anchors are among the keys, they get that part of the gradient, too.
    """
    with torch.enable_grad():
        anchors, keys = (x.detach().requires_grad_() for x in (pairs.anchors, pairs.keys))
        copy = dataclasses.replace(pairs, anchors=anchors, keys=keys)
        found = [torch.autograd.grad(loss(copy), (anchors, keys)) for loss in (one, other)]
    if pairs.offset is not None:  # the anchors are among the keys
        a, b = (rows + distributed.own_rows(distributed.all_reduce_sum(d)) for rows, d in found)
    else:
        a, b = (rows for rows, _ in found)
    products = distributed.all_reduce_sum(torch.stack([(a * b).sum(), a.square().sum(), b.square().sum()]))
    return products[0] / (products[1] * products[2]).sqrt().clamp_min(torch.finfo(a.dtype).tiny)


def whom_it_found(
    pairs: Pairs, selector: Selector, temperature: float, labels: tuple[Tensor, Tensor] | None
) -> dict[str, Tensor]:
    """Means over the anchors of all processes.

    Args:
        pairs: who is compared with whom.
        selector: finds relatives among the negatives.
        temperature: of the loss.
        labels: classes and groups (M,) of the anchors, -1 for unknown; None where nothing is known of them.

    Returns:
        ``with_relatives``: share of anchors that have any; ``mass``: their share in the anchor's sum over all others;
        with labels ``own_class``, ``siblings``, ``strangers``: shares of relatives of the same class, of another one of
        the same group, of another group.
    """
    sums = pairs.anchors.new_zeros(7)
    known = None if labels is None else torch.stack(labels, dim=1)
    columns = None if known is None else distributed.gather_no_grad(known)
    if columns is not None and len(columns) != len(pairs.keys):
        columns = None  # a queue, of whose classes nothing is kept
    for rows in pairs.blocks():
        similarity = pairs.similarity(rows)
        positive, negative = pairs.masks(rows)
        chosen = selector(similarity, rows) & negative
        x = similarity / temperature
        mass = (MaskedSoftmax(x, chosen).lse - MaskedSoftmax(x, positive | negative).lse).exp()
        sums[:3] += torch.stack([mass.new_tensor(len(mass)), chosen.any(dim=1).sum(), mass.nansum()])
        if known is not None and columns is not None:
            sums[3:] += kinship(known[rows], columns, chosen.nonzero(as_tuple=True)).to(sums)
    number, having, mass, *of = distributed.all_reduce_sum(sums).unbind()
    found = {"with_relatives": having / number, "mass": mass / number}
    return found | shares(torch.stack(of))


def kinship(one: Tensor, other: Tensor, pairs: tuple[Tensor, ...]) -> Tensor:
    """How many pairs are of one class, siblings, strangers, and known, (4,).

    Args:
        one: (M, 2) class and group of each row, -1 for unknown.
        other: (N, 2) of those they are paired with.
        pairs: (K,) places in the one, (K,) in the other.
    """
    a, b = one[pairs[0]], other[pairs[1]]
    known, alike = ((a >= 0) & (b >= 0)).all(dim=1), a == b
    own = known & alike[:, 0]
    siblings = known & ~alike[:, 0] & alike[:, 1]
    return torch.stack([own.sum(), siblings.sum(), (known & ~own & ~siblings).sum(), known.sum()])


def shares(counts: Tensor) -> dict[str, Tensor]:
    """What `kinship` counted, as shares; nothing where nobody is known."""
    if not counts[3] > 0:
        return {}
    return dict(zip(("own_class", "siblings", "strangers"), counts[:3] / counts[3], strict=True))
