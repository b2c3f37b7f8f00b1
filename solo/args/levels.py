"""Settings that depend on the label tree: HEX's superclasses and samplers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from solo.args.check import Problem, unknown
from solo.data.catalogue.registry import DATASETS, DatasetSpec


def check_levels(values: Mapping[str, Any], spec: DatasetSpec | None) -> Iterator[Problem]:
    """Levels that aren't there, and batches that a sampler can't make of the labels.

    Args:
        values: checked.
        spec: the resolved data set; `None` where it can't be read, which is said elsewhere.
    """
    hex_ = values.get("hex", {})
    superclass = "superclass" if hex_.get("policy") == "superclass" else "named" if hex_.get("named") else None
    sampler = values["data"].get("sampler") not in (None, "random")
    yield from _withheld(values["data"])
    shares = values["data"].get("label_fraction")
    if spec is None:
        return
    if isinstance(shares, list):
        yield from _shares(spec, shares)
    if superclass:
        yield from _superclass(spec, values["hex"]["level"], superclass)
    if sampler:
        yield from _sampler(spec, values["data"], values["optimizer"]["batch_size"])


def _withheld(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Labels and classes that are taken away where there are none, or by a share that is none."""
    shares = data.get("label_fraction")
    partial = shares not in (None, -1.0)
    for share in shares if isinstance(shares, list) else [shares]:
        if share is not None and -1 < share < 0:
            yield Problem("data.label_fraction", f"={share} is no share; give 0 to 1, or -1 for all labels")
    if data.get("no_labels"):
        share = data.get("labelled_share")
        asked = {"label_fraction": partial, "unseen_classes": data.get("unseen_classes"), "labelled_share": share}
        for name, given in asked.items():
            if given:
                yield Problem(f"data.{name}", " needs labels, and data.no_labels=True has none; leave it out")


def _shares(spec: DatasetSpec, shares: Sequence[float]) -> Iterator[Problem]:
    whole = [1.0 if share < 0 else share for share in shares]
    if len(shares) not in (1, len(spec.levels)):
        levels = f"{spec.name} has {len(spec.levels)} ({', '.join(spec.levels)})"
        yield Problem("data.label_fraction", f" gives {len(shares)} levels, and {levels}; give one number a level")
    elif any(fine > coarse for coarse, fine in zip(whole, whole[1:], strict=False)):
        text = f"={list(shares)} keeps more fine labels than coarse ones, which follow from them; let it not increase"
        yield Problem("data.label_fraction", text)


def _superclass(spec: DatasetSpec, level: int | str | None, asked: str) -> Iterator[Problem]:
    if len(spec.levels) < 2:
        rich = [name for name, row in DATASETS.items() if len(row.levels) > 1]
        advice = f"take a data set with several levels ({', '.join(rich)}) or HEX_adaptive"
        key, value = ("hex.named", True) if asked == "named" else ("hex.policy", "superclass")
        yield Problem(key, f"={value!r} needs a label tree, and {spec.name} has one level only; {advice}")
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
