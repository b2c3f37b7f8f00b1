"""Where HEX enters a method: one object with three sockets, chosen once from the settings.

`replace` stands where a contrastive loss does (SimCLR, NNCLR, All4One, MoCo v2+); `blend` adds HEX to a method that has
no negatives (VICReg, Barlow Twins, BYOL, SimSiam); `denominator` gives one to the multi-label losses. No method asks
which of them is on. `solo.hex.build` makes one from the settings.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from solo.args.schema import HexCfg
from solo.distributed import is_distributed
from solo.errors import UserError
from solo.hex.catalogue import policy_facts
from solo.hex.denominator import HexDenominator
from solo.hex.loss import hex_nce
from solo.hex.policy import Policy
from solo.hex.probe import gradient_cosine, whom_it_found
from solo.hex.relatives import Bank, FromTable
from solo.hex.rows import Action, Elsewhere, Stats, means
from solo.losses.hierarchical_rows import Denominator
from solo.losses.info_nce import Positives, info_nce
from solo.losses.label_levels import LabelLevels
from solo.losses.pairs import Pairs

Base = Tensor | Callable[[], Tensor]
Compared = Sequence[Tensor] | Callable[[], Pairs]
_PROBE = 100  # steps from one look at what HEX does to the next


@dataclass(frozen=True)
class Step:
    """Where training is, at the step at hand."""

    epoch: int  # 0-based
    max_epochs: int  # length of the run
    # 0-based, of the step in its epoch; None without a trainer, where nothing is logged
    index: int | None = field(default=None, kw_only=True)


@dataclass(eq=False)
class _Looks:
    """What the last step saw."""

    # of this process's anchors, see `hex_nce`, as sums and numbers (2,), or means (); of all its calls, where a method
    # makes several with one `step` object (NNCLR's two directions)
    seen: Stats = field(default_factory=dict, init=False)
    # what HEX does, see `solo.hex.probe`, in the steps that look (the first of an epoch, and every 100th)
    found: Stats = field(default_factory=dict, init=False)
    whom: Stats = field(default_factory=dict, init=False)  # what is known of the relatives that are shown

    @property
    def stats(self) -> Stats:
        """The means of what is `seen`."""
        return means(self.seen)


@dataclass(eq=False)
class Standard(_Looks):
    """`type: standard`: the method's own loss, to the last bit."""

    temperature: float  # of the method
    positives: Positives  # how several positives of one anchor count, see `solo.losses.info_nce`
    show: Policy | None = None  # as `Hex` has it
    fused: bool = False  # as `Hex` has it
    bank: Bank | None = field(default=None, init=False)

    def replace(self, plain: Callable[[Pairs], Tensor], pairs: Pairs, *_: Any, **__: Any) -> Tensor:
        """The method's own loss of the pairs."""
        return plain(dataclasses.replace(pairs, fused=self.fused))

    def blend(self, base: Base, views: Compared, step: Step) -> Tensor:
        """The method's own loss as it is."""
        return base if isinstance(base, Tensor) else base()

    def denominator(self, pairs: Pairs, step: Step) -> None:
        """The multi-label losses keep their own."""
        return None


