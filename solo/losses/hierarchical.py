"""Hierarchical multi-label contrastive losses: HiMulCon, HiConE and HiMulConE.

Zhang, Xu, Xiong, Ramaiah: Use All The Labels, CVPR 2022, https://arxiv.org/abs/2204.13207, equations 3 to 7. Labels
name a node at each of L levels; ``P_l(i)`` are the partners that anchor i meets at level l, and a pair's loss is

    ell(i, p) = -log( exp(s_ip / tau) / sum_{a != i} exp(s_ia / tau) )
    HiMulCon  = 1/L sum_l lambda_l mean_i mean_{p in P_l(i)} ell(i, p)
    HiConE    = 1/L sum_l mean_i mean_{p in P_l(i)} max( ell(i, p), M_{l+1} )
    HiMulConE = both

with ``M_{l+1}`` the largest pair loss of the finer levels (printed as l - 1, see the erratum). The mean over i takes
the anchors that have a partner at level l. docs/hierarchical.md tells the choices.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from solo import distributed
from solo.losses.hierarchical_rows import Denominator, HierarchicalRows, LabelLevels, hierarchical_rows_loss, numbered
from solo.losses.info_nce import MaskedSoftmax, RowLoss, blockwise
from solo.losses.pairs import Pairs

Kind = Literal["himulcon", "hicone", "himulcone"]
Partners = Literal["lca", "cumulative"]
Granularity = Literal["pair", "layer"]
LevelPenalty = Literal["released", "exp2", "linear", "constant"] | Sequence[float]


def level_penalties(penalty: LevelPenalty, levels: int) -> list[float]:
    """``lambda_l`` of each of L levels, the coarsest first, by name or as numbers of at least 0."""
    named = {
        "released": [2.0 ** (1 / (levels - level)) for level in range(levels)],
        "exp2": [2.0**level for level in range(levels)],
        "linear": [level + 1.0 for level in range(levels)],
        "constant": [1.0] * levels,
    }
    if isinstance(penalty, str):
        if penalty not in named:
            raise ValueError(f"level_penalty={penalty!r} is unknown; choose {', '.join(named)} or a list")
        return named[penalty]
    values = [float(value) for value in penalty]
    if len(values) != levels or not all(0 <= value < float("inf") for value in values):
        raise ValueError(f"level_penalty={values} must be {levels} numbers of at least 0, one a level, coarse first")
    return values


def hierarchical_contrastive_loss(
    pairs: Pairs,
    labels: Tensor,
    kind: Kind = "himulcone",
    temperature: float = 0.1,
    level_penalty: LevelPenalty = "released",
    partners: Partners = "lca",
    granularity: Granularity = "pair",
    denominator: Denominator | None = None,
    key_labels: Tensor | None = None,
) -> Tensor:
    """The loss of ``pairs``, a scalar in float32 or better; 0 where no anchor has a partner.

    Labels (M, L) are those of its anchors (``key_labels`` (N, L): of its keys; None: they are gathered), coarse first,
    -1 unknown; its ids say which rows are views of one image. Other arguments are those of
    ``HierarchicalContrastiveLoss``, whose ``pairs`` is ``partners`` here, and so are its errors; ``denominator`` makes
    other denominators than equation 3's, with ``granularity="pair"`` only.
    """
    words = {"kind": (kind, Kind), "pairs": (partners, Partners), "granularity": (granularity, Granularity)}
    for name, (value, allowed) in words.items():
        if value not in get_args(allowed):
            raise ValueError(f"{name}={value!r} is unknown; choose {', '.join(get_args(allowed))}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if granularity == "layer":
        if partners == "cumulative" or denominator is not None:
            cure = "granularity='pair' takes the others"
            raise ValueError(f"granularity='layer' goes with pairs='lca' and the plain denominator only; {cure}")
        if labels.ndim != 2 or labels.shape[1] < 2:
            what = f"labels (N, L + 1) whose last column is the instance, got {tuple(labels.shape)}"
            raise ValueError(f"granularity='layer' needs {what}; granularity='pair' takes any")
        labels, key_labels = labels[:, :-1], None if key_labels is None else key_labels[:, :-1]
    levels = LabelLevels.of(pairs, labels, key_labels)
    penalties, constrained = level_penalties(level_penalty, levels.number), kind != "himulcon"
    # A single level has nothing to be weighed against: it is SupCon, and SimCLR where nothing is known.
    if kind == "hicone" or (levels.number == 1 and isinstance(level_penalty, str) and granularity == "pair"):
        penalties = [1.0] * levels.number
    weighed = (pairs, levels, penalties, temperature, constrained)
    if granularity == "layer":
        return blockwise(HierarchicalLayers(*weighed))
    return hierarchical_rows_loss(HierarchicalRows(*weighed, partners == "cumulative", denominator))


class HierarchicalContrastiveLoss(nn.Module):
    """HiMulCon, HiConE or HiMulConE of the views of a batch, for any training loop.

    With one level of labels it is SupCon (Khosla et al., 2020, L_out), with one level and no labels SimCLR.

    Args:
        kind: ``himulcon`` weighs the levels, ``hicone`` lets no pair of a coarser level have a smaller loss than any of
            a finer one, ``himulcone`` does both.
        temperature: > 0, divides the cosines.
        level_penalty: lambda_l of ``himulcon`` and ``himulcone``, l = 0 the coarsest: ``released`` 2^(1/(L - l)),
            ``exp2`` 2^l, ``linear`` l + 1, ``constant`` 1, or a list, coarse first. Named ones are 1 if L = 1.
        pairs: partners at a level: ``lca``, whose lowest common ancestor is there (section 3), or ``cumulative``, who
            share that level's label, whatever they share below (Algorithm 1).
        granularity: ``pair``, the equations; ``layer``, what the public release computes: the constraint is between the
            mean losses of layers, and a coarser layer keeps one image a finer node. It reads the last column of the
            labels as the instance: not a level of its own (L is one less than the columns), but counted in 1/L.
        gather_distributed: compare with the rows of all processes.

    Raises:
        ValueError: (in ``forward``) if a setting is unknown or out of its range, or two do not go together.
    """

    def __init__(
        self,
        kind: Kind = "himulcone",
        temperature: float = 0.1,
        level_penalty: LevelPenalty = "released",
        pairs: Partners = "lca",
        granularity: Granularity = "pair",
        gather_distributed: bool = True,
    ) -> None:
        super().__init__()
        self.kind, self.temperature, self.level_penalty = kind, temperature, level_penalty
        self.pairs, self.granularity, self.gather_distributed = pairs, granularity, gather_distributed

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Loss of the projections (B, V, d), of any length, of V views, a scalar in float32 or better.

        Labels are integers (B, L), coarse first, -1 for unknown (then the levels below count as unknown too).
        """
        if features.ndim != 3 or labels.ndim != 2 or len(labels) != len(features):
            got = f"{tuple(features.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"expected features (B, V, d) and labels (B, L), got {got}")
        pairs = Pairs.from_views(features.unbind(dim=1), gather=self.gather_distributed)
        settings = (self.kind, self.temperature, self.level_penalty, self.pairs, self.granularity)
        return hierarchical_contrastive_loss(pairs, labels.repeat(features.shape[1], 1), *settings)


