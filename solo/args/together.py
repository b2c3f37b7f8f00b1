"""Values that are each allowed and can't be what is meant: out of order, without any effect of their own, unsafe."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from solo.args.check import Problem
from solo.data.catalogue.registry import DATASETS
from solo.data.catalogue.rows import wrong_statistics
from solo.methods.catalogue import facts_of

Values = Mapping[str, Any]
_SHARES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches")
_DURATION = re.compile(r"\d+:\d\d:\d\d:\d\d")
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")


def check_together(values: Values) -> list[Problem]:
    """Find them in a checked config, where a refused value is None."""
    found = [
        *_name(values),
        *_length(values),
        *_batches(values),
        *_images(values),
        *_statistics(values),
        *_views(values),
    ]
    return [*found, *_objective(values), *_free(values)]


def _name(values: Values) -> Iterator[Problem]:
    name = values.get("name")
    if name and re.search(r"[/\\\0]", name):
        yield Problem("name", f"={name!r} becomes part of a file's name; take / and \\ out of it")


def _length(values: Values) -> Iterator[Problem]:
    least, most, steps = values.get("min_epochs"), values.get("max_epochs"), values.get("max_steps")
    if least is not None and most is not None and least > most:
        yield Problem("min_epochs", f"={least} is more than max_epochs={most}; lower it or raise max_epochs")
    if steps == 0:
        yield Problem("max_steps", "=0 trains nothing; give a number >= 1, or -1 for all of max_epochs")
    time = values.get("max_time")
    if isinstance(time, str) and not _DURATION.fullmatch(time):
        yield Problem("max_time", f"={time!r} is no duration; give DD:HH:MM:SS, for example 00:12:00:00")
    if isinstance(time, Mapping):
        for unit in time:
            if unit not in _UNITS:
                yield Problem(f"max_time.{unit}", f" is no unit of time; give {', '.join(_UNITS)}")


def _batches(values: Values) -> Iterator[Problem]:
    size = (values.get("optimizer") or {}).get("batch_size")
    facts = facts_of(values.get("method"))
    if facts and size is not None and size < facts.least_batch:
        text = f"={size} is too small: {values['method']} compares or normalises the images of a batch; give at least "
        text += str(facts.least_batch)
        yield Problem("optimizer.batch_size", text)
    for key in _SHARES:
        limit = values.get(key)
        if isinstance(limit, float) and limit > 1:
            yield Problem(key, f"={limit} is neither a number of batches nor a share; give an int, or a share <= 1.0")
    if values.get("limit_train_batches") == 0:
        yield Problem("limit_train_batches", "=0 trains nothing; give a number >= 1, or a share above 0")
    if values.get("overfit_batches") and values["data"].get("augment", "sample") != "sample":
        yield Problem("overfit_batches", " needs views made image by image; set data.augment=sample, too")
    interval = values.get("val_check_interval")
    if isinstance(interval, str) and not _DURATION.fullmatch(interval):
        yield Problem("val_check_interval", f"={interval!r} is no duration; give DD:HH:MM:SS, batches, or a share")
    elif isinstance(interval, float) and not 0 < interval <= 1:
        yield Problem("val_check_interval", f"={interval} is no share of an epoch; give a number in (0, 1], or an int")
    devices = values.get("devices")
    if isinstance(devices, list) and len(set(devices)) < len(devices):
        yield Problem("devices", f"={devices} names a device twice; give each of them once")


def _images(values: Values) -> Iterator[Problem]:
    data = values["data"]
    fraction, classes = data["fraction"], data["num_classes"]
    if fraction is not None and fraction != -1 and fraction <= 0:
        yield Problem("data.fraction", f"={fraction:g} is no share; give a number in (0, 1], or -1 for all images")
    spec = DATASETS.get(str(data["dataset"]))
    if spec is not None and None not in (spec.num_classes, classes) and classes != spec.num_classes:
        text = f"={classes}, but {spec.name} has {spec.num_classes} classes; leave it out"
        yield Problem("data.num_classes", text)


def _statistics(values: Values) -> Iterator[Problem]:
    """Mean and std of images in [0, 255], as other libraries want them, and others that can't be right."""
    places = [
        ("data", values["data"]),
        *((f"augmentations[{i}]", e) for i, e in enumerate(values.get("augmentations") or [])),
    ]
    for place, section in places:
        if isinstance(section, Mapping):
            mean, std = (section.get(name) for name in ("mean", "std"))
            for name, text in wrong_statistics(mean, std).items():
                yield Problem(f"{place}.{name}", text)


def _views(values: Values) -> Iterator[Problem]:
    for i, entry in enumerate(values.get("augmentations") or []):
        crop = entry["rrc"] if isinstance(entry, Mapping) else {}
        least, most = crop.get("crop_min_scale"), crop.get("crop_max_scale")
        if least is not None and most is not None and least > most:
            text = f"={least} is more than crop_max_scale={most}; exchange them"
            yield Problem(f"augmentations[{i}].rrc.crop_min_scale", text)


def _objective(values: Values) -> Iterator[Problem]:
    settings = values.get("hex") or {}
    start, end = settings.get("distance_thresh"), settings.get("distance_min")
    if settings.get("policy") == "fixed" and start is not None and end is not None and start < end:
        text = f"={end} is above hex.distance_thresh={start}, where it starts; the threshold goes down, exchange them"
        yield Problem("hex.distance_min", text)


def _free(values: Values) -> Iterator[Problem]:
    """Numbers that go to someone else's function, which may not look at them."""
    for section in ("backbone", "optimizer"):
        kwargs = (values.get(section) or {}).get("kwargs") or {}
        for name, value in kwargs.items():
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    yield Problem(f"{section}.kwargs.{name}", f"={value!r} is not finite; give a number")


def remarks(values: Values) -> Iterator[str]:
    """What is allowed and may surprise; of a resolved config without problems."""
    schedule, epochs = values.get("scheduler") or {}, values.get("max_epochs")
    if schedule.get("name") == "warmup_cosine" and schedule["warmup_epochs"] > epochs:
        length = f"{schedule['warmup_epochs']:g} warm-up epochs (scheduler.warmup_epochs) are more than max_epochs"
        yield f"the learning rate never reaches optimizer.lr: {length}={epochs}"
    if schedule.get("name") == "warmup_cosine" and schedule["min_lr"] > values["optimizer"]["lr"]:
        ends = f"scheduler.min_lr={schedule['min_lr']:g} is above optimizer.lr={values['optimizer']['lr']:g}"
        yield f"the learning rate goes up after the warm-up: {ends}, scaled to the global batch"
    if schedule.get("name") == "step":
        steps = schedule["lr_decay_steps"]
        if not steps or min(steps) >= epochs:
            yield f"the learning rate never changes: scheduler.lr_decay_steps={steps} and max_epochs={epochs}"
    settings = values.get("hex") or {"policy": "standard"}
    if settings["policy"] != "standard" and settings["warm_epoch"] >= epochs:
        early = f"hex.warm_epoch={settings['warm_epoch']} is not below max_epochs={epochs}"
        yield f"HEX is never switched on: {early}, so the plain loss is trained"
