"""What a run has to be: its length, batches, devices and files; and remarks on what is allowed and may surprise."""

import importlib.util
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from solo.args.check import Problem, Values, get
from solo.data.catalogue.registry import DATASETS
from solo.hex.catalogue import policy_facts
from solo.methods.catalogue import facts_of

_PUBLISHED = ("timm/", "torchvision/")
_SHARES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches")
_DURATION = re.compile(r"\d+:\d\d:\d\d:\d\d")
_LONGEST_NAME = 180  # bytes: most file systems take 255, and files have more than the name
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")


def check_run(values: Values) -> Iterator[Problem]:
    """Settings of a checked config, where a refused value is None, that can't be what is meant."""
    yield from _top(values)
    yield from _batches(values)
    strategy, facts = str(values.get("strategy")), facts_of(values.get("method"))
    if strategy.startswith("fsdp"):
        if strategy not in ("fsdp", "fsdp2"):
            text = "is unknown; give fsdp (FSDP2, everything stays on the GPUs) or ddp"
            yield Problem("strategy", f"={strategy!r} {text}")
        if facts and facts.whole:
            yield Problem("strategy", f"={strategy!r} doesn't go with method={values['method']}; take strategy=ddp")
        if values.get("finetune_lora"):
            yield Problem("finetune_lora", f" doesn't go with strategy={strategy}; give strategy=ddp, or leave it out")
        if values.get("accumulate") == "exact":
            text = f"=exact doesn't go with strategy={strategy}; give strategy=ddp or accumulate=plain"
            yield Problem("accumulate", text)
    if "finetune" in values:
        yield from _finetuning(values)
    # Numbers that go to someone else's function, which may not look at them.
    for section in ("backbone.kwargs", "optimizer.kwargs"):
        for name, value in (get(values, section) or {}).items():
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    yield Problem(f"{section}.{name}", f"={value!r} is not finite; give a number")


def _top(values: Values) -> Iterator[Problem]:
    devices, name = values.get("devices"), values.get("name")
    text = str(devices).strip("[]")
    several = isinstance(devices, list) or "," in text
    if devices is not None and not re.fullmatch(r"\d+(, *\d+)*" if several else r"[1-9]\d*|auto|-1", text):
        yield Problem("devices", f"={devices!r} is unknown; give a number >= 1, a list such as [0, 1], or auto")
    elif isinstance(devices, list) and len(set(devices)) < len(devices):
        yield Problem("devices", f"={devices} names a device twice; give each of them once")
    if name and re.search(r"[/\\\0-\x1f]", name):
        yield Problem("name", f"={name!r} becomes part of a file's name; take /, \\ and control characters out of it")
    elif name and len(os.fsencode(name)) > _LONGEST_NAME:
        yield Problem("name", f" becomes part of a file's name; give one of at most {_LONGEST_NAME} bytes")
    least, most = values.get("min_epochs"), values.get("max_epochs")
    if least is not None and most is not None and least > most:
        yield Problem("min_epochs", f"={least} is more than max_epochs={most}; lower it or raise max_epochs")
    if values.get("max_steps") == 0:
        yield Problem("max_steps", "=0 trains nothing; give a number >= 1, or -1 for all of max_epochs")
    time = values.get("max_time")
    if isinstance(time, str) and not _DURATION.fullmatch(time):
        yield Problem("max_time", f"={time!r} is no duration; give DD:HH:MM:SS, for example 00:12:00:00")
    for unit in time if isinstance(time, Mapping) else ():
        if unit not in _UNITS:
            yield Problem(f"max_time.{unit}", f" is no unit of time; give {', '.join(_UNITS)}")


def _batches(values: Values) -> Iterator[Problem]:
    size = get(values, "optimizer.batch_size")
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


