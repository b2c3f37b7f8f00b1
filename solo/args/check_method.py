"""What a method, its objective and its views have to be, beside the other settings; by the facts of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from solo.args.check import Problem, check, unknown
from solo.args.fields import keys_of
from solo.data.catalogue.registry import DATASETS, DatasetSpec
from solo.hex.catalogue import policy_facts
from solo.methods.catalogue import CATALOGUE, facts_of, names

Values = Mapping[str, Any]


def check_method(values: dict[str, Any], any_method: bool = False) -> list[Problem]:
    """Method, `method_kwargs` (checked and completed in place) and the objective.

    Args:
        values: checked; a refused value is None.
        any_method: one that isn't ours, and its `method_kwargs`, are the caller's to check.
    """
    problems: list[Problem] = []
    if values.get("method") is not None:
        facts = facts_of(values["method"])
        if facts and facts.kwargs:
            values["method_kwargs"], problems = check(values["method_kwargs"] or {}, facts.kwargs, "method_kwargs.")
        elif not facts and not any_method:
            problems.append(Problem("method", unknown(values["method"], CATALOGUE)))
    trained = values.get("pretrain_method")
    if trained is not None and not facts_of(trained):
        problems.append(Problem("pretrain_method", unknown(trained, CATALOGUE)))
    hex_ = values.get("hex", {})
    problems += check_policy(values.get("method"), hex_.get("policy"), hex_.get("action"))
    return [*problems, *check_accumulate(values), *_variant(values), *_thresholds(values)]


def check_policy(method: Any, policy: Any, action: Any = None) -> list[Problem]:
    """HEX in a method that has no place for it, which would be ignored otherwise."""
    facts = facts_of(method)
    if policy in (None, "standard") or facts is None:
        return []
    found = policy_facts(policy)
    if facts.hex == "denominator" and not (found.selects and found.action == "weigh"):
        return [Problem("hex.policy", f"={policy!r} is no loss of method={method}; take adaptive, fixed or superclass")]
    if facts.hex == "denominator" and action not in (None, "weigh"):
        return [Problem("hex.action", f"={action!r} is nothing for method={method}, where labels pull; leave it out")]
    if facts.hex is not None:
        return []
    text = f"={policy!r} does nothing in method={method}; take standard, or one of "
    text += ", ".join(names(lambda facts: facts.hex))
    return [Problem("hex.policy", text)]


def _variant(values: Values) -> Iterator[Problem]:
    """The release removes the hierarchy negatives: that leaves nothing of HCL, and makes InfoNCE another loss."""
    settings = values.get("hex", {})
    policy = settings.get("policy")
    facts = policy_facts(policy)
    if settings.get("variant") == "release" and facts.variant == "reweight":
        advice = "leave hex.variant out" if facts.selects else "DCL is the decoupled loss"
        yield Problem("hex.variant", f"='release' has no meaning with {policy}; {advice}")


def _thresholds(values: Values) -> Iterator[Problem]:
    settings = values.get("hex") or {}
    start, end = settings.get("distance_thresh"), settings.get("distance_min")
    if settings.get("policy") == "fixed" and start is not None and end is not None and start < end:
        text = f"={end} is above hex.distance_thresh={start}, where it starts; the threshold goes down, exchange them"
        yield Problem("hex.distance_min", text)


def check_accumulate(values: Values) -> list[Problem]:
    """`accumulate=exact` where it would do nothing.

    Args:
        values: reads `accumulate`, `accumulate_grad_batches`, `method` and `hex.policy`.
    """
    if values.get("accumulate") != "exact":
        return []
    steps, method = values.get("accumulate_grad_batches") or 1, values.get("method")
    if steps < 2:
        text = f"=exact is for several batches, and accumulate_grad_batches={steps}; set that to 2 or more"
        return [Problem("accumulate", text)]
    policy = (values.get("hex") or {}).get("policy") or "standard"
    facts = facts_of(method)
    if facts and facts.per_image and policy == "standard":
        text = f"=exact is not for method={method}: its loss is a mean over images and compares none of the batch"
        return [Problem("accumulate", f"{text}, so plain accumulation has the same gradient; leave it out")]
    return []


def check_labels_of_method(values: Values, spec: DatasetSpec | None) -> Iterator[Problem]:
    """What a method that learns from labels needs, and where its backbone starts; `spec` is the resolved data set."""
    facts = facts_of(values.get("method"))
    if facts and facts.labels == "needed":
        yield from _labels(values)
    if facts and facts.hex == "denominator":
        yield from _levels(values, spec)
    if facts and facts.kwargs:
        yield from _ignored(values, facts.kwargs, facts.ignores)
    if values.get("finetune_layers") is not None and values.get("finetune_from") is None:
        yield Problem(
            "finetune_layers",
            f"={values['finetune_layers']!r} leaves the rest of the backbone as it starts; say where from, for example "
            "finetune_from=torchvision/resnet50",
        )


def _ignored(values: Values, schema: type, ignores: tuple[str, ...]) -> Iterator[Problem]:
    for key in ignores:
        value = values["method_kwargs"][key]
        if value not in (None, keys_of(schema)[key].default):
            others = names(lambda other: other.kwargs is schema and not other.ignores)
            text = f"={value!r} does nothing in {values['method']}; take {' or '.join(others)}"
            yield Problem(f"method_kwargs.{key}", text)


def _labels(values: Values) -> Iterator[Problem]:
    data, method = values["data"], values["method"]
    if data.get("no_labels"):
        yield Problem("data.no_labels", f"=True leaves method={method} nothing to learn from; take one that needs none")
    elif data.get("label_fraction") == 0:
        yield Problem(
            "data.label_fraction", f"=0 leaves method={method} nothing to learn from; take one that needs none"
        )


def _levels(values: Values, spec: DatasetSpec | None) -> Iterator[Problem]:
    kwargs, hex_, method = values["method_kwargs"], values.get("hex", {}), values["method"]
    layer, penalty = kwargs["granularity"] == "layer", kwargs["level_penalty"]
    if layer and kwargs["pairs"] == "cumulative":
        yield Problem("method_kwargs.pairs", "='cumulative' goes with granularity=pair only; take lca")
    if layer and kwargs["instance"] is False:
        yield Problem("method_kwargs.instance", "=False goes with granularity=pair only; leave it out")
    if isinstance(penalty, list) and spec is not None:
        yield from _penalties(penalty, len(spec.levels), kwargs["instance"] and not layer)
    if hex_.get("policy") in (None, "standard"):
        return
    if layer:
        yield Problem("hex.policy", f"={hex_['policy']!r} goes with method_kwargs.granularity=pair only")
    if hex_.get("variant") == "release":
        yield Problem("hex.variant", f"='release' is no loss of method={method}; take reweight")


def _penalties(penalty: list[float], levels: int, instance: bool) -> Iterator[Problem]:
    levels += instance
    if len(penalty) != levels or any(value < 0 for value in penalty):
        what = "the labels' and the image's" if instance else "the labels'"
        yield Problem("method_kwargs.level_penalty", f"={penalty} must be {levels} numbers >= 0, {what}, coarse first")


def count_views(values: Values) -> Iterator[Problem]:
    """As many views as the method compares."""
    entries, spec = values.get("augmentations"), DATASETS.get(str(values["data"]["dataset"]))
    full = values["data"].get("image_size") or (spec.size if spec else None)
    if entries and not any(entry["num_crops"] is None for entry in entries):
        sizes = [entry["crop_size"] or full for entry in entries]
        counts = [entry["num_crops"] for entry in entries]
        large = sum(count for count, size in zip(counts, sizes, strict=True) if size == sizes[0])
        yield from check_views(values["method"], large, sum(counts) - large)


def check_views(method: object, large: int, small: int) -> Iterator[Problem]:
    """How many large and small views of an image a method can use."""
    facts = facts_of(method)
    if facts is None:
        return
    least, most = facts.least_views, facts.most_views
    if large < least or (most is not None and large > most):
        allowed = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
        text = f" make {large} full-size views; {method} compares {allowed}: let num_crops of these add up to "
        yield Problem("augmentations", f"{text}{least if large < least else most}")
    if small and not facts.small_views:
        text = f" make {small} small views, which {method} doesn't use; give all views one crop_size, or take one of "
        yield Problem("augmentations", text + ", ".join(names(lambda facts: facts.small_views)))
