"""Settings that do nothing beside the others: an error where they were just typed, a note where a file has them.

A file may serve several runs; a word on the command line that changes nothing is a mistake.
"""

from collections.abc import Callable, Iterable, Iterator

from solo.args.check import Problem, Values, get
from solo.args.fields import walk
from solo.data.catalogue.registry import DATASETS
from solo.hex.catalogue import POLICIES, PolicyFacts, policy_facts, whom_shown
from solo.methods.catalogue import facts_of, has_slow_copy, names
from solo.plugin import is_path

Row = tuple[str, object, str]  # `section: key key ...` or keys of the top, whether anyone reads them, and when
_MISSING = object()
_ACTING = "with another type than standard or HEX"
# Parameters of Lightning's Trainer that a run sets itself, or that nothing here comes to.
_NO_USE = "plugins use_distributed_sampler reload_dataloaders_every_n_epochs model_registry limit_test_batches"
_NO_USE += " limit_predict_batches enable_autolog_hparams"


def _with(values: Values, key: str, *choices: object, null: bool = True) -> tuple[bool, str]:
    """Where a key has one of these values, or with `null` none: it was refused, which has its own message."""
    *first, last = [str(choice) for choice in choices]
    text = f"{', '.join(first)} or {last}" if first else last
    value = get(values, key, _MISSING)
    return value in choices or value is _MISSING or (null and value is None), f"with {key}={text}"


def _types(policies: Iterable[PolicyFacts]) -> str:
    return f"with type={', '.join(facts.shown for facts in policies)}"


def _of_hex(values: Values) -> Iterator[Row]:
    method, policy, rows = facts_of(get(values, "method")), policy_facts(get(values, "hex.policy")), POLICIES.values()
    kin = [facts for facts in rows if facts.shown == get(values, "hex.kin")]
    shown = whom_shown(get(values, "hex.policy"), get(values, "hex.show"))
    finding = [policy, *kin]
    asked = [*finding, *([shown] if shown else [])]
    acts, dropped = bool(policy.path), "release" in (policy.variant, get(values, "hex.variant"))
    action = (get(values, "hex.action") or ("drop" if dropped else policy.action)) if acts else None
    for name in dict.fromkeys(name for facts in rows for name in facts.reads):
        reading = [facts for facts in rows if name in facts.reads]
        yield f"hex: {name}", any(name in facts.reads for facts in asked), _types(reading)
    yield "hex: epoch_step step_down", *_with(values, "hex.step_type", "step")
    having = _types(facts for facts in rows if facts.kwargs)
    own = is_path(get(values, "hex.policy")) or any(facts.kwargs for facts in asked)
    yield "hex: policy_kwargs", own, f"by a policy of your own, type=module:name, or {having}"
    several = method is None or method.negatives == "rows" or (method.hex == "blends" and acts)
    comparing = ", ".join(names(lambda facts: facts.negatives == "rows"))
    where = f"in methods that compare all rows with each other, where an anchor can have several positives: {comparing}"
    yield "hex: positives", several, where
    labelled = any(facts.labels for facts in asked) or get(values, "hex.named", True)
    yield "hex: level", labelled, f"{_types(facts for facts in rows if facts.labels)}, or hex.named=True"
    weighs = get(values, "hex.kin") or (action == "weigh" and any(facts.selects for facts in asked))
    where = "where relatives are weighed: hex.action=weigh and hex.variant=reweight"
    yield "hex: beta tau_plus", weighs, f"{_types(facts for facts in rows if facts.selects)}, {where}"
    yield "hex: softness confident", action == "pull", "where relatives are pulled: hex.action=pull"
    yield "hex: share", action == "pull", "with hex.action=pull"
    yield "hex: show_share", shown, "with hex.show or type=HEX"
    drawn = any(facts.table for facts in finding)
    yield "hex: drawn mix", drawn, _types(facts for facts in rows if facts.table)
    yield "hex: temperature_period", get(values, "hex.temperature_max"), "with hex.temperature_max"
    yield "hex: kin", action in ("pull", "drop"), "with hex.action=pull or drop"
    finds = acts and any(facts.selects or facts.table for facts in finding)
    yield "hex: action", finds, "with a type that finds relatives"
    yield "hex: warm_epoch variant temperature temperature_max denominator", acts, _ACTING
    blends = acts and (method is None or method.hex in (None, "blends"))
    yield "hex: alpha scale", blends, f"{_ACTING}, in {', '.join(names(lambda facts: facts.hex == 'blends'))}"
    named = _with(values, "hex.policy", "adaptive", "fixed")[0]
    yield "hex: named", named, "with type=HEX_adaptive or HEX_fixed"