@dataclass(eq=False)
class Hex(_Looks):
    """HEX as it enters a method's loss: who is a relative, and how much that weighs."""

    policy: Policy  # who is a relative
    temperature: float  # > 0
    settings: HexCfg  # beta, tau_plus, positives, alpha, and how the temperature changes
    scale: float  # weight of the HEX loss within `blend`, beside alpha
    action: Action = field(default_factory=Action)  # what is done with relatives; they are weighed by default
    kin: Policy | None = None  # finds hierarchy negatives among whoever the policy has not found
    bank: Bank | None = None  # of embeddings, where relatives come from a table over the data set
    # finds the relatives that second views are of, see `solo.data.views.batched`; None: all views are an image's own.
    # No loss knows of it.
    show: Policy | None = None
    fused: bool = False  # losses are computed by the kernels of `solo.losses.fused`
    _step: Step | None = field(default=None, init=False)
    _calls: int = field(default=0, init=False)

    @property
    def positives(self) -> Positives:
        """How several positives of one anchor count."""
        return self.settings.positives

    def replace(
        self,
        plain: Callable[[Pairs], Tensor],
        pairs: Pairs,
        step: Step,
        embeddings: Tensor | None = None,
        fixed: bool = False,
    ) -> Tensor:
        """The HEX loss of the pairs, in place of the method's own.

        Args:
            plain: the method's own.
            pairs: who is compared with whom.
            step: where training is.
            embeddings: (B, D) what is remembered of the images, for others whose relatives they are; None: the anchors.
            fixed: the anchors have no gradient, being looked up themselves: keys are pulled to relatives instead.
        """
        return self._loss(pairs, step, embeddings, fixed)

    def blend(self, base: Base, views: Compared, step: Step) -> Tensor:
        """`(1 - alpha) * base + alpha * scale * HEX`.

        Args:
            base: the method's own loss; where it gathers rows, a function, so that those of HEX travel with them.
            views: (B, D) projections of each view, which HEX compares; or a function that makes the pairs.
            step: where training is, and who is in the batch.
        """
        alpha, pairs = self.settings.alpha, views
        if not callable(pairs):
            arguments = (pairs, step.ids, step.groups)  # type: ignore[attr-defined]
            pairs = Pairs.views_later(*arguments) if is_distributed() else partial(Pairs.from_views, *arguments)
        own = base if isinstance(base, Tensor) else base()
        return (1 - alpha) * own + alpha * self.scale * self._loss(pairs(), step)

    def denominator(self, pairs: Pairs, step: Step) -> Callable[[LabelLevels], Denominator] | None:
        """What makes the denominators of a multi-label loss from the label levels of `pairs`; None in warm-up."""
        selector = self.policy.selector(pairs, step.epoch, step.max_epochs)
        self.seen = {"hierarchy_negatives": pairs.anchors.new_zeros(())}
        if selector is None:
            return None

        def make(levels: LabelLevels) -> Denominator:
            of = self.settings
            made = HexDenominator(levels, selector, self.temperature, of.beta, of.tau_plus)
            self.seen = made.stats  # filled block by block
            return made

        return make

    def _loss(self, pairs: Pairs, step: Step, embeddings: Tensor | None = None, fixed: bool = False) -> Tensor:
        pairs = dataclasses.replace(pairs, fused=self.fused)
        drawn = self._drawn(pairs, step, embeddings)
        loss, seen = self._contrast(pairs, step, None if fixed else drawn)
        if fixed and drawn is not None and self.action.name == "pull":
            count, (row, _) = len(pairs.anchors), drawn.known.nonzero(as_tuple=True)
            share = (self.action.share or 0.0) * drawn.known.any(dim=1).sum() / count
            relatives = dataclasses.replace(
                pairs,
                anchors=drawn.rows[drawn.known].to(pairs.anchors),
                anchor_ids=pairs.anchor_ids[row],
                anchor_groups=None if pairs.anchor_groups is None else pairs.anchor_groups[row],
                complete=False,
            )
            loss = (1 - share) * loss + share * self._contrast(relatives, step, None)[0]
        self._calls = self._calls + 1 if step is self._step else 1
        self._step = step
        self.seen = {name: value + self.seen[name] for name, value in seen.items()} if self._calls > 1 else seen
        if self._calls == 1:
            looks = step.index is not None and not step.index % _PROBE and step.epoch >= self.settings.warm_up()
            looks &= not pairs.ring  # it compares with all keys
            self.found = self._probe(pairs, step, None if fixed else drawn) if looks else {}
        return loss

    def _probe(self, pairs: Pairs, step: Step, drawn: Elsewhere | None) -> Stats:
        temperature = self._temperature(step.epoch)
        cosine = gradient_cosine(
            lambda copy: self._contrast(copy, step, drawn)[0],
            lambda copy: info_nce(copy, temperature, self.positives),
            pairs,
        )
        found: Stats = {"gradient_cosine": cosine}
        labels = None
        if isinstance(targets := getattr(step, "targets", None), Tensor):
            views = len(pairs.anchors) // len(targets)
            labels = targets.repeat(views), step.groups.repeat(views)  # type: ignore[attr-defined]
        for name, policy in (("", self.policy), ("kin_", self.kin)):
            selector = policy and policy.selector(pairs, step.epoch, step.max_epochs)
            whom = {} if selector is None else whom_it_found(pairs, selector, temperature, labels)  # type: ignore[arg-type]
            found |= {f"{name}{key}": value for key, value in whom.items()}
        if drawn is not None and self.bank is not None:
            found |= {"with_relatives": drawn.known.any(dim=1).float().mean(), **self.bank.found}
        return found

    def _contrast(self, pairs: Pairs, step: Step, elsewhere: Elsewhere | None) -> tuple[Tensor, Stats]:
        return hex_nce(
            pairs,
            self.policy,
            temperature=self._temperature(step.epoch),
            beta=self.settings.beta,
            tau_plus=self.settings.tau_plus,
            relative=self.settings.variant == "relative",
            action=self.action,
            positives=self.positives,
            epoch=step.epoch,
            max_epochs=step.max_epochs,
            kin=self.kin,
            elsewhere=elsewhere,
            own=True,
        )

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
            raise UserError(
                f"type={policy_facts(self.settings.policy).shown} needs a table over the data set, which solo pretrain "
                "makes; in a program of your own set model.hex.bank.table to numbers of relatives (n, K)"
            )
        views, drawn = len(pairs.anchors) // len(ids), None
        own = pairs.anchors.detach().view(views, len(ids), -1).sum(dim=0) if embeddings is None else embeddings.detach()
        if step.epoch >= self.settings.warm_up():
            self.bank.look(self.policy, step.epoch, step.max_epochs)
            drawn = self.bank.draw(ids, own)
        if step is not self._step:
            self.bank.store(ids, own)
        return drawn and Elsewhere(drawn.rows.repeat(views, 1, 1), drawn.known.repeat(views, 1))
