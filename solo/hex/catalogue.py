"""What is known of each policy before torch is imported: one row a policy; settings, spellings and checks follow.

A policy from outside, `type=my_pkg.mine:MyPolicy`, is a frozen dataclass with a `selector`, see `Policy` in
`solo.hex.policy`; its fields are set by `hex.policy_kwargs.*`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from solo import plugin
from solo.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """Facts of one policy; a class of one's own may give what differs from these defaults as its `facts`.

    Attributes:
        path: where its dataclass is, `module:Class`; empty for `standard`, which is no policy.
        shown: how users write it, `type: HEX_adaptive`.
        reads: settings of `hex` that it reads and not every policy does; its fields, or what `from_settings` reads.
        warm_up: epochs of the plain loss, where `hex.warm_epoch` is null.
        selects: there can be hierarchy negatives, so that `beta` and `tau_plus` have something to weigh.
        variant: of the loss, where it goes with one only.
    """

    path: str = ""
    shown: str = ""
    reads: tuple[str, ...] = ()
    warm_up: int = 10
    selects: bool = True
    variant: Literal["reweight", "release"] | None = None


_FIXED = ("distance_thresh", "distance_min", "step_type", "epoch_step", "step_down", "similarity")
# The published losses have no warm-up. With no hierarchy negatives to remove, the variant `release` is DCL.
POLICIES: dict[str, PolicyFacts] = {
    "standard": PolicyFacts(shown="standard", selects=False),
    "fixed": PolicyFacts(path="solo.hex.policy:FixedThreshold", shown="HEX_fixed", reads=_FIXED),
    "adaptive": PolicyFacts(path="solo.hex.policy:AdaptivePercentile", shown="HEX_adaptive", reads=("quantile",)),
    "superclass": PolicyFacts(path="solo.hex.policy:Superclass", shown="superclass"),
    "hcl": PolicyFacts(path="solo.hex.policy:EveryNegative", shown="HCL", warm_up=0, variant="reweight"),
    "dcl": PolicyFacts(path="solo.hex.policy:NoNegative", shown="DCL", warm_up=0, selects=False, variant="release"),
    "infonce": PolicyFacts(
        path="solo.hex.policy:NoNegative", shown="InfoNCE", warm_up=0, selects=False, variant="reweight"
    ),
}

plugin.permit(facts.path for facts in POLICIES.values() if facts.path)


def shown(*which: str) -> str:
    """Policies as users write them, for a sentence; all of them unless some are given."""
    return ", ".join(POLICIES[name].shown for name in which or POLICIES)


def policy_facts(name: object) -> PolicyFacts:
    """The facts of a policy, by its name or by its import path; those of `standard` where there is no such policy.

    Raises:
        UserError: an import path that leads nowhere, or not to a policy.
    """
    if isinstance(name, str) and plugin.is_path(name):
        said = getattr(policy_class(name), "facts", None)
        return dataclasses.replace(said if isinstance(said, PolicyFacts) else PolicyFacts(), path=name, shown=name)
    return POLICIES.get(str(name), POLICIES["standard"])


def policy_class(path: str) -> Any:
    """The dataclass of a policy.

    Raises:
        UserError: it isn't there, or is no policy.
    """
    found = plugin.load(path, "type")
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and callable(getattr(found, "selector", None))):
        raise UserError(f"type={path} is no policy; give a dataclass with a method selector(pairs, epoch, max_epochs)")
    return found
