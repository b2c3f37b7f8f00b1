"""What no single key can say: names from other tables, keys that depend on each other, files that must exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from solo.args.accumulate import check_accumulate
from solo.args.check import ParseError, Problem, check, unknown
from solo.args.multilabel import check_start
from solo.args.source import check_source
from solo.data.catalogue.registry import DATASETS, DatasetSpec, check_path, is_there, obtain, validation_path
from solo.data.catalogue.resolve import is_here
from solo.errors import UserError
from solo.hex.catalogue import policy_facts
from solo.methods.catalogue import CATALOGUE, facts_of, names

_CHECKPOINTS = (".ckpt", ".pth", ".pt")


def spec_of(values: Mapping[str, Any]) -> DatasetSpec | None:
    """The data set's row, `None` if there is none of that name."""
    return DATASETS.get(str(values["data"]["dataset"]))


def check_names(values: dict[str, Any], from_code: bool = False) -> list[Problem]:
    """Method, method_kwargs (checked and completed in place), data set, levels of the label tree, devices."""
    problems: list[Problem] = []
    if values.get("method") is not None:
        facts = facts_of(values["method"])
        if facts and facts.kwargs:
            values["method_kwargs"], problems = check(values["method_kwargs"] or {}, facts.kwargs, "method_kwargs.")
        elif not facts and not from_code:
            problems.append(Problem("method", unknown(values["method"], CATALOGUE)))
    dataset = values["data"]["dataset"]
    if dataset is not None and dataset not in DATASETS:
        problems.append(Problem("data.dataset", unknown(dataset, DATASETS)))
    trained = values.get("pretrain_method")
    if trained is not None and not facts_of(trained):
        problems.append(Problem("pretrain_method", unknown(trained, CATALOGUE)))
    policy = values.get("hex", {}).get("policy")
    problems += check_policy(values.get("method"), policy)
    problems += [*check_accumulate(values), *_variant(values)]
    problems += [*_finetuning(values), *check_source(values)]
    return [*problems, *_devices(values.get("devices"))]


def check_policy(method: Any, policy: Any) -> list[Problem]:
    """HEX in a method that has no place for it, which would be ignored otherwise."""
    facts = facts_of(method)
    if policy in (None, "standard") or facts is None:
        return []
    if facts.hex == "denominator" and not policy_facts(policy).selects:
        return [Problem("hex.policy", f"={policy!r} is no loss of method={method}; take adaptive, fixed or superclass")]
    if facts.hex is not None:
        return []
    text = f"={policy!r} does nothing in method={method}; take standard, or one of "
    text += ", ".join(names(lambda facts: facts.hex))
    return [Problem("hex.policy", text)]


def _variant(values: Mapping[str, Any]) -> Iterator[Problem]:
    """The release removes the hierarchy negatives: that leaves nothing of HCL, and makes InfoNCE another loss."""
    settings = values.get("hex", {})
    policy = settings.get("policy")
    facts = policy_facts(policy)
    if settings.get("variant") == "release" and facts.variant == "reweight":
        advice = "leave hex.variant out" if facts.selects else "DCL is the decoupled loss"
        yield Problem("hex.variant", f"='release' has no meaning with {policy}; {advice}")