def kept_rows(nodes: Tensor, ids: Tensor) -> Tensor:
    """Which keys each layer keeps, (L, N), coarse first, of node ids (N, L), sorted as the labels are, and images (N,).

    The finest keeps all, a coarser one the first image of every node of the finer layer, in the order of the batch
    where that is the finest, else of that layer's labels.
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


class HierarchicalLayers(RowLoss):
    """The losses layer by layer, as the paper's public release computes them; `levels` are without the instance.

    A layer's loss is SupCon's (equation 2) among what it keeps, see `kept_rows`; the hierarchy constraint is a maximum
    of layer losses, and the sum is divided by the number of label columns, the instance's included.
    """

    def __init__(
        self, pairs: Pairs, levels: LabelLevels, penalties: list[float], temperature: float, constrained: bool
    ) -> None:
        super().__init__(pairs)
        self.levels, self.inverse_temperature = levels, 1.0 / temperature
        self.kept = kept_rows(levels.keys, pairs.key_ids)
        self.columns = [kept.nonzero()[:, 0] for kept in self.kept]
        nodes = [levels.keys[columns, level].long() for level, columns in enumerate(self.columns)]
        # rows of each layer, over all processes, that have a partner in it
        anchors = pairs.anchors.new_tensor([int((torch.bincount(own)[own] > 1).sum()) for own in nodes])
        self.per_anchor = distributed.world_size() / anchors.clamp_min(1)
        self.weights = pairs.anchors.new_tensor(penalties) / (levels.number + 1)
        self._surveyed: list[tuple[Tensor, Tensor, Tensor]] | None = None  # not made twice where it is the only block
        if constrained:  # each layer counts as the largest loss of its own and the finer ones
            sums = torch.zeros_like(self.weights)
            for blocks, rows in enumerate(pairs.blocks()):
                layers = self._layers(rows)
                sums += torch.stack([loss for loss, _, _ in layers])
                self._surveyed = None if blocks else layers
            losses = distributed.all_reduce_mean(sums * self.per_anchor)
            source = len(losses) - 1 - losses.flip(0).cummax(dim=0).indices.flip(0)
            self.weights = torch.zeros_like(self.weights).index_add_(0, source, self.weights)

    def __call__(self, rows: slice) -> tuple[Tensor, Tensor]:
        layers = self._surveyed or self._layers(rows)
        self._surveyed = None
        shape = (rows.stop - rows.start, len(self.pairs.keys))
        total, grad = self.weights.new_zeros(()), self.weights.new_zeros(shape)
        weights = self.weights * self.per_anchor
        for (loss, layer, mine), columns, weight in zip(layers, self.columns, weights, strict=True):
            total += weight * loss
            if layer.shape == grad.shape:
                grad.addcmul_(layer, weight)
            else:
                grad[mine[:, None], columns] += layer * weight
        return total, grad.mul_(self.inverse_temperature)

    def _layers(self, rows: slice) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each layer the loss of the rows of a block that it keeps, its gradient of kept logits, and these rows."""
        similarity, layers = self.pairs.similarity(rows), []
        assert self.pairs.offset is not None
        places = torch.arange(rows.start, rows.stop, device=similarity.device) + self.pairs.offset
        for kept, columns, nodes in zip(self.kept, self.columns, self.levels.keys.T, strict=True):
            mine = kept[places].nonzero()[:, 0]
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
            layers.append((loss, others.gradient(has).sub_(share), mine))
        return layers
