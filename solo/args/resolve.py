"""What follows from the data set and the machine: classes, image size, crops, scaled learning rate. Pure; twice = once.

Every value found here is written back, so that a run's own config says all of it.
"""

import copy
from collections.abc import Mapping
from typing import Any

from solo.args.config import freeze
from solo.args.schema import HexCfg
from solo.args.trainer import count_devices
from solo.cores import usable_cores
from solo.data.catalogue.registry import DatasetSpec, count_classes, get_spec, unseen_classes, validation_path
from solo.errors import UserError
from solo.methods.catalogue import facts_of

_MOST_WORKERS = 16  # from there on they cost memory, and a step takes longer than its images
BASE_BATCH = 256  # learning rates in recipes are meant for a global batch of this size

_OPTIMIZER_KWARGS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "lars": {"momentum": 0.9, "eta": 1e-3, "clip_lr": False, "exclude_bias_n_norm": False},
    "adam": {},
    "adamw": {"betas": [0.9, 0.999]},
}
# With these names solo-learn scales classifier_lr only if data.val_path is given; kept, for its runs to be repeatable.
_NEEDS_VAL_PATH = ("cifar10", "cifar100", "stl10", "imagenet", "imagenet100", "custom")


def global_batch(values: Mapping[str, Any]) -> int:
    """Images in one forward pass of all processes together."""
    processes = count_devices(values["devices"], values["accelerator"]) * int(values["num_nodes"])
    return int(values["optimizer"]["batch_size"]) * processes


def exact_parts(accumulate: str, batches: int) -> int:
    """How many batches share one loss: `accumulate_grad_batches` with `accumulate=exact`, else 1."""
    return batches if accumulate == "exact" else 1


