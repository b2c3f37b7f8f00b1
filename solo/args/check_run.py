"""What data and a run have to be: there, with labels that others speak of, of a length and size that can be meant."""

import importlib.util
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from solo.args.compose import check_source
from solo.args.fields import ParseError, Problem, Values, get, unknown
from solo.data.catalogue.registry import DATASETS, DatasetSpec, check_path, is_here, is_there, obtain, validation_path
from solo.data.catalogue.rows import wrong_statistics
from solo.errors import UserError
from solo.hex.catalogue import policy_facts, whom_shown
from solo.methods.catalogue import facts_of


def _data(values: Values) -> Iterator[Problem]:
    """The data set's name, shares and statistics."""
    data, entries = values["data"], values.get("augmentations") or []
    dataset = data["dataset"]
    fraction = data["fraction"]
    classes = data["num_classes"]
    spec = spec_of(values)
    if dataset is not None and spec is None:
        yield "data.dataset", unknown(dataset, DATASETS)
    if fraction is not None and fraction != -1 and fraction <= 0:
        yield "data.fraction", f"={fraction:g} is no share; give a number in (0, 1], or -1 for all images"
    if spec is not None and None not in (spec.num_classes, classes) and classes != spec.num_classes:
        yield "data.num_classes", f"={classes}, but {spec.name} has {spec.num_classes} classes; leave it out"
    for key in ("train_path", "val_path"):
        if "://" in str(data[key]) and data["format"] != "hf":
            advice = "images are files: mount the store (mount-s3, gcsfuse, rclone), copy it, or take data.format=hf"
            advice = "leave file:// out" if str(data[key]).startswith("file://") else advice
            yield f"data.{key}", f"={data[key]} is an address; {advice}"
    for place, section in {"data": data, **{f"augmentations[{i}]": entry for i, entry in enumerate(entries)}}.items():
        for name, text in wrong_statistics(get(section, "mean"), get(section, "std")).items():
            yield f"{place}.{name}", text
        least, most = get(section, "rrc.crop_min_scale"), get(section, "rrc.crop_max_scale")
        if least is not None and most is not None and least > most:
            yield f"{place}.rrc.crop_min_scale", f"={least} is more than crop_max_scale={most}; exchange them"


def spec_of(values: Values) -> DatasetSpec | None:
    """The data set's row, `None` if there is none of that name."""
    return DATASETS.get(str(values["data"]["dataset"]))


def check_levels(values: Values, spec: DatasetSpec | None) -> Iterator[Problem]:
    """Labels, levels and batches of a sampler that can't be; `spec` is resolved, None where that failed."""
    data, shares = values["data"], values["data"].get("label_fraction")
    for share in shares if isinstance(shares, list) else [shares]:
        if share is not None and -1 < share < 0:
            yield "data.label_fraction", f"={share} is no share; give 0 to 1, or -1 for all labels"
    if data.get("no_labels"):
        partial = {"label_fraction": shares not in (None, -1.0)}
        for name in ("label_fraction", "unseen_classes", "labelled_share"):
            if partial.get(name, data.get(name)):
                yield f"data.{name}", " needs labels, and data.no_labels=True has none; leave it out"
    if spec is None:
        return
    if isinstance(shares, list):
        whole = [1.0 if share < 0 else share for share in shares]
        if len(shares) not in (1, len(spec.levels)):
            levels = f"{spec.name} has {len(spec.levels)} ({', '.join(spec.levels)})"
            yield "data.label_fraction", f" gives {len(shares)} levels, and {levels}; give one number a level"
        elif whole != sorted(whole, reverse=True):
            text = f"={shares} keeps more fine labels than coarse ones, which follow from them; let it not increase"
            yield "data.label_fraction", text
    policy, level = get(values, "hex.policy"), get(values, "hex.level")
    by_label, shown = policy_facts(policy).labels, whom_shown(policy, get(values, "hex.show"))
    if by_label == "tree" or get(values, "hex.named"):
        if len(spec.levels) > 1:
            yield from _level("hex.level", level, spec.levels)
        else:
            rich = ", ".join(name for name, row in DATASETS.items() if len(row.levels) > 1)
            key = "hex.policy" if by_label == "tree" else "hex.named"
            text = f"={get(values, key)!r} needs a label tree, and {spec.name} has one level only"
            yield key, f"{text}; take a data set with several levels ({rich}) or HEX_adaptive"
    elif by_label or (shown and shown.labels):
        yield from _level("hex.level", level, spec.levels)
    kind, batch_size = data.get("sampler"), get(values, "optimizer.batch_size")
    if kind in (None, "random"):
        return
    level, per_class = data["sampler_level"], data["per_class"]
    if data["no_labels"]:
        yield "data.sampler", f"={kind!r} needs labels, and data.no_labels=True has none; take random"
        return
    wrong = list(_level("data.sampler_level", level, spec.levels))
    yield from wrong
    if wrong or batch_size is None or per_class is None:
        return
    if kind == "hierarchical" and batch_size <= len(spec.levels):
        fits = f"an anchor and a partner at each level are {len(spec.levels) + 1} images"
        yield "optimizer.batch_size", f"={batch_size} is too small for data.sampler=hierarchical: {fits}"
    if kind == "pxk" and batch_size % per_class:
        text = f"={per_class} must divide optimizer.batch_size={batch_size}, which has classes of that many images"
        yield "data.per_class", text
    elif kind == "pxk":
        nodes = spec.num_classes
        if level is not None and spec.taxonomy is not None:
            nodes = len(spec.taxonomy.names[level if isinstance(level, int) else spec.levels.index(level)])
        if nodes is not None and nodes < batch_size // per_class:
            text = f"={per_class} makes batches of {batch_size // per_class} classes, and there are {nodes}"
            yield "data.per_class", f"{text}; raise it, or lower optimizer.batch_size={batch_size}"


