"""Settings that do nothing beside the others: an error where they were just typed, a note where a file has them.

A file may serve several runs; a word on the command line that changes nothing is a mistake.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from solo.args.check import Problem, Values, get
from solo.args.fields import walk
from solo.data.catalogue.registry import DATASETS
from solo.hex.catalogue import POLICIES, PolicyFacts, policy_facts, whom_shown
from solo.methods.catalogue import MethodFacts, facts_of, has_slow_copy, names
from solo.plugin import is_path

Condition = tuple[Callable[[Values], object], str]
_MISSING = object()


@dataclass(frozen=True)
class Reader:
    """Who reads some keys, `section: key key ...` or of the top: `reads(values)` says whether anyone does."""

    named: str
    reads: Callable[[Values], object]
    where: str  # in which case

    @property
    def keys(self) -> list[str]:
        """Their dotted names, from `section: key key`."""
        section, _, inside = self.named.rpartition(": ")
        return [f"{section}.{key}" if section else key for key in inside.split()]


def _with(key: str, *choices: object, null: object = None) -> Condition:
    """Where a key has one of these values; None: also where it was refused, which has its own message."""
    several = [str(choice) for choice in choices]
    text = f"{', '.join(several[:-1])} or {several[-1]}" if len(several) > 1 else several[0]
    allowed = (*choices, null, _MISSING)
    return lambda values: get(values, key, _MISSING) in allowed, f"with {key}={text}"


def _shown(values: Values) -> PolicyFacts | None:
    """The facts of whoever finds the relatives that are shown."""
    return whom_shown(get(values, "hex.policy"), get(values, "hex.show"))


def _policy(read: Callable[[PolicyFacts], object], shows: bool = True) -> Condition:
    """A fact of the policy or, unless it isn't asked, of that of `hex.show`; and the types that have it."""
    types = ", ".join(facts.shown for facts in POLICIES.values() if read(facts))
    rows = {facts.shown: facts for facts in POLICIES.values()}  # hex.kin has the words that are shown

    def reads(values: Values) -> bool:
        asked = policy_facts(get(values, "hex.policy")), rows.get(get(values, "hex.kin", "")), shows and _shown(values)
        return any(facts and read(facts) for facts in asked)

    return reads, f"with type={types}"


def _method(values: Values, read: Callable[[MethodFacts], bool]) -> bool:
    """A fact of the method; true where nothing is known of it, as of a caller's own."""
    facts = facts_of(get(values, "method"))
    return facts is None or read(facts)


def _on_hex(values: Values) -> bool:
    return bool(policy_facts(get(values, "hex.policy")).path)


def _action(values: Values) -> str | None:
    """What is done with relatives; None where the method's loss stays as it is."""
    facts = policy_facts(get(values, "hex.policy"))
    dropped = "release" in (facts.variant, get(values, "hex.variant"))
    return (get(values, "hex.action") or ("drop" if dropped else facts.action)) if _on_hex(values) else None


def _pulls(values: Values) -> bool:
    return _action(values) == "pull"


def _nobody(values: Values) -> bool:
    return False


def _logs_to_wandb(values: Values) -> bool:
    listed = values.get("logger")
    return "wandb" in listed if listed is not None else get(values, "wandb.enabled") is not False


def _stored_as_files(values: Values) -> bool:
    spec = DATASETS.get(str(values["data"]["dataset"]))
    return spec is None or spec.folders or spec.layout is not None


def _has_a_stem(values: Values) -> bool:
    name = get(values, "backbone.name")
    return not isinstance(name, str) or "res" in name or ":" in name


_SELECTS, _SELECTING = _policy(lambda facts: facts.selects)
_BY_LABEL, _LABELLED = _policy(lambda facts: facts.labels)
_HAS_KWARGS, _HAVING_KWARGS = _policy(lambda facts: facts.kwargs)
_FINDS, _ = _policy(lambda facts: facts.selects or facts.table, shows=False)
_OWN = (_with("data.dataset", "custom", "image_folder")[0], "with data.dataset=custom")
_FILES: Condition = (_stored_as_files, "for data sets of image files")
_OF_POLICIES = dict.fromkeys(name for facts in POLICIES.values() for name in facts.reads)

_ROWS = ", ".join(names(lambda facts: facts.negatives == "rows"))
_ACTING = "with another type than standard or HEX"

