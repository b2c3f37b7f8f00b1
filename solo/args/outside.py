"""Code of the user's own that a config names by import path: it runs where the user typed it, not where a file does."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from solo import plugin
from solo.args.check import Problem, check
from solo.data.catalogue.registry import get_spec
from solo.errors import UserError
from solo.hex.catalogue import policy_class, policy_facts
from solo.methods.catalogue import method_class

# Key -> finds what its import path means, or raises a UserError that begins with a name and the path.
_MEANING: dict[str, Callable[[str], Any]] = {
    "method": method_class,
    "pretrain_method": method_class,
    "hex.policy": policy_class,
    "backbone.name": lambda path: plugin.load_callable(path, "backbone.name", "a torch.nn.Module"),
    "data.dataset": get_spec,
}


def check_outside(values: dict[str, Any], typed: Callable[[str], bool] | None) -> Iterator[Problem]:
    """Permit the import paths that the user gave, and see whether they lead to what they should.

    In the checked config a path that is refused becomes None, and `hex.policy_kwargs` are checked. `typed` says whether
    a key was written on the command line; None: a program made the config, so all of it is meant.
    """
    named = values.get("trust") or []
    if named and typed is not None and not typed("trust"):
        yield Problem("trust", f"={list(named)} counts on the command line only; a file can't permit its own code")
    else:
        plugin.permit(named)

    def find(key: str, path: str, meaning: Callable[[str], Any]) -> tuple[Any, list[Problem]]:
        if typed is None or typed(key):
            plugin.permit([path])
        try:
            return meaning(path), []
        except UserError as error:
            return None, [Problem(key, f"={path}{str(error).partition(path)[2]}")]

    for key, meaning in _MEANING.items():
        place, _, last = key.rpartition(".")
        section: Any = values.get(place) if place else values
        if not isinstance(section, Mapping) or not plugin.is_path(section.get(last)):
            continue
        found, problems = find(key, section[last], meaning)
        yield from problems
        if problems:
            section[last] = None  # type: ignore[index]
        elif key == "hex.policy":
            yield from _policy_kwargs(values["hex"], found)
    hex_ = values.get("hex") or {}
    ours = None if plugin.is_path(hex_.get("policy")) else policy_facts(hex_.get("policy"))
    if ours and ours.kwargs and hex_.get("policy_kwargs"):
        yield from _policy_kwargs(hex_, policy_class(ours.path))
    for i, entry in enumerate(values.get("augmentations") or ()):
        key = f"augmentations[{i}].transforms"
        for path in entry.get("transforms") or ():
            if plugin.is_path(path):
                yield from find(key, path, partial(plugin.load_callable, key=key, makes="an image of Pillow"))[1]
            else:
                yield Problem(key, f" has {path!r}, which is no import path; give module:function")


def _policy_kwargs(section: dict[str, Any], policy: type) -> Iterator[Problem]:
    given = section["policy_kwargs"]
    checked, problems = check(given, policy, "hex.policy_kwargs.")
    section["policy_kwargs"] = {name: checked[name] for name in given if name in checked}
    fields = {field.name for field in dataclasses.fields(policy)}
    # Its warm-up is hex.warm_epoch, unless it is given here.
    yield from (p for p in problems if p.key.split(".")[-1] not in fields & {"warm_epoch"} or "warm_epoch" in given)
