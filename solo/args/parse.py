"""The way of a config, whoever calls: older names -> `check` -> what goes together -> `resolve`.

`resolve` finds what follows from the data set and the machine: classes, image size, crops, scaled learning rates. Every
value found is written back, so that a run's own config says all of it; to resolve it again changes nothing.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from solo.args.check_method import check_labels_of_method, check_method, count_views, unread_keys
from solo.args.check_run import check_files, check_levels, check_run, obtain_all, spec_of, to_fetch
from solo.args.config import check_outside, freeze
from solo.args.fields import ParseError, Problem, check, declarations, get, keys_of, walk
from solo.args.origins import COMMAND_LINE, Origins
from solo.compat.keys import Modern, modernise
from solo.cores import usable_cores
from solo.data.catalogue.registry import count_classes, get_spec, resolve_spec, unseen_classes, validation_path
from solo.data.catalogue.rows import SMALL, DatasetSpec
from solo.errors import UserError
from solo.hex.catalogue import policy_facts
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


def count_devices(devices: int | str | Sequence[int], accelerator: str) -> int:
    """How many processes a node will run; torch is imported only where the machine has to be asked.

    `devices` is a number, a list (`[0, 1]`), a text (`"2"`, `"0,1"`), or `"auto"` and -1 for all there are. A CPU
    counts as one device; there a list of n means n processes.
    """
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if isinstance(devices, str):
        devices = -1 if devices.strip() in ("auto", "-1") else int(devices)
    if not isinstance(devices, int):
        return len(devices)
    if devices >= 0:
        return devices
    if accelerator == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


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
        place, _, last = dotted.rpartition(".")
        section = get(self.values, place) if place else self.values
        if last not in section or section[last] != value:
            section[last] = value
            self.origins[dotted] = origin

    def fill(self, dotted: str, value: Any, origin: str) -> None:
        if get(self.values, dotted) is None:
            self.put(dotted, value, origin)


def resolve(values: Mapping[str, Any], found: DatasetSpec) -> tuple[dict[str, Any], dict[str, str]]:
    """A copy with what is null and can be known, by the data set as it was found, and what each new value is from."""
    settings, spec = _Settings(values), get_spec(found.name)
    pretraining = "method" in values
    what = values["method"] if pretraining else "evaluate" if "features" in values else "linear"
    settings.fill("name", f"{what}-{values['data']['dataset']}", "derived")
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
        if found.reading.range is not None:
            settings.fill("data.range", list(found.reading.range), "found in a sample of data.train_path")
        _images(settings, spec)
        policy = values["hex"]["policy"]
        settings.fill("hex.warm_epoch", policy_facts(policy).warm_up, f"default of {policy}")
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
    data, own = settings.values["data"], found.source != spec.source
    if found.num_classes is not None:
        written = data["num_classes"]
        if own and written not in (None, found.num_classes):  # it belongs to other folders
            raise UserError(
                f"data.num_classes={written}, but {data['train_path']} has {found.num_classes} classes; take "
                "data.num_classes out, or set data.levels=flat if only the first folders are classes"
            )
        origin = "classes of data.train_path" if own else f"data set {spec.name}"
        settings.put("data.num_classes", found.num_classes, origin)
    elif data.get("no_labels"):
        settings.fill("data.num_classes", 1, "derived")
    elif data["num_classes"] is None and data["format"] != "hf":  # known when it has been fetched
        settings.put("data.num_classes", count_classes(spec, data["train_path"]), "folders of data.train_path")


def _images(settings: _Settings, spec: DatasetSpec) -> None:
    """Size and statistics: the config's, else (own images) the first pipeline's, else the data set's; and of views."""
    data, entries = settings.values["data"], settings.values["augmentations"]
    first, pairs = entries[0], (("crop_size", "image_size"), ("mean", "mean"), ("std", "std"))
    if spec.num_classes is None:
        for name, source in pairs:
            settings.fill(f"data.{source}", first[name], f"augmentations[0].{name}")
    origin = f"data set {spec.name}"
    settings.fill("data.image_size", spec.size, origin)
    settings.fill("data.channels", spec.channels, origin)
    for name in ("mean", "std"):
        value = list(getattr(spec, name))
        if len(value) not in (1, data["channels"]):  # of colours, for images of another kind: the same for all channels
            value = [round(sum(value) / len(value), 4)]
        settings.fill(f"data.{name}", value, origin)
    for i, entry in enumerate(entries):
        for name, source in pairs:
            if entry[name] is None:
                entry[name] = copy.copy(data[source])
                settings.origins[f"augmentations[{i}].{name}"] = f"data.{source}"
    large = sum(entry["num_crops"] for entry in entries if entry["crop_size"] == first["crop_size"])
    settings.put("data.num_large_crops", large, "derived")
    settings.put("data.num_small_crops", sum(entry["num_crops"] for entry in entries) - large, "derived")