def _level(key: str, level: int | str | None, levels: Sequence[str]) -> Iterator[Problem]:
    if isinstance(level, int) and not 0 <= level < len(levels):
        yield key, f"={level} is out of range; give 0 (coarsest) to {len(levels) - 1}"
    elif isinstance(level, str) and level not in levels:
        yield key, unknown(level, levels)


def check_folders(values: Values) -> Iterator[Problem]:
    """Folders and files of images that a real run needs; touches no image."""
    spec, data = spec_of(values), values["data"]
    train, val = data["train_path"], data["val_path"]
    if spec is not None and spec.layout and data["format"] == "image_folder":
        # In its authors' layout, unless what is missing can be fetched, see `to_fetch`.
        key = "train_path"
        try:
            here = is_there(spec, train, data["download"])
            val = val or validation_path(spec, train)
            if train and not val and here:
                yield "data.val_path", " is missing; give the folder of the validation images"
            key = "val_path"
            if val and val != train:
                is_there(spec, val, data["download"])
        except UserError as error:
            yield f"data.{key}", f": {error}"
    elif spec is not None and data["format"] in ("image_folder", "h5"):
        own = spec.folders or data["format"] == "h5"
        must_validate = "pretrained_feature_extractor" in values
        beside = val is None and data["format"] == "image_folder" and validation_path(spec, train)
        for key, needed in (("train_path", own), ("val_path", own and must_validate and not beside)):
            if data[key] is None and needed:
                yield f"data.{key}", " is missing; give the folder that holds the images"
            elif data[key] is not None and "://" not in data[key]:  # `_data` has said so
                try:
                    check_path(spec, data[key], bool(data.get("no_labels")), data["format"])
                except UserError as error:
                    yield f"data.{key}", f": {error}"


def to_fetch(values: Values) -> list[str | None]:
    """What a checked config's run has to fetch first, by the disk: folders (`None`: the package's own) or hub names."""
    spec, data = spec_of(values), values["data"]
    if data["format"] == "hf":
        return [data["train_path"]] if data["train_path"] and not is_here(data["train_path"]) else []
    if spec is None or not spec.layout or data["format"] != "image_folder":
        return []
    places = dict.fromkeys((data["train_path"], data["val_path"] or data["train_path"]))
    return [place for place in places if not is_there(spec, place, data["download"])]


def obtain_all(values: Values, places: Iterable[str | None]) -> None:
    """Fetch what `to_fetch` has found; a `ParseError` if it can't be."""
    spec, data = spec_of(values), values["data"]
    try:
        if spec is not None and data["format"] == "image_folder":
            for place in places:
                obtain(spec, place, data["download"])
    except UserError as error:
        raise ParseError(f"data.train_path: {error}") from error


_SHARES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches")
_DURATION = re.compile(r"\d+:\d\d:\d\d:\d\d")
_LONGEST_NAME = 180  # bytes: most file systems take 255, and files have more than the name
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")


