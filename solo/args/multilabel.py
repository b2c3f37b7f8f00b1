"""Settings of the methods that learn from labels, and of where their backbone starts, that don't go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from solo.args.check import Problem
from solo.args.fields import keys_of
from solo.data.catalogue.registry import DatasetSpec
from solo.methods.catalogue import facts_of, names

Values = Mapping[str, Any]
PUBLISHED = ("timm/", "torchvision/")


def check_multilabel(values: Values, spec: DatasetSpec | None) -> Iterator[Problem]:
    """Find them in a checked config, where a refused value is None; `spec` is the resolved data set, if any."""
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


def check_start(values: Values) -> Iterator[Problem]:
    """A file of `finetune_from` that isn't there."""
    source = values.get("finetune_from")
    if source is not None and not source.startswith(PUBLISHED) and not Path(source).expanduser().exists():
        yield Problem(
            "finetune_from",
            f"={source!r} does not exist; give a file with weights, the folder of a run, timm/NAME or torchvision/NAME",
        )
