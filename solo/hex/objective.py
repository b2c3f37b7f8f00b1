"""Where HEX enters a method: one object with three sockets, made once from the settings.

`replace` stands where a contrastive loss does (SimCLR, NNCLR, All4One, MoCo v2+); `blend` adds HEX to a method that has
no negatives (VICReg, Barlow Twins, BYOL, SimSiam); `denominator` is for the multi-label losses. No method asks
which of them is on.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from solo import distributed
from solo.args.schema import HexCfg
from solo.errors import UserError
from solo.hex.catalogue import named, policy_class, policy_facts
from solo.hex.loss import HexDenominator
from solo.hex.policy import Policy, Selector, WarmUp, WithNamed
from solo.hex.relatives import Bank, FromTable, kinship, shares
from solo.hex.rows import RELEASE, Action, Elsewhere, HexRows, Stats, means
from solo.losses.hierarchical_rows import Denominator
from solo.losses.info_nce import MaskedSoftmax, Positives, blockwise, info_nce
from solo.losses.pairs import Pairs


@dataclass(frozen=True)
class Step:
    """Where training is, at the step at hand."""

    epoch: int  # 0-based
    max_epochs: int  # length of the run
    index: int | None = field(default=None, kw_only=True)  # 0-based, in its epoch; None: no trainer, so no logs


class Hex:
    """HEX as it enters a method's loss, as the section `hex` asks for: who is a relative, and how much that weighs.

    `temperature`, above 0, and `scale`, the weight of HEX within `blend`, are the method's, used where the section's
    are null; `fused`: by the kernels of `solo.losses.fused`. Without a policy (`type: standard`) it is the method's own
    loss, to the last bit. A `UserError` where a policy from outside isn't there or refuses its `hex.policy_kwargs`.
    """

    def __init__(
        self, settings: HexCfg, temperature: float | None = None, scale: float = 1.0, fused: bool = False
    ) -> None:
        facts = policy_facts(settings.policy)
        self.settings, self.fused = settings, fused
        self.positives: Positives = settings.positives  # how several of one anchor count
        self.temperature = (settings.temperature if facts.path else None) or temperature or 0.1
        self.scale = scale if settings.scale is None else settings.scale
        own = RELEASE if (facts.variant or settings.variant) == "release" else Action(facts.action, facts.denominator)
        what, against = settings.action or own.name, settings.denominator or own.denominator
        share = (None if facts.labels == "tree" else 0.5) if settings.share is None else settings.share
        self.action = Action(what, against, share, settings.softness or facts.softness, settings.confident)
        self.policy: Policy | None = _policy(settings) if facts.path else None  # who is a relative
        if self.policy is not None and settings.named:
            self.policy = WithNamed(self.policy)
        # Finds hierarchy negatives among whoever the policy has not found.
        self.kin = _policy(settings, settings.kin) if facts.path and settings.kin else None
        # Of embeddings, where relatives come from a table over the data set.
        self.bank = Bank(settings.drawn, settings.mix) if facts.table and what == "pull" else None
        # Finds the relatives that second views are of, see `solo.data.views.batched`; None: views are an image's own.
        shown = settings.show or facts.show
        self.show = _policy(settings, shown) if shown else None
        # What the last step saw of this process's anchors, see `hex_nce`, as sums and numbers (2,), or means (); of all
        # its calls, where a method makes several with one `step` object (NNCLR's two directions).
        self.seen: Stats = {}
        self.found: Stats = {}  # what HEX does, see `_probe`, in the steps that look: 1st of an epoch, and every 100th
        self.whom: Stats = {}  # what is known of the relatives that are shown
        self._step: Step | None = None

    @property
    def stats(self) -> Stats:
        return means(self.seen)

    def replace(
        self,
        plain: Callable[[Pairs], Tensor],
        pairs: Pairs,
        step: Step,
        embeddings: Tensor | None = None,
        fixed: bool = False,
    ) -> Tensor:
        """The HEX loss of the pairs, in place of the method's own, `plain`.

        `embeddings` (B, D) are what is remembered of the images, for others whose relatives they are; None: anchors.
        `fixed`: the anchors have no gradient, being looked up themselves: keys are pulled to relatives instead.
        """
        pairs = dataclasses.replace(pairs, fused=self.fused)
        return plain(pairs) if self.policy is None else self._loss(pairs, step, embeddings, fixed)

    def blend(
        self, base: Tensor | Callable[[], Tensor], views: Sequence[Tensor] | Callable[[], Pairs], step: Step
    ) -> Tensor:
        """`(1 - alpha) * base + alpha * scale * HEX`.

        `base`, the method's own loss, is a function where it gathers rows, so that those of HEX travel with them;
        `views` are (B, D) projections of each view, which HEX compares, or a function that makes the pairs.
        """
        if self.policy is None:
            return base if isinstance(base, Tensor) else base()
        alpha, pairs = self.settings.alpha, views
        if not callable(pairs):
            given = (pairs, step.ids, step.groups)  # type: ignore[attr-defined]
            pairs = Pairs.views_later(*given) if distributed.is_distributed() else partial(Pairs.from_views, *given)
        own = base if isinstance(base, Tensor) else base()
        hex_ = self._loss(dataclasses.replace(pairs(), fused=self.fused), step)
        return (1 - alpha) * own + alpha * self.scale * hex_

    def denominator(self, pairs: Pairs, step: Step) -> Denominator | None:
        """What makes the denominators of a multi-label loss of `pairs`; None: its own."""
        if self.policy is None:
            return None
        selector = self.policy.selector(pairs, step.epoch, step.max_epochs)
        if selector is None:
            self.seen = {"hierarchy_negatives": pairs.anchors.new_zeros(())}
            return None
        made = HexDenominator(selector, self.temperature, self.settings.beta, self.settings.tau_plus)
        self.seen = made.stats  # filled block by block
        return made

    def _loss(self, pairs: Pairs, step: Step, embeddings: Tensor | None = None, fixed: bool = False) -> Tensor:
        drawn = self._drawn(pairs, step, embeddings)
        loss, seen = self._contrast(pairs, step, None if fixed else drawn)
        if fixed and drawn is not None and self.action.name == "pull":
            count, (row, _) = len(pairs.anchors), drawn.known.nonzero(as_tuple=True)
            share = (self.action.share or 0.0) * drawn.known.any(dim=1).sum() / count
            rows, ids = drawn.rows[drawn.known].to(pairs.anchors), pairs.anchor_ids[row]
            groups = None if pairs.anchor_groups is None else pairs.anchor_groups[row]
            relatives = dataclasses.replace(pairs, anchors=rows, anchor_ids=ids, anchor_groups=groups, complete=False)
            loss = (1 - share) * loss + share * self._contrast(relatives, step, None)[0]
        if step is self._step:
            self.seen = {name: value + self.seen[name] for name, value in seen.items()}
            return loss
        self._step, self.seen = step, seen
        looks = step.index is not None and not step.index % 100 and step.epoch >= self.settings.warm_up()
        looks &= not pairs.ring  # it compares with all keys
        self.found = self._probe(pairs, step, None if fixed else drawn) if looks else {}
        return loss

    def _probe(self, pairs: Pairs, step: Step, drawn: Elsewhere | None) -> Stats:
        temperature, labels = self._temperature(step.epoch), None
        plain = partial(info_nce, temperature=temperature, positives=self.positives)
        cosine = gradient_cosine(lambda copy: self._contrast(copy, step, drawn)[0], plain, pairs)
        found: Stats = {"gradient_cosine": cosine}
        if isinstance(targets := getattr(step, "targets", None), Tensor):
            views = len(pairs.anchors) // len(targets)
            labels = targets.repeat(views), step.groups.repeat(views)  # type: ignore[attr-defined]
        for name, selector in zip(("", "kin_"), self._selectors(pairs, step), strict=True):
            whom = {} if selector is None else whom_it_found(pairs, selector, temperature, labels)
            found |= {f"{name}{key}": value for key, value in whom.items()}
        if drawn is not None and self.bank is not None:
            found |= {"with_relatives": drawn.known.any(dim=1).float().mean(), **self.bank.found}
        return found

    def _selectors(self, pairs: Pairs, step: Step) -> list[Selector | None]:
        policies = (self.policy, self.kin)
        return [None if x is None else x.selector(pairs, step.epoch, step.max_epochs) for x in policies]

    def _contrast(self, pairs: Pairs, step: Step, elsewhere: Elsewhere | None) -> tuple[Tensor, Stats]:
        found, kin = self._selectors(pairs, step)
        of, temperature = self.settings, self._temperature(step.epoch)
        settings = (of.beta, of.tau_plus, of.variant == "relative", self.action, of.positives)
        rows = HexRows(pairs, found, temperature, *settings, kin, elsewhere)
        return blockwise(rows), rows.seen()

    def _temperature(self, epoch: int) -> float:
        """The temperature of an epoch: Kukleva et al., ICLR 2023, equation 2."""
        largest = self.settings.temperature_max
        if largest is None:
            return self.temperature
        swing = (1 + math.cos(2 * math.pi * epoch / self.settings.temperature_period)) / 2
        return self.temperature + (largest - self.temperature) * swing

    def _drawn(self, pairs: Pairs, step: Step, embeddings: Tensor | None) -> Elsewhere | None:
        """Relatives of the anchors, from the bank, which then gets the batch's own embeddings."""
        if self.bank is None:
            return None
        assert isinstance(self.policy, FromTable)
        ids: Tensor = step.ids  # type: ignore[attr-defined]  # of a TrainStep
        if not len(self.bank.table):
            shown = policy_facts(self.settings.policy).shown
            cure = "in a program of your own set model.hex.bank.table to numbers of relatives (n, K)"
            raise UserError(f"type={shown} needs a table over the data set, which solo pretrain makes; {cure}")
        views, drawn = len(pairs.anchors) // len(ids), None
        own = pairs.anchors.detach().view(views, len(ids), -1).sum(dim=0) if embeddings is None else embeddings.detach()
        if step.epoch >= self.settings.warm_up():
            self.bank.look(self.policy, step.epoch, step.max_epochs)
            drawn = self.bank.draw(ids, own)
        if step is not self._step:
            self.bank.store(ids, own)
        return drawn and Elsewhere(drawn.rows.repeat(views, 1, 1), drawn.known.repeat(views, 1))