READERS = (
    *(Reader(f"hex: {name}", *_policy(lambda facts, name=name: name in facts.reads)) for name in _OF_POLICIES),  # type: ignore[misc]
    Reader("hex: epoch_step step_down", *_with("hex.step_type", "step")),
    Reader(
        "hex: policy_kwargs",
        lambda values: is_path(get(values, "hex.policy")) or _HAS_KWARGS(values),
        f"by a policy of your own, type=module:name, or {_HAVING_KWARGS}",
    ),
    Reader(
        "hex: positives",
        lambda values: _method(values, lambda f: f.negatives == "rows" or (f.hex == "blends" and _on_hex(values))),
        f"in methods that compare all rows with each other, where an anchor can have several positives: {_ROWS}",
    ),
    Reader(
        "hex: level",
        lambda values: _BY_LABEL(values) or get(values, "hex.named", True),
        f"{_LABELLED}, or hex.named=True",
    ),
    Reader(
        "hex: beta tau_plus",
        lambda values: get(values, "hex.kin") or (_SELECTS(values) and _action(values) == "weigh"),
        f"{_SELECTING}, where relatives are weighed: hex.action=weigh and hex.variant=reweight",
    ),
    Reader("hex: softness confident", _pulls, "where relatives are pulled: hex.action=pull"),
    Reader("hex: share", _pulls, "with hex.action=pull"),
    Reader("hex: show_share", _shown, "with hex.show or type=HEX"),
    Reader("hex: drawn mix", *_policy(lambda facts: facts.table, shows=False)),
    Reader("hex: temperature_period", lambda values: get(values, "hex.temperature_max"), "with hex.temperature_max"),
    Reader("hex: kin", lambda values: _action(values) in ("pull", "drop"), "with hex.action=pull or drop"),
    Reader("hex: action", lambda values: _on_hex(values) and _FINDS(values), "with a type that finds relatives"),
    Reader("hex: warm_epoch variant temperature temperature_max denominator", _on_hex, _ACTING),
    Reader(
        "hex: alpha scale",
        lambda values: _on_hex(values) and _method(values, lambda facts: facts.hex in (None, "blends")),
        f"{_ACTING}, in {', '.join(names(lambda facts: facts.hex == 'blends'))}",
    ),
    Reader("hex: named", _with("hex.policy", "adaptive", "fixed")[0], "with type=HEX_adaptive or HEX_fixed"),
    Reader(
        "momentum: base_tau final_tau classifier",
        lambda values: _method(values, lambda facts: has_slow_copy(facts, values.get("method_kwargs") or {})),
        f"in methods with a slow copy: {', '.join(names(lambda facts: facts.momentum))}",
    ),
    Reader("scheduler: lr_decay_steps", *_with("scheduler.name", "step")),
    Reader("scheduler: gamma", *_with("scheduler.name", "exponential")),
    Reader("scheduler: min_lr warmup_start_lr warmup_epochs interval", *_with("scheduler.name", "warmup_cosine")),
    # Null is a sampler of its own.
    Reader("data: per_class", *_with("data.sampler", "pxk", null=_MISSING)),
    Reader("data: sampler_level", *_with("data.sampler", "balanced", "pxk", null=_MISSING)),
    Reader("data: path_column", *_with("data.format", "table", "hf")),
    Reader("data: label_columns", *_with("data.format", "table", "webdataset", "hf")),
    Reader("data: range exif background max_pixels", *_FILES),
    Reader("data: unknown_classes levels", *_OWN),
    Reader("data: small_stem", _has_a_stem, "by ResNets"),
    Reader("gradient_clip_algorithm", lambda values: values.get("gradient_clip_val"), "with gradient_clip_val"),
)
# Parameters of Lightning's Trainer that a run sets itself, or that nothing here comes to.
_NO_USE = "plugins use_distributed_sampler reload_dataloaders_every_n_epochs model_registry limit_test_batches"
_NO_USE += " limit_predict_batches enable_autolog_hparams"
# These are said only of words of the command line: recipes switch a section on and off as a whole.
SWITCHED = (
    Reader("data: cache_size cache_dir", *_with("data.augment", "batch")),
    Reader("data: cache_size cache_dir", *_FILES),
    Reader("knn_eval: k distance_func", *_with("knn_eval.enabled", True)),
    Reader("auto_umap: dir frequency embedding", *_with("auto_umap.enabled", True)),
    Reader("checkpoint: frequency keep_prev ema", *_with("checkpoint.enabled", True)),
    Reader("enable_progress_bar", _nobody, "by Lightning's own bar; set progress to rich, plain or off instead"),
    Reader(_NO_USE, _nobody, "by Lightning's Trainer in programs of one's own"),
    Reader("performance: ring_loss fused_loss", lambda values: "method" in values, "by solo pretrain"),
    Reader("verdict", lambda values: values.get("finetune_from"), "with finetune_from"),
    Reader("auto_resume: max_hours", *_with("auto_resume.enabled", True)),
    Reader("wandb: entity project offline", _logs_to_wandb, "with wandb.enabled=True or logger=[wandb]"),
    Reader("wandb: enabled", lambda values: values.get("logger") is None, "where no logger is given, which lists all"),
    Reader(
        "data: train_path val_path",
        lambda values: get(values, "data.dataset") != "digits",
        "for other data sets than digits, which scikit-learn brings along",
    ),
)


def unread_keys(checked: Values, schema: type, typed: Callable[[str], bool]) -> Iterator[tuple[bool, Problem]]:
    """Find keys that hold something else than their default, and that nothing reads.

    `typed` says whether a key was written on the command line; of each one found that is said, and what is wrong.
    """
    keys = dict(walk(schema))
    for readers in (READERS, SWITCHED):
        for reader in readers:
            for key in reader.keys:
                value, by_hand = get(checked, key), typed(key)
                # A refused value is None as well.
                if value is None or (key in keys and value == keys[key].default and not by_hand):
                    continue
                if (by_hand or readers is READERS) and not reader.reads(checked):
                    yield by_hand, Problem(key, f" does nothing here: it is read {reader.where}; leave it out")