def _finetuning(values: Values) -> Iterator[Problem]:
    """Settings of `solo linear` that would do nothing beside others."""
    data = values["data"]
    if values["optimizer"]["layer_decay"] and not values["finetune"]:
        yield Problem("optimizer.layer_decay", " does nothing on a frozen backbone; set finetune=True or leave it out")
    if values.get("grid") and not (data["cache_features"] and values["optimizer"]["name"] == "sgd"):
        yield Problem("grid", "=True compares settings of optimizer.name=sgd on features; set data.cache_features=True")
    for name in ("auto_augment", "mixup", "cutmix") if data["cache_features"] else ():
        if values[name]:
            yield Problem(name, " changes images, and data.cache_features=True has none; take one of the two")
    for name, made in (("auto_augment", "image by image"), ("data.cache_features", "once, without augmentation")):
        if data.get("augment") == "batch" and get(values, name):
            yield Problem("data.augment", f"=batch does nothing with {name}=True, which works {made}; leave one out")
    spec = DATASETS.get(str(data["dataset"]))
    channels = data["channels"] or (spec.channels if spec else None)
    if values["auto_augment"] and channels not in (None, 3):
        text = f" (RandAugment) is for colour pictures, these have {channels} channel; leave it out"
        yield Problem("auto_augment", text)


def check_files(values: Values) -> Iterator[Problem]:
    """Checkpoints and weights that a real run reads, by their names, and a package that it needs."""
    for package, name in (("mlflow", "MLflow"), ("trackio", "Trackio")):
        if package in (values.get("logger") or ()) and importlib.util.find_spec(package) is None:
            text = f"=[{package}] needs {name}, which isn't installed; pip install {package}, or leave it out"
            yield Problem("logger", text)
    source = values.get("finetune_from")
    if source is not None and not source.startswith(_PUBLISHED) and not Path(source).expanduser().exists():
        what = "give a file with weights, the folder of a run, timm/NAME or torchvision/NAME"
        yield Problem("finetune_from", f"={source!r} does not exist; {what}")
    for key in ("pretrained_feature_extractor", "resume_from_checkpoint"):
        given = values.get(key)
        for name in given if isinstance(given, list) else [given] if given is not None else []:
            path = Path(name).expanduser()
            if not path.exists():
                yield Problem(key, f"={name!r} does not exist; give a checkpoint file or the folder of a run")
            elif path.is_dir() and not any(path.glob("*.ckpt")):
                yield Problem(key, f"={name!r} is a folder without *.ckpt files; give the folder of a run")


def remarks(values: Values) -> Iterator[str]:
    """What is allowed and may surprise; of a resolved config without problems."""
    schedule, epochs = values.get("scheduler") or {}, values.get("max_epochs")
    warm_up: float = schedule["warmup_epochs"] if schedule.get("name") == "warmup_cosine" else 0
    if epochs and 2 * warm_up > epochs:
        what = "never reaches optimizer.lr" if warm_up > epochs else "rises for most of the run"
        yield f"the learning rate {what}: {warm_up:g} warm-up epochs (scheduler.warmup_epochs), max_epochs={epochs}"
    if schedule.get("name") == "warmup_cosine" and schedule["min_lr"] > values["optimizer"]["lr"]:
        ends = f"scheduler.min_lr={schedule['min_lr']:g} is above optimizer.lr={values['optimizer']['lr']:g}"
        yield f"the learning rate goes up after the warm-up: {ends}, scaled to the global batch"
    if schedule.get("name") == "step":
        steps = schedule["lr_decay_steps"]
        if not steps or min(steps) >= epochs:
            yield f"the learning rate never changes: scheduler.lr_decay_steps={steps} and max_epochs={epochs}"
    settings = values.get("hex") or {"policy": "standard"}
    if policy_facts(settings["policy"]).path and settings["warm_epoch"] >= epochs:
        early = f"hex.warm_epoch={settings['warm_epoch']} is not below max_epochs={epochs}"
        yield f"HEX is never switched on: {early}, so the plain loss is trained"
