"""What a method, its objective and its views have to be, beside the other settings; and settings that do nothing.

A setting that nothing reads is an error where it was just typed, a note where a file has it: a file may serve several
runs, a word on the command line that changes nothing is a mistake.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from solo.args.fields import Checked, Problem, Values, check, get, keys_of, unknown, walk
from solo.data.catalogue.registry import DATASETS, DatasetSpec
from solo.hex.catalogue import NOT_FUSED, NOT_IN_RING, POLICIES, PolicyFacts, policy_facts, whom_shown
from solo.methods.catalogue import CATALOGUE, facts_of, has_slow_copy, names
from solo.plugin import is_path


def check_method(values: dict[str, Any], own: dict[str, Any] | None = None) -> Iterator[Problem]:
    """Method, `method_kwargs` (completed in place), objective and views; `own`, as in `check`: any method may be."""
    method, trained = facts_of(values.get("method")), values.get("pretrain_method")
    if method and method.kwargs:
        values["method_kwargs"], problems = check_kwargs(values["method_kwargs"] or {}, method.kwargs, own)
        yield from problems
    elif not method and values.get("method") is not None and own is None:
        yield "method", unknown(values["method"], CATALOGUE)
    if trained is not None and not facts_of(trained):
        yield "pretrain_method", unknown(trained, CATALOGUE)
    policy, action, show = (get(values, f"hex.{name}") for name in ("policy", "action", "show"))
    yield from check_policy(values.get("method"), policy, action, show)
    yield from check_accumulate(values)
    shares, of_shares = get(values, "data.resolution_schedule"), "data.resolution_schedule"
    if shares == []:
        yield of_shares, "=[] gives no share; give some, or leave it out"
    if shares and shares[-1] != 1:
        yield of_shares, f"={shares} must end with 1: the network is used at full size"
    if shares and method and method.masked:
        what = f"doesn't go with method={values['method']}, whose patches are those of the full size"
        yield of_shares, f" {what}; leave it out"
    facts = policy_facts(policy)
    action, against = action or facts.action, get(values, "hex.denominator") or facts.denominator
    if get(values, "performance.ring_loss") and method:
        if not method.ring:
            able = " and ".join(names(lambda facts: facts.ring))
            yield "performance.ring_loss", f"=True is for {able}, not for method={values['method']}; leave it out"
        elif facts.path and (action == "pull" or facts.kwargs or get(values, "hex.named")):
            yield "performance.ring_loss", f"=True {NOT_IN_RING}"
    if get(values, "performance.fused_loss") and method:
        unknown_to_it = action not in ("weigh", "drop") or against not in ("own", "negatives") or facts.kwargs
        if method.hex != "replaces" and not (method.hex == "blends" and facts.path):
            able = ", ".join(names(lambda facts: facts.hex == "replaces"))
            text = f"=True is for {able}, and for HEX where it is blended in, not for method={values['method']}"
            yield "performance.fused_loss", f"{text}; leave it out"
        elif facts.path and (unknown_to_it or get(values, "hex.kin") or get(values, "hex.variant") == "relative"):
            yield "performance.fused_loss", f"=True {NOT_FUSED}"
    if whom_shown(policy, show) and get(values, "hex.eye") == "projection":
        yield "hex.eye", "='projection' finds relatives while it trains, too late to show them; pull them"
    # The release removes the hierarchy negatives: that leaves nothing of HCL, and makes InfoNCE another loss.
    if get(values, "hex.variant") == "release" and facts.variant == "reweight":
        advice = "leave hex.variant out" if facts.selects else "DCL is the decoupled loss"
        yield "hex.variant", f"='release' has no meaning with {policy}; {advice}"
    start, end = get(values, "hex.distance_thresh"), get(values, "hex.distance_min")
    if policy == "fixed" and start is not None and end is not None and start < end:
        text = f"={end} is above hex.distance_thresh={start}, where it starts; the threshold goes down, exchange them"
        yield "hex.distance_min", text


def check_kwargs(given: Values, schema: type, own: dict[str, Any] | None = None) -> Checked:
    """`method_kwargs` against their schema, and against what it says of them together (`problems`)."""
    checked, problems = check(given, schema, "method_kwargs.", own)
    together = getattr(schema, "problems", None)
    return checked, [*problems, *(together(checked) if together else ())]


def check_policy(method: Any, policy: Any, action: Any = None, show: str | None = None) -> list[Problem]:
    """HEX in a method that has no place for it, which would be ignored otherwise."""
    facts, found = facts_of(method), policy_facts(policy)
    if facts is None:
        return []
    if whom_shown(policy, show) and facts.labels:
        what = f"would give a relative's view the label of the image, from which method={method} learns"
        key = f"={show!r}" if show else f" of type={found.shown}"
        return [("hex.show", f"{key} {what}; pull relatives, or take a method without labels")]
    if show and found.table:
        text = f"={show!r} goes with a type that finds relatives in the batch; those of type={found.shown} are pulled"
        return [("hex.show", text)]
    if not found.path:
        return []
    if facts.hex == "denominator" and not (found.selects and found.action == "weigh"):
        return [("hex.policy", f"={policy!r} is no loss of method={method}; take adaptive, fixed or superclass")]
    if facts.hex == "denominator" and action not in (None, "weigh"):
        return [("hex.action", f"={action!r} is nothing for method={method}, where labels pull; leave it out")]
    if found.table and action not in (None, "pull"):
        text = f"={action!r} is nothing for {policy}, whose relatives aren't in the batch; take pull"
        return [("hex.action", text)]
    if found.rows and facts.negatives in ("view", "queue"):
        return [("hex.policy", f"={policy!r} joins the rows of a batch, which method={method} doesn't compare")]
    if facts.hex is not None:
        return []
    places = ", ".join(names(lambda facts: facts.hex))
    return [("hex.policy", f"={policy!r} does nothing in method={method}; take standard, or one of {places}")]


def check_accumulate(values: Values) -> list[Problem]:
    """`accumulate=exact` where it would do nothing."""
    if values.get("accumulate") != "exact":
        return []
    steps, method = values.get("accumulate_grad_batches") or 1, values.get("method")
    if steps < 2:
        text = f"=exact is for several batches, and accumulate_grad_batches={steps}; set that to 2 or more"
        return [("accumulate", text)]
    facts = facts_of(method)
    if facts and facts.per_image and not policy_facts(get(values, "hex.policy")).path:
        text = f"=exact is not for method={method}: its loss is a mean over images and compares none of the batch"
        return [("accumulate", f"{text}, so plain accumulation has the same gradient; leave it out")]
    if facts and facts.masked:
        return [("accumulate", f"=exact is not for method={method}, which compares patches; leave it out")]
    return []


def check_labels_of_method(values: Values, spec: DatasetSpec | None) -> Iterator[Problem]:
    """What a method that learns from labels needs, and where its backbone starts; `spec` is the resolved data set."""
    method, kwargs = values.get("method"), values.get("method_kwargs", {})
    facts = facts_of(method)
    for key, bad in (("no_labels", True), ("label_fraction", 0)) if facts and facts.labels == "needed" else ():
        if values["data"].get(key) == bad:
            yield f"data.{key}", f"={bad} leaves method={method} nothing to learn from; take one that needs none"
            break
    if facts and facts.hex == "denominator":
        yield from _levels(values, spec)
    for key in facts.ignores if facts else ():
        if kwargs[key] not in (None, keys_of(facts.kwargs)[key].default):  # type: ignore[union-attr, arg-type]
            alike = {name: row for name, row in CATALOGUE.items() if row.kwargs is facts.kwargs}  # type: ignore[union-attr]
            others = " or ".join(name for name, row in alike.items() if not row.ignores)
            yield f"method_kwargs.{key}", f"={kwargs[key]!r} does nothing in {method}; take {others}"
    for key in ("finetune_layers", "finetune_lora") if values.get("finetune_from") is None else ():
        if values.get(key) is not None:
            what = f"={values[key]!r} leaves the rest of the backbone as it starts; say where from"
            yield key, f"{what}, for example finetune_from=torchvision/resnet50"


def _levels(values: Values, spec: DatasetSpec | None) -> Iterator[Problem]:
    kwargs, method, policy = values["method_kwargs"], values["method"], get(values, "hex.policy")
    layer, penalty = kwargs["granularity"] == "layer", kwargs["level_penalty"]
    if layer and kwargs["pairs"] == "cumulative":
        yield "method_kwargs.pairs", "='cumulative' goes with granularity=pair only; take lca"
    if layer and kwargs["instance"] is False:
        yield "method_kwargs.instance", "=False goes with granularity=pair only; leave it out"
    if isinstance(penalty, list) and spec is not None:
        instance = kwargs["instance"] and not layer
        levels = len(spec.levels) + instance
        if len(penalty) != levels or min(penalty) < 0:
            what = "the labels' and the image's" if instance else "the labels'"
            yield "method_kwargs.level_penalty", f"={penalty} must be {levels} numbers >= 0, {what}, coarse first"
    if policy_facts(policy).path:
        if layer:
            yield "hex.policy", f"={policy!r} goes with method_kwargs.granularity=pair only"
        if get(values, "hex.variant") == "release":
            yield "hex.variant", f"='release' is no loss of method={method}; take reweight"


def count_views(values: Values) -> Iterator[Problem]:
    """As many views as the method compares."""
    entries, spec = values.get("augmentations"), DATASETS.get(str(values["data"]["dataset"]))
    full = values["data"].get("image_size") or (spec.size if spec else None)
    if entries and not any(entry["num_crops"] is None for entry in entries):
        sizes = [entry["crop_size"] or full for entry in entries]
        counts = [entry["num_crops"] for entry in entries]
        large = sum(count for count, size in zip(counts, sizes, strict=True) if size == sizes[0])
        yield from check_views(values["method"], large, sum(counts) - large)
        if whom_shown(get(values, "hex.policy"), get(values, "hex.show")) and large < 2:
            yield "hex.show", " shows relatives as the second view, and there is one full-size view"


def check_views(method: object, large: int, small: int) -> Iterator[Problem]:
    """How many large and small views of an image a method can use."""
    facts = facts_of(method)
    if facts is None:
        return
    least, most = facts.least_views, facts.most_views
    if large < least or (most is not None and large > most):
        allowed = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
        text = f" make {large} full-size views; {method} compares {allowed}: let num_crops of these add up to "
        yield "augmentations", f"{text}{least if large < least else most}"
    if small and not facts.small_views:
        text = f" make {small} small views, which {method} doesn't use; give all views one crop_size, or take one of "
        yield "augmentations", text + ", ".join(names(lambda facts: facts.small_views))


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
    method = facts_of(get(values, "method"))
    policy = policy_facts(get(values, "hex.policy"))
    rows = POLICIES.values()
    shown = whom_shown(get(values, "hex.policy"), get(values, "hex.show"))
    finding = [policy, *(facts for facts in rows if facts.shown == get(values, "hex.kin"))]
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
    comparing = ", ".join(names(lambda facts: facts.negatives == "rows"))
    where = f"in methods that compare all rows with each other, where an anchor can have several positives: {comparing}"
    yield "hex: positives", method is None or method.negatives == "rows" or (method.hex == "blends" and acts), where
    labelled = any(facts.labels for facts in asked) or get(values, "hex.named", True)
    yield "hex: level", labelled, f"{_types(facts for facts in rows if facts.labels)}, or hex.named=True"
    weighs = get(values, "hex.kin") or (action == "weigh" and any(facts.selects for facts in asked))
    where = "where relatives are weighed: hex.action=weigh and hex.variant=reweight"
    yield "hex: beta tau_plus", weighs, f"{_types(facts for facts in rows if facts.selects)}, {where}"
    yield "hex: share softness confident", action == "pull", "where relatives are pulled: hex.action=pull"
    yield "hex: show_share", shown, "with hex.show or type=HEX"
    yield "hex: drawn mix", any(facts.table for facts in finding), _types(facts for facts in rows if facts.table)
    yield "hex: temperature_period", get(values, "hex.temperature_max"), "with hex.temperature_max"
    yield "hex: kin", action in ("pull", "drop"), "with hex.action=pull or drop"
    finds = acts and any(facts.selects or facts.table for facts in finding)
    yield "hex: action", finds, "with a type that finds relatives"
    yield "hex: warm_epoch variant temperature temperature_max denominator", acts, _ACTING
    blends = acts and (method is None or method.hex in (None, "blends"))
    yield "hex: alpha scale", blends, f"{_ACTING}, in {', '.join(names(lambda facts: facts.hex == 'blends'))}"
    yield "hex: named", _with(values, "hex.policy", "adaptive", "fixed")[0], "with type=HEX_adaptive or HEX_fixed"


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
    """Keys of another value than their default that nothing reads; whether one was `typed`, and the problem."""
    keys = dict(walk(schema))
    for rows, everywhere in ((_anywhere(checked), True), (_on_the_command_line(checked), False)):
        for named, reads, where in rows:
            section, _, inside = named.rpartition(": ")
            for key in (f"{section}.{name}".lstrip(".") for name in ([] if reads else inside.split())):
                value, by_hand = get(checked, key), typed(key)  # a refused value is None as well
                is_set = everywhere and not (key in keys and value == keys[key].default)
                if value is not None and (by_hand or is_set):
                    yield by_hand, (key, f" does nothing here: it is read {where}; leave it out")
