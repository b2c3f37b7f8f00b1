"""An objective from the settings: with `solo.hex.catalogue`, what this room knows of them."""

import dataclasses

from solo.args.schema import HexCfg
from solo.errors import UserError
from solo.hex.catalogue import named, policy_class, policy_facts
from solo.hex.objective import Hex, Standard
from solo.hex.policy import Policy, WarmUp, WithNamed
from solo.hex.relatives import Bank
from solo.hex.rows import RELEASE, Action

_DEFAULT_TEMPERATURE = 0.1


def build_objective(
    settings: HexCfg, temperature: float | None = None, scale: float = 1.0, fused: bool = False
) -> Hex | Standard:
    """What the section `hex` asks for.

    Args:
        settings: the section.
        temperature: the method's, used where `hex.temperature` is null.
        scale: the method's own weight of the HEX loss in `blend`, used where `hex.scale` is null.
        fused: losses are computed by kernels, see `solo.losses.fused`.

    Raises:
        UserError: a policy from outside that isn't there or refuses its `hex.policy_kwargs`.
    """
    temperature = temperature or _DEFAULT_TEMPERATURE
    facts = policy_facts(settings.policy)
    shown = settings.show or facts.show
    show = _other(settings, shown) if shown else None
    if not facts.path:
        return Standard(temperature, settings.positives, show, fused)
    policy, action = _policy(settings), _action(settings)
    scale = scale if settings.scale is None else settings.scale
    return Hex(
        WithNamed(policy) if settings.named else policy,
        settings.temperature or temperature,
        settings,
        scale,
        action,
        _other(settings, settings.kin) if settings.kin else None,
        Bank(settings.drawn, settings.mix) if facts.table and action.name == "pull" else None,
        show,
        fused,
    )


def _action(settings: HexCfg) -> Action:
    facts = policy_facts(settings.policy)
    own = RELEASE if (facts.variant or settings.variant) == "release" else Action(facts.action, facts.denominator)
    share = 0.5 if settings.share is None else settings.share
    return Action(
        settings.action or own.name,
        settings.denominator or own.denominator,
        None if facts.labels == "tree" and settings.share is None else share,
        settings.softness or facts.softness,
        settings.confident,
    )


def _other(settings: HexCfg, shown: str) -> Policy:
    """A second policy with the same settings, but those of the first one's own."""
    return _policy(dataclasses.replace(settings, policy=named(shown), policy_kwargs={}))


def _policy(settings: HexCfg) -> Policy:
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
    return policy if "warm_epoch" in fields or not settings.warm_up() else WarmUp(policy, settings.warm_up())