def check_run(values: Values) -> Iterator[Problem]:
    """Settings of a checked config, where a refused value is None, that can't be what is meant."""
    yield from check_source(values)
    yield from _data(values)
    devices, name = values.get("devices"), values.get("name")
    text = str(devices).strip("[]")
    several = isinstance(devices, list) or "," in text
    if devices is not None and not re.fullmatch(r"\d+(, *\d+)*" if several else r"[1-9]\d*|auto|-1", text):
        yield "devices", f"={devices!r} is unknown; give a number >= 1, a list such as [0, 1], or auto"
    elif isinstance(devices, list) and len(set(devices)) < len(devices):
        yield "devices", f"={devices} names a device twice; give each of them once"
    if name and re.search(r"[/\\\0-\x1f]", name):
        yield "name", f"={name!r} becomes part of a file's name; take /, \\ and control characters out of it"
    elif name and len(os.fsencode(name)) > _LONGEST_NAME:
        yield "name", f" becomes part of a file's name; give one of at most {_LONGEST_NAME} bytes"
    least, most = values.get("min_epochs"), values.get("max_epochs")
    if least is not None and most is not None and least > most:
        yield "min_epochs", f"={least} is more than max_epochs={most}; lower it or raise max_epochs"
    if values.get("max_steps") == 0:
        yield "max_steps", "=0 trains nothing; give a number >= 1, or -1 for all of max_epochs"
    time = values.get("max_time")
    if isinstance(time, str) and not _DURATION.fullmatch(time):
        yield "max_time", f"={time!r} is no duration; give DD:HH:MM:SS, for example 00:12:00:00"
    for unit in time if isinstance(time, Mapping) else ():
        if unit not in _UNITS:
            yield f"max_time.{unit}", f" is no unit of time; give {', '.join(_UNITS)}"
    facts, size = facts_of(values.get("method")), get(values, "optimizer.batch_size")
    if facts and size is not None and size < facts.least_batch:
        what = f"{values['method']} compares or normalises the images of a batch; give at least {facts.least_batch}"
        yield "optimizer.batch_size", f"={size} is too small: {what}"
    for key in _SHARES:
        limit = values.get(key)
        if isinstance(limit, float) and limit > 1:
            yield key, f"={limit} is neither a number of batches nor a share; give an int, or a share <= 1.0"
    if values.get("limit_train_batches") == 0:
        yield "limit_train_batches", "=0 trains nothing; give a number >= 1, or a share above 0"
    if values.get("overfit_batches") and values["data"].get("augment", "sample") != "sample":
        yield "overfit_batches", " needs views made image by image; set data.augment=sample, too"
    interval = values.get("val_check_interval")
    if isinstance(interval, str) and not _DURATION.fullmatch(interval):
        yield "val_check_interval", f"={interval!r} is no duration; give DD:HH:MM:SS, batches, or a share"
    elif isinstance(interval, float) and not 0 < interval <= 1:
        yield "val_check_interval", f"={interval} is no share of an epoch; give a number in (0, 1], or an int"
    strategy = str(values.get("strategy"))
    if strategy.startswith("fsdp"):
        if strategy not in ("fsdp", "fsdp2"):
            yield "strategy", f"={strategy!r} is unknown; give fsdp (FSDP2, everything stays on the GPUs) or ddp"
        if facts and facts.whole:
            yield "strategy", f"={strategy!r} doesn't go with method={values['method']}; take strategy=ddp"
        if values.get("finetune_lora"):
            yield "finetune_lora", f" doesn't go with strategy={strategy}; give strategy=ddp, or leave it out"
        if values.get("accumulate") == "exact":
            yield "accumulate", f"=exact doesn't go with strategy={strategy}; give strategy=ddp or accumulate=plain"
    if "finetune" in values:
        yield from _finetuning(values)
    # Numbers that go to someone else's function, which may not look at them.
    for section in ("backbone.kwargs", "optimizer.kwargs"):
        for name, value in (get(values, section) or {}).items():
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    yield f"{section}.{name}", f"={value!r} is not finite; give a number"


def _finetuning(values: Values) -> Iterator[Problem]:
    """Settings of `solo linear` that would do nothing beside others."""
    data = values["data"]
    if values["optimizer"]["layer_decay"] and not values["finetune"]:
        yield "optimizer.layer_decay", " does nothing on a frozen backbone; set finetune=True or leave it out"
    if values.get("grid") and not (data["cache_features"] and values["optimizer"]["name"] == "sgd"):
        yield "grid", "=True compares settings of optimizer.name=sgd on features; set data.cache_features=True"
    for name in ("auto_augment", "mixup", "cutmix") if data["cache_features"] else ():
        if values[name]:
            yield name, " changes images, and data.cache_features=True has none; take one of the two"
    for name, made in (("auto_augment", "image by image"), ("data.cache_features", "once, without augmentation")):
        if data.get("augment") == "batch" and get(values, name):
            yield "data.augment", f"=batch does nothing with {name}=True, which works {made}; leave one out"
    spec = DATASETS.get(str(data["dataset"]))
    channels = data["channels"] or (spec.channels if spec else None)
    if values["auto_augment"] and channels not in (None, 3):
        yield "auto_augment", f" (RandAugment) is for colour pictures, these have {channels} channel; leave it out"


def check_files(values: Values) -> Iterator[Problem]:
    """Images, checkpoints and weights that a real run reads, by their names, and a package that it needs."""
    yield from check_folders(values)
    for package, name in (("mlflow", "MLflow"), ("trackio", "Trackio")):
        if package in (values.get("logger") or ()) and importlib.util.find_spec(package) is None:
            yield "logger", f"=[{package}] needs {name}, which isn't installed; pip install {package}, or leave it out"
    source = values.get("finetune_from")
    if source and not source.startswith(("timm/", "torchvision/")) and not Path(source).expanduser().exists():
        what = "give a file with weights, the folder of a run, timm/NAME or torchvision/NAME"
        yield "finetune_from", f"={source!r} does not exist; {what}"
    for key in ("pretrained_feature_extractor", "resume_from_checkpoint"):
        given = values.get(key)
        for name in given if isinstance(given, list) else [given] if given is not None else []:
            path = Path(name).expanduser()
            if not path.exists():
                yield key, f"={name!r} does not exist; give a checkpoint file or the folder of a run"
            elif path.is_dir() and not any(path.glob("*.ckpt")):
                yield key, f"={name!r} is a folder without *.ckpt files; give the folder of a run"