def _learning_rate(settings: _Settings) -> None:
    """`lr` x global batch / 256, once: `optimizer.lr_scaled` remembers."""
    optimizer, names = settings.values["optimizer"], ["lr"]
    if "classifier_lr" in optimizer:
        settings.fill("optimizer.classifier_lr", optimizer["lr"], "optimizer.lr")
        names += [] if keeps_classifier_lr(settings.values) else ["classifier_lr"]
    if optimizer["lr_scaled"]:
        return
    batch = global_batch(settings.values)
    for name in names:
        how = f"x global batch {batch} / {BASE_BATCH}"
        settings.put(f"optimizer.{name}", optimizer[name] * batch / BASE_BATCH, how)
    settings.put("optimizer.lr_scaled", True, "derived")


@dataclass(frozen=True)
class Parsed:
    """A config that can run."""

    values: dict[str, Any]  # plain dicts and lists, complete and resolved
    config: Any  # the same as a frozen instance of the schema, with the resolved data set: what a run reads
    origins: dict[str, str]  # key -> where its value came from; keys that aren't there hold the schema's default
    notes: list[str]  # one-line remarks for the user
    # what the run has to call first, where its data aren't on this machine: fetches them, and gives the config that
    # knows them; `None` where they are here
    fetch: Callable[[], Parsed] | None = None
    own: Mapping[str, Any] = field(default_factory=dict)  # dotted keys of a program's own config that no schema has


def parse(
    values: Mapping[str, Any],
    schema: type,
    origins: Mapping[str, str] | None = None,
    for_run: bool = False,
    from_code: bool = False,
    fetch: bool = False,
) -> Parsed:
    """From what the user wrote to what a run reads; looks at the disk, and touches no network.

    `origins` has the place of each key as written, for messages; that of `""` is the whole config's. `for_run` also
    looks whether folders and files are there. In a program's own config (`from_code`) what the program may have added
    (a method, an optimizer, ...) or may still add (a checkpoint, method_kwargs) is the program's to check. `fetch` gets
    what is not on this machine first. Raises a `ParseError` with all problems, one a line.
    """
    places = Origins(origins or {})
    modern = modernise(values, own={*keys_of(schema), *(name for name, _ in walk(schema))})
    places.spelled = modern.spelled

    def typed(key: str) -> bool:
        return places.of(places.spelled.get(key, key)) == COMMAND_LINE

    declared = -1
    while declared != declarations():  # a plug-in that was imported just now has keys of its own
        declared, own = declarations(), dict[str, Any]() if from_code else None
        checked, problems = check(modern.values, schema, own=own)
        problems += check_outside(checked, None if origins is None else typed)
    problems = [*modern.problems, *problems, *check_method(checked, own), *check_run(checked)]
    if from_code:  # what models and programs ask for themselves, after parsing
        late = ("method_kwargs.", "pretrained_feature_extractor")
        problems = [
            found for found in problems if not (found[0].startswith(late) and found[1].startswith(" is missing"))
        ]
    absent: list[str | None] = []
    with contextlib.suppress(UserError):  # it can't be fetched, which `check_folders` says
        absent = [] if problems else to_fetch(checked)
    if fetch and absent and for_run:
        obtain_all(checked, absent)
        absent = []
    spec, wrong = None, None
    try:  # of a data set that nobody knows nothing is to be said here
        spec = resolve_spec(checked["data"], fetch) if spec_of(checked) else None
    except UserError as error:
        wrong = _data_problem(error)
    known = spec if not absent or (spec and spec.taxonomy) else None  # what isn't here has no levels yet
    if not problems:
        problems += check_labels_of_method(checked, known)
    problems += check_levels(checked, known)
    idle = list(unread_keys(checked, schema, typed))
    problems += [problem for typed, problem in idle if typed]
    if for_run:
        problems += [*check_files(checked), *count_views(checked)]
    features = bool(checked.get("features"))  # a file with everything in it
    if not problems and not features and wrong:
        problems = [wrong]
    if problems or (spec is None and not features):
        raise ParseError(places.text(problems))
    notes = [places.line(note) for note in modern.notes]
    resolved, derived = {**checked, "name": checked["name"] or "features"}, dict[str, str]()
    if spec is not None:
        try:
            resolved, derived = resolve(checked, spec)
        except UserError as error:  # classes can't be counted
            raise ParseError(places.line(_data_problem(error))) from error
        notes += [*(places.line(problem) for _, problem in idle), *_notes(checked, resolved, spec)]
    again = None
    if absent and for_run:
        again = functools.partial(parse, values, schema, origins, for_run, from_code, fetch=True)
        where = ", ".join(place or "the package's folder" for place in absent)
        notes.append(f"data.dataset={checked['data']['dataset']} is not in {where}; the run begins by fetching it")
    data, facts = {**resolved["data"], "resolved": spec}, facts_of(resolved.get("method"))
    config: Any = freeze({**resolved, "data": data}, schema, facts.kwargs if facts else None)
    return Parsed(resolved, config, _origins(places, modern, derived), notes, again, own or {})