def gradient_cosine(one: Callable[[Pairs], Tensor], other: Callable[[Pairs], Tensor], pairs: Pairs) -> Tensor:
    """Cosine of the gradients of two losses with respect to the anchors of all processes; 0 where one vanishes.

    Where the anchors are among the keys, they get that part of the gradient, too.
    """
    with torch.enable_grad():
        anchors, keys = (x.detach().requires_grad_() for x in (pairs.anchors, pairs.keys))
        copy = dataclasses.replace(pairs, anchors=anchors, keys=keys)
        found = [torch.autograd.grad(loss(copy), (anchors, keys)) for loss in (one, other)]
    among = pairs.offset is not None  # the anchors are among the keys
    a, b = (rows + distributed.own_rows(distributed.all_reduce_sum(d)) if among else rows for rows, d in found)
    products = distributed.all_reduce_sum(torch.stack([(a * b).sum(), a.square().sum(), b.square().sum()]))
    return products[0] / (products[1] * products[2]).sqrt().clamp_min(torch.finfo(a.dtype).tiny)


def whom_it_found(pairs: Pairs, selector: Selector, temperature: float, labels: tuple[Tensor, Tensor] | None) -> Stats:
    """Means over the anchors of all processes of what a selector finds among the negatives.

    ``with_relatives``: share of anchors that have any; ``mass``: their share in the anchor's sum over all others; with
    labels, classes and groups (M,) of the anchors, -1 for unknown, ``own_class``, ``siblings``, ``strangers``: shares
    of relatives of the same class, of another one of the same group, of another group.
    """
    sums = pairs.anchors.new_zeros(7)
    known = None if labels is None else torch.stack(labels, dim=1)
    columns = None if known is None else distributed.gather_no_grad(known)
    for rows in pairs.blocks():
        similarity = pairs.similarity(rows)
        positive, negative = pairs.masks(rows)
        chosen = selector(similarity, rows) & negative
        x = similarity / temperature
        mass = (MaskedSoftmax(x, chosen).lse - MaskedSoftmax(x, positive | negative).lse).exp()
        sums[:3] += torch.stack([mass.new_tensor(len(mass)), chosen.any(dim=1).sum(), mass.nansum()])
        # Of the classes of a queue nothing is kept.
        if known is not None and columns is not None and len(columns) == len(pairs.keys):
            sums[3:] += kinship(known[rows], columns, chosen.nonzero(as_tuple=True)).to(sums)
    number, having, mass, *of = distributed.all_reduce_sum(sums).unbind()
    return {"with_relatives": having / number, "mass": mass / number} | shares(torch.stack(of))


def _policy(settings: HexCfg, other: str | None = None) -> Policy:
    """The policy, or another one, as users write it, with the same settings but the first one's own."""
    if other is not None:
        settings = dataclasses.replace(settings, policy=named(other), policy_kwargs={})
    facts = policy_facts(settings.policy)
    kind = policy_class(facts.path)
    fields = [field.name for field in dataclasses.fields(kind)]
    given = {name: getattr(settings, name) for name in facts.reads if name in fields}
    given |= kind.from_settings(settings) if hasattr(kind, "from_settings") else {}
    if "warm_epoch" in fields:
        given["warm_epoch"] = settings.warm_up()
    try:
        policy: Policy = kind(**given | dict(settings.policy_kwargs))
    except (TypeError, ValueError) as error:
        raise UserError(f"hex.policy_kwargs={dict(settings.policy_kwargs)} don't fit {facts.shown}: {error}") from error
    warms_up = "warm_epoch" in fields or isinstance(policy, FromTable) or not settings.warm_up()
    return policy if warms_up else WarmUp(policy, settings.warm_up())
