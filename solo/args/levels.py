"""Settings that depend on the label tree: HEX's superclasses and samplers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from solo.args.check import Problem, unknown
from solo.data.registry import DATASETS, DatasetSpec
from solo.data.specs import resolve_spec
from solo.errors import UserError


def check_levels(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Levels that aren't there, and batches that a sampler can't make of the labels."""
    superclass = values.get("hex", {}).get("policy") == "superclass"
    sampler = values["data"].get("sampler") not in (None, "random")
    if not superclass and not sampler:
        return
    try:
        spec = resolve_spec(values["data"])
    except UserError:  # said where the data set or its classes are looked for
        return
    if superclass:
        yield from _superclass(spec, values["hex"]["level"])
    if sampler:
        yield from _sampler(spec, values["data"], values["optimizer"]["batch_size"])


def _superclass(spec: DatasetSpec, level: int | str | None) -> Iterator[Problem]:
    if len(spec.levels) < 2:
        rich = [name for name, row in DATASETS.items() if len(row.levels) > 1]
        advice = f"take a data set with several levels ({', '.join(rich)}) or HEX_adaptive"
        yield Problem("hex.policy", f"='superclass' needs a label tree, and {spec.name} has one level only; {advice}")
    else:
        yield from _level("hex.level", level, spec.levels)


def _level(key: str, level: int | str | None, levels: Sequence[str]) -> Iterator[Problem]:
    if isinstance(level, int) and not 0 <= level < len(levels):
        yield Problem(key, f"={level} is out of range; give 0 (coarsest) to {len(levels) - 1}")
    elif isinstance(level, str) and level not in levels:
        yield Problem(key, unknown(level, levels))


def _sampler(spec: DatasetSpec, data: Mapping[str, Any], batch_size: int | None) -> Iterator[Problem]:
    kind, level, per_class = data["sampler"], data["sampler_level"], data["per_class"]
    if data["no_labels"]:
        yield Problem("data.sampler", f"={kind!r} needs labels, and data.no_labels=True has none; take random")
        return
    wrong = list(_level("data.sampler_level", level, spec.levels))
    yield from wrong
    if wrong or batch_size is None or per_class is None:
        return
    if kind == "hierarchical" and batch_size <= len(spec.levels):
        fits = f"an anchor and a partner at each level are {len(spec.levels) + 1} images"
        yield Problem("optimizer.batch_size", f"={batch_size} is too small for data.sampler=hierarchical: {fits}")
    if kind == "pxk" and batch_size % per_class:
        text = f"={per_class} must divide optimizer.batch_size={batch_size}, which has classes of that many images"
        yield Problem("data.per_class", text)
    elif kind == "pxk":
        nodes = _count(spec, level)
        if nodes is not None and nodes < batch_size // per_class:
            text = f"={per_class} makes batches of {batch_size // per_class} classes, and there are {nodes}"
            yield Problem("data.per_class", f"{text}; raise it, or lower optimizer.batch_size={batch_size}")


def _count(spec: DatasetSpec, level: int | str | None) -> int | None:
    if level is None or spec.taxonomy is None:
        return spec.num_classes
    return len(spec.taxonomy.names[level if isinstance(level, int) else spec.levels.index(level)])
