"""What differs between the settings of a stored run and those it is resumed with, and what of it may."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from solo.args.eval_schema import EvaluateCfg, KnnCfg
from solo.args.fields import idle_keys, keys_of
from solo.args.schema import LinearCfg, PretrainCfg
from solo.args.trainer import TrainerCfg

NOT_SET = "(not set)"


def never_matters() -> list[str]:
    """Keys and sections of any command that don't change what it computes; each says so where it is declared."""
    schemas = (PretrainCfg, LinearCfg, EvaluateCfg, KnnCfg)
    return [*dict.fromkeys(name for schema in schemas for name in idle_keys(schema)), "wandb_run_id"]


class Difference(NamedTuple):
    """A setting that has another value than in the stored run."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """The settings in which two resolved configurations differ, in the order of the new one.

    A key that only one of them has counts where its absence means something, which is with Lightning's keys: the
    others are settings that this or the earlier version doesn't know.
    """
    before, after = dict(flat(old)), dict(flat(new))
    lightnings = keys_of(TrainerCfg)
    found = []
    for key in [*after, *(key for key in before if key not in after)]:
        if key in before and key in after or key.partition(".")[0] in lightnings:
            pair = before.get(key, NOT_SET), after.get(key, NOT_SET)
            if pair[0] != pair[1]:
                found.append(Difference(key, *pair))
    return found


def may_change(key: str, allowed: Iterable[str]) -> bool:
    """Whether `key`, or a section that it lies in, is among the allowed ones."""
    return any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in allowed)


def unknown_names(allowed: Iterable[str], *configs: Mapping[str, Any]) -> list[str]:
    """Those of the allowed names that no configuration has, and that can't be left out of one: misspelt."""
    keys = [key for config in configs for key, _ in flat(config)] + list(keys_of(TrainerCfg))
    return [name for name in allowed if not any(may_change(key, [name]) for key in keys)]


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, plain value) of everything below; lists of values stay whole, and so do empty sections."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from flat(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)) and any(isinstance(part, Mapping) for part in value):
        for index, part in enumerate(value):
            yield from flat(part, f"{key}[{index}]")
    else:
        yield key, list(value) if isinstance(value, tuple) else value