def _data_problem(error: UserError) -> Problem:
    named = re.match(r"data\.\w+", str(error))
    return (named[0], str(error)[named.end() :]) if named else ("data.train_path", f": {error}")


def _origins(places: Origins, modern: Modern, derived: Mapping[str, str]) -> dict[str, str]:
    """Places under today's keys; a derived value that has a place says both."""
    origins = {key: place for key, place in places.items() if key}
    for new, old in modern.spelled.items():
        if old in origins:
            origins[new] = f"{origins[old]} ({old})"
    for key, how in derived.items():
        written = places.of(key) if how.startswith("x ") else None
        origins[key] = f"{written}, {how}" if written else how
    return origins


def _notes(written: Mapping[str, Any], found: Mapping[str, Any], spec: DatasetSpec) -> Iterator[str]:
    """What the library has made of a config that was `written`, where that may be unexpected; `found` is resolved."""
    row = spec_of(written)
    seen = found if row and row.folders else written  # what is found beside own images counts as given
    given = {**written, "data": {**written["data"], "val_path": seen["data"]["val_path"]}}
    data = written["data"]
    tree = spec.taxonomy
    batch = global_batch(given) if "optimizer" in given else 0
    pretrains, size = "method" in written, found["data"].get("image_size")
    if pretrains and not given["optimizer"]["lr_scaled"] and keeps_classifier_lr(given) and batch != BASE_BATCH:
        yield f"optimizer.classifier_lr is not scaled to the global batch of {batch}: data.val_path is not set"
    if data["levels"] is None and tree is not None and spec.nested:
        sizes = ", ".join(f"{name} ({len(nodes)})" for name, nodes in zip(tree.levels, tree.names, strict=True))
        yield f"data.train_path holds nested folders, read as a label tree: {sizes}; data.levels=flat turns that off"
    yield from spec.notes
    side = spec.side
    if pretrains and side and size and size >= 1.5 * side:
        stem = " data.small_stem=true" if side <= SMALL and not spec.small_stem else ""
        what = f"the images of data.train_path have about {side} pixels a side and are enlarged to {size}"
        yield f"{what}; data.image_size={side}{stem} (and crop_size, where it is written down) trains faster, as well"
    if data["dataset"] == "custom" and data["val_path"] is None and found["data"]["val_path"]:
        yield f"data.val_path={found['data']['val_path']}, found beside data.train_path"
    schedule, epochs = found.get("scheduler") or {}, found.get("max_epochs")
    warm_up: float = schedule["warmup_epochs"] if schedule.get("name") == "warmup_cosine" else 0
    if epochs and 2 * warm_up > epochs:
        what = "never reaches optimizer.lr" if warm_up > epochs else "rises for most of the run"
        yield f"the learning rate {what}: {warm_up:g} warm-up epochs (scheduler.warmup_epochs), max_epochs={epochs}"
    if schedule.get("name") == "warmup_cosine" and schedule["min_lr"] > found["optimizer"]["lr"]:
        ends = f"scheduler.min_lr={schedule['min_lr']:g} is above optimizer.lr={found['optimizer']['lr']:g}"
        yield f"the learning rate goes up after the warm-up: {ends}, scaled to the global batch"
    if schedule.get("name") == "step":
        steps = schedule["lr_decay_steps"]
        if not steps or min(steps) >= epochs:
            yield f"the learning rate never changes: scheduler.lr_decay_steps={steps} and max_epochs={epochs}"
    settings = found.get("hex") or {"policy": "standard"}
    if policy_facts(settings["policy"]).path and settings["warm_epoch"] >= epochs:
        early = f"hex.warm_epoch={settings['warm_epoch']} is not below max_epochs={epochs}"
        yield f"HEX is never switched on: {early}, so the plain loss is trained"
