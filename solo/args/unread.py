"""Settings that do nothing beside the others: an error where they were just typed, a note where a file has them.

A file may serve several runs; a word on the command line that changes nothing is a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from solo.args.check import Problem
from solo.args.fields import walk
from solo.data.catalogue.registry import DATASETS
from solo.hex.catalogue import POLICIES, PolicyFacts, policy_facts
from solo.methods.catalogue import MethodFacts, facts_of, names
from solo.plugin import is_path

Values = Mapping[str, Any]
_MISSING = object()


@dataclass(frozen=True)
class Reader:
    """Who reads some keys: `reads(values)` says whether anyone does, `where` in which case."""

    keys: tuple[str, ...]
    reads: Callable[[Values], bool]
    where: str


def _is(dotted: str, *choices: object) -> Callable[[Values], bool]:
    # A value that was refused is None; it has its own message.
    return lambda values: _get(values, dotted) in (*choices, None, _MISSING)


def _chosen(dotted: str, *choices: object) -> Callable[[Values], bool]:
    # For keys whose null is a choice of its own.
    return lambda values: _get(values, dotted) in (*choices, _MISSING)


def _all(*conditions: Callable[[Values], bool]) -> Callable[[Values], bool]:
    return lambda values: all(condition(values) for condition in conditions)


def _on(dotted: str) -> Callable[[Values], bool]:
    return lambda values: _get(values, dotted) is not False


def _logs_to_wandb(values: Values) -> bool:
    listed = values.get("logger")
    return "wandb" in listed if listed is not None else _get(values, "wandb.enabled") is not False


def _never(values: Values) -> bool:
    return False


def _stored_as_files(values: Values) -> bool:
    spec = DATASETS.get(str(values["data"]["dataset"]))
    return spec is None or spec.folders or spec.layout is not None


def _has_a_stem(values: Values) -> bool:
    name = _get(values, "backbone.name")
    return not isinstance(name, str) or "res" in name or ":" in name


def _hex(name: str) -> str:
    return f"hex.{name}"


def _policy(read: Callable[[PolicyFacts], object]) -> tuple[Callable[[Values], bool], str]:
    """A fact of the policy, and the types that have it."""
    types = ", ".join(facts.shown for facts in POLICIES.values() if read(facts))
    rows = {facts.shown: facts for facts in POLICIES.values()}  # hex.kin has the words that are shown

    def reads(values: Values) -> bool:
        asked = policy_facts(_get(values, "hex.policy")), rows.get(_get(values, "hex.kin"))
        return any(facts and read(facts) for facts in asked)

    return reads, f"with type={types}"


def _readers_of_policies() -> Iterator[Reader]:
    for name in dict.fromkeys(name for facts in POLICIES.values() for name in facts.reads):
        yield Reader((_hex(name),), *_policy(lambda facts, name=name: name in facts.reads))  # type: ignore[misc]


_SELECTS, _SELECTING = _policy(lambda facts: facts.selects)


def _on_hex(values: Values) -> bool:
    return bool(_get(values, "hex.policy") != "standard")


def _action(values: Values) -> str | None:
    """What is done with relatives; None with `type: standard`."""
    facts = policy_facts(_get(values, "hex.policy"))
    dropped = "release" in (facts.variant, _get(values, "hex.variant"))
    return (_get(values, "hex.action") or ("drop" if dropped else facts.action)) if _on_hex(values) else None


_labelled, _LABELLED = _policy(lambda facts: facts.labels)
_FINDS, _ = _policy(lambda facts: facts.selects or facts.table)

_COSINE = _is("scheduler.name", "warmup_cosine")

READERS = (
    *_readers_of_policies(),
    Reader(tuple(map(_hex, ("epoch_step", "step_down"))), _is("hex.step_type", "step"), "with hex.step_type=step"),
    Reader(
        ("hex.policy_kwargs",),
        lambda values: is_path(_get(values, "hex.policy")),
        "by a policy of your own, type=module:name",
    ),
    Reader(
        ("hex.positives",),
        lambda values: _fact(
            values, lambda facts: facts.negatives == "rows" or (facts.hex == "blends" and _on_hex(values))
        ),
        "in methods that compare all rows with each other, where an anchor can have several positives: "
        + ", ".join(names(lambda facts: facts.negatives == "rows")),
    ),
    Reader(
        ("hex.level",),
        lambda values: _labelled(values) or bool(_get(values, "hex.named")),
        f"{_LABELLED}, or hex.named=True",
    ),
    Reader(
        tuple(map(_hex, ("beta", "tau_plus"))),
        lambda values: bool(_get(values, "hex.kin")) or (_SELECTS(values) and _action(values) == "weigh"),
        f"{_SELECTING}, where relatives are weighed: hex.action=weigh and hex.variant=reweight",
    ),
    Reader(("hex.share",), lambda values: _action(values) == "pull", "where relatives are pulled: hex.action=pull"),
    Reader(("hex.kin",), lambda values: _action(values) in ("pull", "drop"), "with hex.action=pull or drop"),
    Reader(("hex.action",), _all(_on_hex, _FINDS), "with a type that finds relatives"),
    Reader(
        tuple(map(_hex, ("warm_epoch", "variant", "temperature", "denominator"))),
        _on_hex,
        "with another type than standard",
    ),
    Reader(
        tuple(map(_hex, ("alpha", "scale"))),
        lambda values: _on_hex(values) and _fact(values, lambda facts: facts.hex in (None, "blends")),
        f"with another type than standard, in {', '.join(names(lambda facts: facts.hex == 'blends'))}",
    ),
    Reader(("hex.named",), _is("hex.policy", "adaptive", "fixed"), "with type=HEX_adaptive or HEX_fixed"),
    Reader(
        ("momentum.base_tau", "momentum.final_tau", "momentum.classifier"),
        lambda values: _fact(values, lambda facts: facts.momentum),
        f"in methods with a slow copy: {', '.join(names(lambda facts: facts.momentum))}",
    ),
    Reader(("scheduler.lr_decay_steps",), _is("scheduler.name", "step"), "with scheduler.name=step"),
    Reader(("scheduler.gamma",), _is("scheduler.name", "exponential"), "with scheduler.name=exponential"),
    Reader(
        ("scheduler.min_lr", "scheduler.warmup_start_lr", "scheduler.warmup_epochs", "scheduler.interval"),
        _COSINE,
        "with scheduler.name=warmup_cosine",
    ),
    Reader(("data.per_class",), _chosen("data.sampler", "pxk"), "with data.sampler=pxk"),
    Reader(("data.sampler_level",), _chosen("data.sampler", "balanced", "pxk"), "with data.sampler=balanced or pxk"),
    Reader(("data.path_column",), _is("data.format", "table", "hf"), "with data.format=table or hf"),
    Reader(
        ("data.label_columns",),
        _is("data.format", "table", "webdataset", "hf"),
        "with data.format=table, webdataset or hf",
    ),
    Reader(
        ("data.range", "data.exif", "data.background", "data.max_pixels"),
        _stored_as_files,
        "for data sets of image files",
    ),
    Reader(("data.unknown_classes",), _is("data.dataset", "custom", "image_folder"), "with data.dataset=custom"),
    Reader(("data.small_stem",), _has_a_stem, "by ResNets"),
    Reader(("data.levels",), _is("data.dataset", "custom", "image_folder"), "with data.dataset=custom"),
    Reader(
        ("gradient_clip_algorithm",), lambda values: bool(values.get("gradient_clip_val")), "with gradient_clip_val"
    ),
)
# Parameters of Lightning's Trainer that a run sets itself, or that nothing here comes to.
_NO_USE: tuple[str, ...] = ("plugins", "use_distributed_sampler", "reload_dataloaders_every_n_epochs", "model_registry")
_NO_USE += ("limit_test_batches", "limit_predict_batches", "enable_autolog_hparams")
# These are said only of words of the command line: recipes switch a section on and off as a whole.
SWITCHED = (
    Reader(("data.cache_size", "data.cache_dir"), _is("data.augment", "batch"), "with data.augment=batch"),
    Reader(("data.cache_size", "data.cache_dir"), _stored_as_files, "for data sets of image files"),
    Reader(("knn_eval.k", "knn_eval.distance_func"), _on("knn_eval.enabled"), "with knn_eval.enabled=True"),
    Reader(
        ("auto_umap.dir", "auto_umap.frequency", "auto_umap.embedding"),
        _on("auto_umap.enabled"),
        "with auto_umap.enabled=True",
    ),
    Reader(("checkpoint.frequency", "checkpoint.keep_prev"), _on("checkpoint.enabled"), "with checkpoint.enabled=True"),
    Reader(("enable_progress_bar",), _never, "by Lightning's own bar; set progress to rich, plain or off instead"),
    Reader(_NO_USE, _never, "by Lightning's Trainer in programs of one's own"),
    Reader(("auto_resume.max_hours",), _on("auto_resume.enabled"), "with auto_resume.enabled=True"),
    Reader(
        ("wandb.entity", "wandb.project", "wandb.offline"), _logs_to_wandb, "with wandb.enabled=True or logger=[wandb]"
    ),
    Reader(
        ("wandb.enabled",), lambda values: values.get("logger") is None, "where no logger is given, which lists all"
    ),
    Reader(
        ("data.train_path", "data.val_path"),
        lambda values: _get(values, "data.dataset") != "digits",
        "for other data sets than digits, which scikit-learn brings along",
    ),
)


def unread_keys(checked: Values, schema: type, typed: Callable[[str], bool]) -> Iterator[tuple[bool, Problem]]:
    """Find keys that hold something else than their default, and that nothing reads.

    Args:
        checked: a config with every key of its schema.
        schema: that schema.
        typed: whether a key was written on the command line.

    Yields:
        Whether it was typed there, and what is wrong.
    """
    keys = dict(walk(schema))
    for readers in (READERS, SWITCHED):
        for reader in readers:
            for key in reader.keys:
                value, by_hand = _get(checked, key), typed(key)
                # A refused value is None as well.
                if value in (None, _MISSING) or (key in keys and value == keys[key].default and not by_hand):
                    continue
                if (by_hand or readers is READERS) and not reader.reads(checked):
                    yield by_hand, Problem(key, f" does nothing here: it is read {reader.where}; leave it out")


def _get(values: Values, dotted: str) -> Any:
    found: Any = values
    for part in dotted.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _MISSING
        found = found[part]
    return found


def _fact(values: Values, read: Callable[[MethodFacts], bool]) -> bool:
    """A fact of the method; true where nothing is known of it, as of a caller's own."""
    facts = facts_of(_get(values, "method"))
    return facts is None or read(facts)
