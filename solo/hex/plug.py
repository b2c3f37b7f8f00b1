"""Where HEX plugs into a method: one object with three sockets, chosen once from the config.

``nce`` replaces a contrastive loss (SimCLR, NNCLR, All4One, MoCo v2+); ``blend`` adds HEX to a method that has no
negatives (VICReg, Barlow Twins, BYOL, SimSiam); ``denominator`` gives one to the multi-label losses. No method asks
which of them is on. This is the only file of the room that knows of configs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from solo.args.schema import HexCfg
from solo.hex.denominator import HexDenominator
from solo.hex.loss import Stats, hex_nce
from solo.hex.policy import AdaptivePercentile, EveryNegative, FixedThreshold, NoNegative, Policy, Superclass, WithNamed
from solo.hex.schedule import Cosine, Schedule
from solo.hex.schedule import Step as StepSchedule
from solo.losses.hierarchical_rows import Denominator
from solo.losses.info_nce import info_nce
from solo.losses.label_levels import LabelLevels
from solo.losses.pairs import Pairs

_DEFAULT_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Step:
    """Where training is.

    Attributes:
        epoch: 0-based.
        max_epochs: length of the run.
    """

    epoch: int
    max_epochs: int


class NoHex:
    """``standard``: the method's own loss, to the last bit."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.stats: Stats = {}

    def nce(self, pairs: Pairs, step: Step) -> Tensor:
        """Plain InfoNCE; several positives are summed inside the log, as in SimCLR and SupCon of solo-learn."""
        return info_nce(pairs, self.temperature, positives="joint")

    def blend(self, base: Tensor, pairs: Callable[[], Pairs], step: Step) -> Tensor:
        """The method's own loss as it is; the pairs are not made."""
        return base

    def denominator(self, pairs: Pairs, step: Step) -> None:
        """The multi-label losses keep their own denominator."""
        return None


class Hex:
    """HEX in a method.

    Args:
        policy: which negatives are hierarchy negatives.
        temperature: > 0.
        settings: beta, tau_plus, variant and alpha.
        scale: weight of the HEX loss within ``blend``, beside alpha.

    Attributes:
        stats: what the last step saw, see ``hex_nce``; the mean over its calls, where a method makes several with
            one ``step`` object (NNCLR's two directions).
    """

    def __init__(self, policy: Policy, temperature: float, settings: HexCfg, scale: float) -> None:
        self.policy, self.temperature, self.settings, self.scale = policy, temperature, settings, scale
        self.stats: Stats = {}
        self._step: Step | None = None
        self._calls = 0

    def nce(self, pairs: Pairs, step: Step) -> Tensor:
        """The HEX loss of the pairs."""
        loss, stats = hex_nce(
            pairs,
            self.policy,
            temperature=self.temperature,
            beta=self.settings.beta,
            tau_plus=self.settings.tau_plus,
            variant=self.settings.variant,
            epoch=step.epoch,
            max_epochs=step.max_epochs,
        )
        self._calls = self._calls + 1 if step is self._step else 1
        self._step = step
        if self._calls > 1:
            stats = {name: self.stats[name].lerp(value, 1 / self._calls) for name, value in stats.items()}
        self.stats = stats
        return loss

    def blend(self, base: Tensor, pairs: Callable[[], Pairs], step: Step) -> Tensor:
        """``(1 - alpha) * base + alpha * scale * HEX``.

        Args:
            base: the method's own loss.
            pairs: makes the pairs; a function, so that only HEX pays for normalising and gathering them.
            step: where training is.
        """
        alpha = self.settings.alpha
        return (1 - alpha) * base + alpha * self.scale * self.nce(pairs(), step)

    def denominator(self, pairs: Pairs, step: Step) -> Callable[[LabelLevels], Denominator] | None:
        """What makes the denominators of a multi-label loss from the label levels of ``pairs``; None in warm-up."""
        selector = self.policy.selector(pairs, step.epoch, step.max_epochs)
        self.stats = {"hierarchy_negatives": pairs.anchors.new_zeros(())}
        if selector is None:
            return None

        def make(levels: LabelLevels) -> Denominator:
            of = self.settings
            made = HexDenominator(levels, selector, self.temperature, of.beta, of.tau_plus)
            self.stats = made.stats  # filled block by block
            return made

        return make


def _fixed(cfg: HexCfg) -> Policy:
    schedule: Schedule = (
        Cosine(cfg.distance_thresh, cfg.distance_min)
        if cfg.step_type == "cos"
        else StepSchedule(cfg.distance_thresh, cfg.distance_min, cfg.step_down, cfg.epoch_step)
    )
    return FixedThreshold(schedule, cfg.similarity, cfg.warm_up())


POLICIES: dict[str, Callable[[HexCfg], Policy]] = {
    "fixed": _fixed,
    "adaptive": lambda cfg: AdaptivePercentile(cfg.quantile, cfg.warm_up()),
    "superclass": lambda cfg: Superclass(cfg.warm_up()),
    "hcl": lambda cfg: EveryNegative(cfg.warm_up()),
    "dcl": lambda cfg: NoNegative(cfg.warm_up()),
    "infonce": lambda cfg: NoNegative(cfg.warm_up()),
}


def build_hex(cfg: DictConfig, scale: float = 1.0) -> Hex | NoHex:
    """The plug that the config asks for.

    Args:
        cfg: a method's config; reads ``hex.*`` (all keys optional) and ``method_kwargs.temperature``.
        scale: the method's own weight of the HEX loss in ``blend``, used where ``hex.scale`` is null.
    """
    settings = _settings(cfg)
    temperature = settings.temperature or OmegaConf.select(cfg, "method_kwargs.temperature") or _DEFAULT_TEMPERATURE
    if settings.policy == "standard":
        return NoHex(OmegaConf.select(cfg, "method_kwargs.temperature") or temperature)
    policy = POLICIES[settings.policy](settings)
    if settings.named:
        policy = WithNamed(policy)
    if settings.policy == "dcl":
        settings = replace(settings, variant="release")  # with no hierarchy negatives to remove, that is DCL
    return Hex(policy, temperature, settings, scale if settings.scale is None else settings.scale)


def _settings(cfg: DictConfig) -> HexCfg:
    given: Any = OmegaConf.to_container(OmegaConf.create(OmegaConf.select(cfg, "hex") or {}), resolve=True)
    known = {field.name for field in fields(HexCfg)}
    return HexCfg(**{key: value for key, value in given.items() if key in known})
