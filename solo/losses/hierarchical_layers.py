"""The multi-label losses layer by layer, as the paper's public release computes them.

The finest layer compares all images; each coarser one keeps one image a node of the finer layer. A layer's loss is
SupCon's (equation 2) among what it keeps, the hierarchy constraint is a maximum of layer losses, and the sum is divided
by the number of label columns, the instance's included. See "The release, layer by layer" in docs/hierarchical.md.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from solo import distributed
from solo.losses.info_nce import MaskedSoftmax
from solo.losses.label_levels import LabelLevels, numbered
from solo.losses.pairs import Pairs


def kept_rows(nodes: Tensor, ids: Tensor) -> Tensor:
    """Which keys each layer keeps, (L, N), coarse first, of node ids (N, L), sorted as the labels are, and images (N,).

    The first layer (the finest) keeps all; the next ones the first image of every node of the finer layer, where images
    come in the order of the batch in the first layer, and of the finer layer's labels in all others.
    """
    places = torch.arange(len(ids), device=ids.device)
    image = numbered(ids)
    order = _first(places, image)[image]  # the views of an image have one place
    kept = [torch.ones_like(ids, dtype=torch.bool)]
    for finer in nodes.T[1:].flip(0):
        finer = finer.long()
        first = _first(order.masked_fill(~kept[-1], len(ids)), finer)
        kept.append(kept[-1] & (order == first[finer]))
        order = finer
    return torch.stack(kept[::-1])


def _first(order: Tensor, group: Tensor) -> Tensor:
    """The smallest of each group: (N,), (N,) -> (number of groups,)."""
    return order.new_zeros(int(group.max()) + 1).scatter_reduce_(0, group, order, "amin", include_self=False)


class _Layer(NamedTuple):
    """A layer within a block of anchors."""

    loss: Tensor  # (), summed over its rows
    grad: Tensor  # (R', K) gradient with respect to the logits of the rows and columns that the layer keeps
    rows: Tensor  # (R',) these rows, within the block


class HierarchicalLayers:
    """Summed loss and gradient of a block of rows, for ``blockwise``; `levels` are without the instance."""

    def __init__(
        self, pairs: Pairs, levels: LabelLevels, penalties: list[float], temperature: float, constrained: bool
    ) -> None:
        self.pairs, self.levels = pairs, levels
        self.inverse_temperature = 1.0 / temperature
        assert pairs.offset is not None
        self.offset, world = pairs.offset, distributed.world_size()
        self.kept = kept_rows(levels.keys, pairs.key_ids)
        self.columns = [kept.nonzero()[:, 0] for kept in self.kept]
        anchors = pairs.anchors.new_tensor([self._with_partner(level) for level in range(levels.number)])
        self.per_anchor = world / anchors.clamp_min(1)
        self.weights = pairs.anchors.new_tensor(penalties) / (levels.number + 1)
        # Cosines and layers, not made twice where one block holds everything.
        self._surveyed: tuple[Tensor, list[_Layer]] | None = None
        if constrained:
            self.weights = self._constrain()

    def _with_partner(self, level: int) -> int:
        """Rows of the layer, over all processes, that have a partner in it."""
        nodes = self.levels.keys[self.columns[level], level].long()
        return int((torch.bincount(nodes)[nodes] > 1).sum())

    def _constrain(self) -> Tensor:
        """Weights of the layers when each counts as the largest loss of its own and the finer layers."""
        sums, blocks = self.pairs.anchors.new_zeros(self.levels.number), 0
        for rows in self.pairs.blocks():
            similarity = self.pairs.similarity(rows)
            layers = self._layers(similarity, rows)
            sums += torch.stack([layer.loss for layer in layers])
            blocks += 1
            self._surveyed = (similarity, layers) if blocks == 1 else None
        losses = distributed.all_reduce_mean(sums * self.per_anchor)
        largest = losses.flip(0).cummax(dim=0).indices
        source = len(losses) - 1 - largest.flip(0)
        return torch.zeros_like(self.weights).index_add_(0, source, self.weights)

    def similarity(self, rows: slice) -> Tensor:
        """Cosines of a block; not computed again while the survey's are kept."""
        return self.pairs.similarity(rows) if self._surveyed is None else self._surveyed[0]

    def __call__(self, similarity: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Summed loss of a block and its gradient with respect to the similarities (R, N)."""
        layers = self._surveyed[1] if self._surveyed else self._layers(similarity, rows)
        self._surveyed = None
        total, grad = similarity.new_zeros(()), torch.zeros_like(similarity)
        for layer, columns, weight in zip(layers, self.columns, self.weights * self.per_anchor, strict=True):
            total += weight * layer.loss
            if layer.grad.shape == grad.shape:
                grad.addcmul_(layer.grad, weight)
            else:
                grad[layer.rows[:, None], columns] += layer.grad * weight
        return total, grad.mul_(self.inverse_temperature)

    def _layers(self, similarity: Tensor, rows: slice) -> list[_Layer]:
        places = torch.arange(rows.start, rows.stop, device=similarity.device) + self.offset
        return [self._layer(similarity, places, level) for level in range(self.levels.number)]

    def _layer(self, similarity: Tensor, places: Tensor, level: int) -> _Layer:
        columns, nodes = self.columns[level], self.levels.keys[:, level]
        mine = self.kept[level, places].nonzero()[:, 0]
        own = places[mine]
        everything = (len(mine), len(columns)) == similarity.shape
        x = (similarity if everything else similarity[mine[:, None], columns]) * self.inverse_temperature
        other = own[:, None] != columns
        partner = (nodes[own, None] == nodes[columns]) & other
        count = partner.sum(dim=1)
        has = (count > 0).to(x.dtype)
        share = partner.to(x.dtype).div_(count.clamp_min(1)[:, None])
        others = MaskedSoftmax(x, other)
        lse = others.lse.masked_fill(count == 0, 0)
        loss = (has * lse).sum() - torch.dot(share.flatten(), x.flatten())
        return _Layer(loss, others.gradient(has).sub_(share), mine)

    def scale(self) -> Tensor:
        """1: the weights hold everything."""
        return self.weights.new_ones(())