class _Settings:
    """A copy of the values that remembers where the new ones came from."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = copy.deepcopy(dict(values))
        self.origins: dict[str, str] = {}

    def put(self, dotted: str, value: Any, origin: str) -> None:
        *path, last = dotted.split(".")
        section = self.values
        for part in path:
            section = section[part]
        if last not in section or section[last] != value:
            section[last] = value
            self.origins[dotted] = origin

    def fill(self, dotted: str, value: Any, origin: str) -> None:
        section, name = dotted.split(".")
        if self.values[section].get(name) is None:
            self.put(dotted, value, origin)


def resolve(values: Mapping[str, Any], found: DatasetSpec) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill in what is null and can be known, and scale the learning rates.

    `found` is the data set with what a look at the data has told. Returns the new config, and for each key changed here
    where the value came from. Raises a `UserError` if classes have to be counted in a folder that isn't there.
    """
    settings, spec = _Settings(values), get_spec(found.name)
    pretraining = "method" in values
    if values["name"] is None:
        what = values["method"] if pretraining else "evaluate" if "features" in values else "linear"
        settings.put("name", f"{what}-{values['data']['dataset']}", "derived")
    devices = count_devices(values["devices"], values["accelerator"]) if "devices" in values else 1
    settings.fill("data.num_workers", max(1, min(_MOST_WORKERS, usable_cores() // devices)), "cores for each device")
    if values["data"]["format"] == "image_folder" and not values["data"].get("no_labels"):
        settings.fill("data.val_path", validation_path(spec, values["data"]["train_path"]), "data.train_path")
    _classes(settings, spec, found)
    data = settings.values["data"]
    if data.get("unseen_classes") is not None:  # by name, so that evaluation can tell them from the others
        unseen = unseen_classes(found, data["num_classes"], data["unseen_classes"], data["split_seed"])
        settings.put("data.unseen_classes", list(unseen.values()), "drawn by data.split_seed")
    if pretraining:
        # The methods that compare level by level, where labels and batches allow it.
        facts = facts_of(values["method"])
        by_level = facts is not None and facts.labels == "levels" and not data["no_labels"]
        by_level &= settings.values["optimizer"]["batch_size"] > len(found.levels)
        settings.fill("data.sampler", "hierarchical" if by_level else "random", f"default of {values['method']}")
        _images(settings, spec)
        if found.reading.range is not None:
            settings.fill("data.range", list(found.reading.range), "found in a sample of data.train_path")
        _crops(settings)
        hex_ = freeze(settings.values["hex"], HexCfg)
        settings.fill("hex.warm_epoch", hex_.warm_up(), f"default of {hex_.policy}")
    for name in ("tensorboard", "wandb") if values.get("logger") is not None else ():
        settings.put(f"{name}.enabled", name in values["logger"], "logger")
    if "optimizer" in values:
        optimizer = settings.values["optimizer"]
        for name, default in _OPTIMIZER_KWARGS.get(optimizer["name"], {}).items():
            if name not in optimizer["kwargs"]:
                settings.put(f"optimizer.kwargs.{name}", copy.copy(default), f"default of {optimizer['name']}")
        _learning_rate(settings)
    if spec.downloads and spec.layout is None and spec.name != "cifar10c":
        # Both splits lie in one folder. After the learning rates, which depend on whether a path was written down.
        settings.fill("data.val_path", values["data"]["train_path"], "data.train_path")
    return settings.values, settings.origins


def keeps_classifier_lr(values: Mapping[str, Any]) -> bool:
    """Whether solo-learn's rule leaves `classifier_lr` unscaled, see `_NEEDS_VAL_PATH`."""
    return values["data"]["dataset"] in _NEEDS_VAL_PATH and values["data"]["val_path"] is None


def _classes(settings: _Settings, spec: DatasetSpec, found: DatasetSpec) -> None:
    data = settings.values["data"]
    written = data["num_classes"]
    if found.num_classes is not None and found.source != spec.source:
        if written not in (None, found.num_classes):  # it belongs to other folders
            raise UserError(
                f"data.num_classes={written}, but {data['train_path']} has {found.num_classes} classes; take "
                "data.num_classes out, or set data.levels=flat if only the first folders are classes"
            )
        settings.put("data.num_classes", found.num_classes, "classes of data.train_path")
    elif found.num_classes is not None:
        settings.put("data.num_classes", found.num_classes, f"data set {spec.name}")
    elif data.get("no_labels"):
        settings.fill("data.num_classes", 1, "derived")
    elif data["num_classes"] is None and data["format"] != "hf":  # known when it has been fetched
        settings.put("data.num_classes", count_classes(spec, data["train_path"]), "folders of data.train_path")


def _images(settings: _Settings, spec: DatasetSpec) -> None:
    """Size and statistics: the config's, else (own images) the first pipeline's, else the data set's."""
    first = settings.values["augmentations"][0]
    if spec.num_classes is None:
        for name, value in (("image_size", first["crop_size"]), ("mean", first["mean"]), ("std", first["std"])):
            settings.fill(f"data.{name}", value, f"augmentations[0].{name.replace('image', 'crop')}")
    origin = f"data set {spec.name}"
    settings.fill("data.image_size", spec.size, origin)
    settings.fill("data.channels", spec.channels, origin)
    channels = settings.values["data"]["channels"]
    for name in ("mean", "std"):
        value = list(getattr(spec, name))
        if len(value) not in (1, channels):  # of colours, for images of another kind: the same for all channels
            value = [round(sum(value) / len(value), 4)]
        settings.fill(f"data.{name}", value, origin)


def _crops(settings: _Settings) -> None:
    data, entries = settings.values["data"], settings.values["augmentations"]
    for i, entry in enumerate(entries):
        for name, source in (("crop_size", "image_size"), ("mean", "mean"), ("std", "std")):
            if entry[name] is None:
                entry[name] = copy.copy(data[source])
                settings.origins[f"augmentations[{i}].{name}"] = f"data.{source}"
    large = sum(entry["num_crops"] for entry in entries if entry["crop_size"] == entries[0]["crop_size"])
    settings.put("data.num_large_crops", large, "derived")
    settings.put("data.num_small_crops", sum(entry["num_crops"] for entry in entries) - large, "derived")


def _learning_rate(settings: _Settings) -> None:
    """`lr` x global batch / 256, once: `optimizer.lr_scaled` remembers."""
    optimizer = settings.values["optimizer"]
    names = ["lr"]
    if "classifier_lr" in optimizer:
        settings.fill("optimizer.classifier_lr", optimizer["lr"], "optimizer.lr")
        names += [] if keeps_classifier_lr(settings.values) else ["classifier_lr"]
    if optimizer["lr_scaled"]:
        return
    batch = global_batch(settings.values)
    for name in names:
        scaled = optimizer[name] * batch / BASE_BATCH
        settings.put(f"optimizer.{name}", scaled, f"x global batch {batch} / {BASE_BATCH}")
    settings.put("optimizer.lr_scaled", True, "derived")