def _anywhere(values: Values) -> Iterator[Row]:
    yield from _of_hex(values)
    method, network = facts_of(get(values, "method")), get(values, "backbone.name")
    slow = method is None or has_slow_copy(method, values.get("method_kwargs") or {})
    where = f"in methods with a slow copy: {', '.join(names(lambda facts: facts.momentum))}"
    yield "momentum: base_tau final_tau classifier", slow, where
    yield "scheduler: lr_decay_steps", *_with(values, "scheduler.name", "step")
    yield "scheduler: gamma", *_with(values, "scheduler.name", "exponential")
    yield "scheduler: min_lr warmup_start_lr warmup_epochs interval", *_with(values, "scheduler.name", "warmup_cosine")
    # Null is a sampler of its own.
    yield "data: per_class", *_with(values, "data.sampler", "pxk", null=False)
    yield "data: sampler_level", *_with(values, "data.sampler", "balanced", "pxk", null=False)
    yield "data: path_column", *_with(values, "data.format", "table", "hf")
    yield "data: label_columns", *_with(values, "data.format", "table", "webdataset", "hf")
    yield "data: range exif background max_pixels", _stored_as_files(values), "for data sets of image files"
    own = _with(values, "data.dataset", "custom", "image_folder")[0]
    yield "data: unknown_classes levels", own, "with data.dataset=custom"
    yield "data: small_stem", not isinstance(network, str) or "res" in network or ":" in network, "by ResNets"
    yield "gradient_clip_algorithm", values.get("gradient_clip_val"), "with gradient_clip_val"


def _stored_as_files(values: Values) -> bool:
    spec = DATASETS.get(str(values["data"]["dataset"]))
    return spec is None or spec.folders or spec.layout is not None


def _on_the_command_line(values: Values) -> Iterator[Row]:
    """These are said only of words of the command line: recipes switch a section on and off as a whole."""
    logger = values.get("logger")
    yield "data: cache_size cache_dir", *_with(values, "data.augment", "batch")
    yield "data: cache_size cache_dir", _stored_as_files(values), "for data sets of image files"
    yield "knn_eval: k distance_func", *_with(values, "knn_eval.enabled", True)
    yield "auto_umap: dir frequency embedding", *_with(values, "auto_umap.enabled", True)
    yield "checkpoint: frequency keep_prev ema", *_with(values, "checkpoint.enabled", True)
    yield "enable_progress_bar", False, "by Lightning's own bar; set progress to rich, plain or off instead"
    yield _NO_USE, False, "by Lightning's Trainer in programs of one's own"
    yield "performance: ring_loss fused_loss", "method" in values, "by solo pretrain"
    yield "verdict", values.get("finetune_from"), "with finetune_from"
    yield "auto_resume: max_hours", *_with(values, "auto_resume.enabled", True)
    logs = "wandb" in logger if logger is not None else get(values, "wandb.enabled") is not False
    yield "wandb: entity project offline", logs, "with wandb.enabled=True or logger=[wandb]"
    yield "wandb: enabled", logger is None, "where no logger is given, which lists all"
    where = "for other data sets than digits, which scikit-learn brings along"
    yield "data: train_path val_path", get(values, "data.dataset") != "digits", where


def unread_keys(checked: Values, schema: type, typed: Callable[[str], bool]) -> Iterator[tuple[bool, Problem]]:
    """Find keys that hold something else than their default, and that nothing reads.

    `typed` says whether a key was written on the command line; of each one found that is said, and what is wrong.
    """
    keys = dict(walk(schema))
    for rows, everywhere in ((_anywhere(checked), True), (_on_the_command_line(checked), False)):
        for named, reads, where in rows:
            section, _, inside = named.rpartition(": ")
            for key in (f"{section}.{name}".lstrip(".") for name in ([] if reads else inside.split())):
                value, by_hand = get(checked, key), typed(key)
                # A refused value is None as well.
                if value is None or (key in keys and value == keys[key].default and not by_hand):
                    continue
                if by_hand or everywhere:
                    yield by_hand, (key, f" does nothing here: it is read {where}; leave it out")
