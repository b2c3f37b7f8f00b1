"""Older and shorter spellings, in one place: solo-learn's and the HEX fork's keys, and the dead ones of their recipes.

The HEX words at the top level (`type`, `warm_epoch`, ...) are first-class spellings of `hex.*`, not deprecated ones.
"""

import copy
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from solo.args.fields import Problem, get, keys_of, unknown
from solo.hex.catalogue import POLICIES
from solo.methods.catalogue import CATALOGUE
from solo.plugin import is_path

# other spelling -> key
_HEX = "warm_epoch distance_thresh distance_min epoch_step step_type step_down beta tau_plus alpha temperature"
MOVED = {"type": "hex.policy", **{word: f"hex.{word}" for word in _HEX.split()}, "warmm_epoch": "hex.warm_epoch"}

# spelling of `type` in lower case -> hex.policy
SPELLINGS = {word.lower(): name for name, facts in POLICIES.items() for word in (name, facts.shown)}
SPELLINGS |= {"acl": "fixed", "combined_adaptive": "adaptive", "superclass_labels": "superclass"}
SPELLINGS |= {"vicreg_simclr": "infonce"}
# spelling of `type` in lower case -> what it is read as, where that has to be said
_NOTED = {
    "acl": "HEX_fixed, whose settings its recipe holds",
    "vicreg_simclr": "InfoNCE: plain InfoNCE blended in with weight alpha * scale, instead of added",
}

# key -> why it is left out
DEAD = {
    "ntasks-per-node": "a setting of the batch system",
    "augmentations_cfg": "augmentations are given by the key augmentations",
    "wandb_cfg": "Weights & Biases is set by the key wandb",
    "wandb_run_id": "an earlier run's",
    "dali": "images are read without DALI",
    "auto_umap": "it is drawn in pretraining only",
    "callbacks": "set by the program",
    "enable_checkpointing": "set by the key checkpoint.enabled",
    "checkpoint.save_constant": "see checkpoint.frequency and checkpoint.keep_prev",
    "data.model": "the checkpoint knows its architecture",
    "data.augmentations": "evaluation follows the checkpoint and the data set",
    "data.train_target": "labels come from the data set",
    "data.val_target": "labels come from the data set",
}

# the same, in the evaluation of what a pretraining has made
DEAD_IN_EVALUATION = {
    "method": "the checkpoint knows the method that trained it",
    "optimizer.classifier_lr": "the rate of the only classifier is optimizer.lr",
}

# keys of method_kwargs that published recipes give to methods which never read them
DEAD_METHOD_KWARGS = (
    *("base_tau_momentum", "final_tau_momentum", "momentum_classifier", "temperature"),
    *("decoder_embed_dim", "decoder_depth", "decoder_num_heads"),
)


@dataclass
class Modern:
    """A config in today's keys."""

    values: dict[str, Any]  # the config
    spelled: dict[str, str] = field(default_factory=dict)  # key -> how the user wrote it, where that differs
    # (key as written, sentence) of what was left out or reinterpreted
    notes: list[tuple[str, str]] = field(default_factory=list)
    # spellings that can't be right; their keys are gone from `values`
    problems: list[Problem] = field(default_factory=list)


def modernise(values: Mapping[str, Any], own: Container[str] = ()) -> Modern:
    """Rename, translate and drop; pure, and twice is once. Keys in `own` already mean what they say."""
    modern = Modern(copy.deepcopy(dict(values)))
    _drop_dead(modern, own)
    for old, new in MOVED.items():
        if old not in own:
            _move(modern, old, new)
    _translate_policy(modern)
    if get(modern.values, "data.format") == "dali":
        modern.values["data"]["format"] = "image_folder"
        modern.notes.append(("data.format", "='dali' is read as image_folder: images are read without DALI"))
    _clean_augmentations(modern)
    return modern


def _drop_dead(modern: Modern, own: Container[str]) -> None:
    method = modern.values.get("method")
    facts = CATALOGUE.get(str(method))
    evaluates = "optimizer" in own and "method" not in own
    read = keys_of(facts.kwargs) if facts and facts.kwargs and not evaluates else DEAD_METHOD_KWARGS
    dead = [name for name in DEAD_METHOD_KWARGS if name not in read]
    kwargs = {f"method_kwargs.{name}": f"{method} doesn't read it" for name in dead}
    for name, why in {**DEAD, **kwargs, **(DEAD_IN_EVALUATION if evaluates else {})}.items():
        around, _, last = name.rpartition(".")
        section = get(modern.values, around) if around else modern.values
        # Null is how a recipe leaves out a key of the one it builds on.
        if name not in own and isinstance(section, dict) and section.pop(last, None) is not None:
            modern.notes.append((name, f" is ignored: {why}"))


def _move(modern: Modern, old: str, new: str) -> None:
    if old not in modern.values:
        return
    value = modern.values.pop(old)
    section, name = new.split(".")
    target = modern.values.setdefault(section, {})
    if not isinstance(target, dict):
        return  # the check says so
    if name not in target:
        target[name] = value
        modern.spelled[new] = old
    elif _canonical(target[name]) != _canonical(value):
        other = modern.spelled.get(new, new)
        modern.problems.append((old, f"={value!r} and {other}={target[name]!r} disagree; give one of them only"))


def _canonical(value: Any) -> Any:
    return SPELLINGS.get(value.lower(), value) if isinstance(value, str) else value


def _translate_policy(modern: Modern) -> None:
    written = get(modern.values, "hex.policy")
    if not isinstance(written, str) or written == "???" or is_path(written):
        return
    known = written.lower()
    if known not in SPELLINGS:
        modern.problems.append(("hex.policy", unknown(written, [facts.shown for facts in POLICIES.values()])))
        del modern.values["hex"]["policy"]
        return
    modern.values["hex"]["policy"] = SPELLINGS[known]
    if known in _NOTED:
        name = modern.spelled.get("hex.policy", "hex.policy")
        modern.notes.append((name, f"={written!r} is read as {_NOTED[known]}"))


def _clean_augmentations(modern: Modern) -> None:
    """Beside `rrc.enabled`, solo-learn never read an `enabled`."""
    entries = modern.values.get("augmentations")
    for i, entry in enumerate(entries if isinstance(entries, list) else []):
        for name, operation in entry.items() if isinstance(entry, dict) else ():
            if not isinstance(operation, dict) or name == "rrc":
                continue
            if operation.pop("enabled", True) in (False, "False", "false") and operation.get("prob"):
                modern.notes.append((f"augmentations[{i}].{name}.enabled", " is ignored: set prob to 0 instead"))
