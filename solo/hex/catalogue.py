"""What is known of each policy before torch is imported: one row a policy; settings, spellings and checks follow.

A policy from outside, `type=my_pkg.mine:MyPolicy`, is a frozen dataclass with a `selector`, see `Policy` in
`solo.hex.policy`; its fields are set by `hex.policy_kwargs.*`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from solo import plugin
from solo.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """Facts of one policy; a class of one's own may give what differs from these defaults as its `facts`."""

    path: str = ""  # where its dataclass is, `module:Class`; empty for `standard` and `HEX`, whose loss is the method's
    shown: str = ""  # how users write it, `type: HEX_adaptive`
    reads: tuple[str, ...] = ()  # settings of `hex` that not every policy reads: its fields, or for `from_settings`
    warm_up: int = 10  # epochs of the plain loss, where `hex.warm_epoch` is null
    selects: bool = True  # it finds relatives among the negatives, so that there is something to weigh
    variant: Literal["reweight", "release"] | None = None  # of the loss, where it goes with one only
    action: Literal["weigh", "drop", "pull", "keep"] = "weigh"  # on relatives, where `hex.action` is null
    denominator: Literal["own", "negatives", "all", "inside"] = "own"  # where `hex.denominator` is null, see `Action`
    table: bool = False  # its relatives come from a table over the data set, see `solo.hex.relatives`
    show: str | None = None  # policy with a table, as users write it, that finds second views where `hex.show` is null
    labels: Literal["any", "tree"] | None = None  # that it reads at `hex.level`; `tree`: with levels above the classes
    kwargs: bool = False  # it has fields that are no settings of `hex`: `hex.policy_kwargs` gives them
    rows: bool = False  # it joins the rows of a batch with each other, which not every method compares
    softness: float | None = None  # pull: temperature of the weights of relatives, where `hex.softness` is null


def _policy(path: str, shown: str, *reads: str, **facts: Any) -> PolicyFacts:
    return PolicyFacts(path=f"solo.hex.{path}", shown=shown, reads=reads, **facts)


_TABLE: dict[str, Any] = {"warm_up": 1, "selects": False, "action": "pull", "table": True}
_EYE = ("among", "eye", "skip", "mutual")
_FIXED = ("distance_thresh", "distance_min", "step_type", "epoch_step", "step_down", "similarity")
# The published losses have no warm-up. With no hierarchy negatives to remove, the variant `release` is DCL.
POLICIES: dict[str, PolicyFacts] = {
    "standard": PolicyFacts(shown="standard", selects=False),
    "fixed": _policy("policy:FixedThreshold", "HEX_fixed", *_FIXED),
    "adaptive": _policy("policy:AdaptivePercentile", "HEX_adaptive", "quantile"),
    "superclass": _policy("policy:Superclass", "superclass", labels="tree"),
    "hcl": _policy("policy:EveryNegative", "HCL", warm_up=0, variant="reweight"),
    "dcl": _policy("policy:NoNegative", "DCL", warm_up=0, selects=False, variant="release"),
    "infonce": _policy("policy:NoNegative", "InfoNCE", warm_up=0, selects=False, variant="reweight"),
    "coarse": _policy("policy:Superclass", "coarse", warm_up=0, labels="tree", action="pull", denominator="all"),
    "neighbours": _policy("relatives:Neighbours", "neighbours", *_EYE, **_TABLE),
    # Ours: what helps without labels, as it comes.
    "hex": PolicyFacts(shown="HEX", selects=False, warm_up=0, show="neighbours"),
    "shuffled": _policy("relatives:Shuffled", "shuffled", *_EYE, **_TABLE),
    "random": _policy("relatives:RandomSet", "random", "among", **_TABLE),
    "oracle": _policy("relatives:Oracle", "oracle", "among", "purity", labels="any", **_TABLE),
    "consistent": _policy("relatives:Consistent", "consistent", *_EYE, **_TABLE),
    "clusters": _policy("relatives:Clusters", "clusters", "among", "eye", kwargs=True, **_TABLE),
    "soft": _policy("policy:EveryNegative", "soft", warm_up=1, action="pull", denominator="all", softness=0.05),
    "fnc": _policy("policy:FalseNegatives", "fnc", warm_up=1, kwargs=True, action="drop"),
    "ring": _policy("policy:Ring", "ring", warm_up=0, kwargs=True, action="drop"),
    "components": _policy("policy:Components", "components", warm_up=1, kwargs=True, action="pull", rows=True),
}

# What a ring and what kernels can do, see `solo.losses.pairs` and `fused`; ends of sentences.
_BY = "HEX_fixed, HEX_adaptive, superclass, HCL, DCL or InfoNCE"
NOT_IN_RING = f"pulls no relatives, and finds them by {_BY} only, without hex.named; leave it out"
NOT_FUSED = f"weighs or drops what {_BY} find, without hex.kin and hex.variant=relative; leave it out"

plugin.permit(facts.path for facts in POLICIES.values() if facts.path)


def named(shown: str) -> str:
    """The name of a policy by how users write it."""
    return next(name for name, facts in POLICIES.items() if facts.shown == shown)


def whom_shown(policy: object, show: str | None) -> PolicyFacts | None:
    """The facts of whoever finds the relatives that are shown, by `hex.policy` and `hex.show`; None where nobody is."""
    shown = show or policy_facts(policy).show
    return POLICIES[named(shown)] if shown else None


def policy_facts(name: object) -> PolicyFacts:
    """The facts of a policy, by its name or by its import path; those of `standard` where there is no such policy."""
    if isinstance(name, str) and plugin.is_path(name):
        said = getattr(policy_class(name), "facts", None)
        return dataclasses.replace(said if isinstance(said, PolicyFacts) else PolicyFacts(), path=name, shown=name)
    return POLICIES.get(str(name), POLICIES["standard"])


def policy_class(path: str) -> Any:
    """The dataclass of a policy; a `UserError` where it isn't there, or is no policy."""
    found = plugin.load(path, "type")
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and callable(getattr(found, "selector", None))):
        raise UserError(f"type={path} is no policy; give a dataclass with a method selector(pairs, epoch, max_epochs)")
    return found