def _finetuning(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Settings of `solo linear` that would do nothing beside others."""
    if "finetune" not in values:
        return
    if values["optimizer"]["layer_decay"] and not values["finetune"]:
        yield Problem("optimizer.layer_decay", " does nothing on a frozen backbone; set finetune=True or leave it out")
    if values["data"]["cache_features"]:
        for name in ("auto_augment", "mixup", "cutmix"):
            if values[name]:
                yield Problem(name, " changes images, and data.cache_features=True has none; take one of the two")
    for name, made in (("auto_augment", "image by image"), ("data.cache_features", "once, without augmentation")):
        if values["data"].get("augment") == "batch" and (
            values["data"]["cache_features"] if "." in name else values[name]
        ):
            yield Problem("data.augment", f"=batch does nothing with {name}=True, which works {made}; leave one out")
    spec = spec_of(values)
    channels = values["data"]["channels"] or (spec.channels if spec else None)
    if values["auto_augment"] and channels not in (None, 3):
        yield Problem(
            "auto_augment", f" (RandAugment) is for colour pictures, these have {channels} channel; leave it out"
        )


def _devices(devices: Any) -> Iterator[Problem]:
    text = str(devices).strip("[]")
    several = isinstance(devices, list) or "," in text
    if devices is not None and not re.fullmatch(r"\d+(, *\d+)*" if several else r"[1-9]\d*|auto|-1", text):
        yield Problem("devices", f"={devices!r} is unknown; give a number >= 1, a list such as [0, 1], or auto")


def check_run(values: Mapping[str, Any]) -> list[Problem]:
    """What only a real run needs: folders, files, number of views. Touches no image."""
    return [*_folders(values), *_checkpoints(values), *check_start(values), *_views(values)]


def _folders(values: Mapping[str, Any]) -> Iterator[Problem]:
    spec, data = spec_of(values), values["data"]
    if spec is not None and spec.layout and data["format"] == "image_folder":
        yield from _published(spec, data)
    elif spec is not None and data["format"] in ("image_folder", "h5"):
        own, must_validate = spec.folders or data["format"] == "h5", "pretrained_feature_extractor" in values
        for key in ("train_path", "val_path"):
            if data[key] is None:
                if key == "val_path" and data["format"] == "image_folder" and validation_path(spec, data["train_path"]):
                    continue
                if own and (key == "train_path" or must_validate):
                    yield Problem(f"data.{key}", " is missing; give the folder that holds the images")
                continue
            try:
                check_path(spec, data[key], bool(data.get("no_labels")), data["format"])
            except UserError as error:
                yield Problem(f"data.{key}", f": {error}")


def _published(spec: DatasetSpec, data: Mapping[str, Any]) -> Iterator[Problem]:
    """Both splits of a data set in its authors' layout, unless what is missing can be fetched, see `to_fetch`."""
    train, val = data["train_path"], data["val_path"]
    try:
        here = is_there(spec, train, data["download"])
        val = val or validation_path(spec, train)
        if train and not val and here:
            yield Problem("data.val_path", " is missing; give the folder of the validation images")
    except UserError as error:
        yield Problem("data.train_path", f": {error}")
        return
    try:
        if val and val != train:
            is_there(spec, val, data["download"])
    except UserError as error:
        yield Problem("data.val_path", f": {error}")


def to_fetch(values: Mapping[str, Any]) -> list[str | None]:
    """The folders (`None`: the package's own) or hub names that a run has to fetch before it can start.

    Args:
        values: checked and without problems. Looks at the disk only.
    """
    spec, data = spec_of(values), values["data"]
    if data["format"] == "hf":
        return [] if is_here(data["train_path"]) else [data["train_path"]]
    if spec is None or not spec.layout or data["format"] != "image_folder":
        return []
    places = dict.fromkeys((data["train_path"], data["val_path"] or data["train_path"]))
    return [place for place in places if not is_there(spec, place, data["download"])]


def obtain_all(values: Mapping[str, Any], places: Iterable[str | None]) -> None:
    """Fetch what `to_fetch` has found.

    Raises:
        ParseError: it can't be fetched.
    """
    spec, data = spec_of(values), values["data"]
    try:
        for place in places if spec and data["format"] == "image_folder" else ():
            obtain(cast(DatasetSpec, spec), place, data["download"])
    except UserError as error:
        raise ParseError(f"data.train_path: {error}") from error


def _checkpoints(values: Mapping[str, Any]) -> Iterator[Problem]:
    for key in ("pretrained_feature_extractor", "resume_from_checkpoint"):
        given = values.get(key)
        for name in [] if given is None else given if isinstance(given, list) else [given]:
            path = Path(name).expanduser()
            if not path.exists():
                yield Problem(key, f"={name!r} does not exist; give a checkpoint file or the folder of a run")
            elif path.is_dir() and not any(path.glob("*.ckpt")):
                yield Problem(key, f"={name!r} is a folder without *.ckpt files; give the folder of a run")
            elif path.is_file() and path.suffix not in _CHECKPOINTS:
                yield Problem(key, f"={name!r} is no checkpoint; its name must end in {', '.join(_CHECKPOINTS)}")


def _views(values: Mapping[str, Any]) -> Iterator[Problem]:
    entries, spec = values.get("augmentations"), spec_of(values)
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
