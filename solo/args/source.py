"""Where the features of an offline command come from: a checkpoint, a published model, or a file."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.args.check import Problem
from solo.args.eval_schema import FeatureCfg
from solo.args.fields import keys_of
from solo.args.origins import COMMAND_LINE, Origins
from solo.args.words import as_word
from solo.data.catalogue.registry import DATASETS, validation_path

SOURCES = ("pretrained_feature_extractor", "model", "features")
_SHORT = "checkpoint"
CHECKPOINTS = (".ckpt", ".pth", ".pt")
_FEATURE_FILES = (".npz", ".safetensors")
_RUN = "the checkpoint's run"
_SHOWN = "checkpoint=PATH, model=timm/NAME or features=FILE"
# What evaluation takes over from the run that made a checkpoint; size and statistics come with the network.
OF_THE_IMAGES = ("train_path", "val_path", "format", "levels", "taxonomy", "path_column", "label_columns")
_OF_THE_RUN: tuple[str, ...] = ("dataset", *OF_THE_IMAGES, "on_error", "no_labels", "unseen_classes", "split_seed")
_OF_THE_RUN += ("unknown_classes", "max_pixels")


def source_word(places: Sequence[str], schema: type) -> str | None:
    """The word that names the source, if all places are checkpoints or folders of runs, or a file of features."""
    if not places:
        return None
    for path in (Path(place).expanduser() for place in places):
        run = any(path.glob("*.ckpt")) or ((path / "args.json").is_file() and not any(path.glob("data.yaml")))
        if not (
            run if os.path.isdir(path) else os.path.isfile(path) and path.suffix in (*CHECKPOINTS, *_FEATURE_FILES)
        ):
            return None
    if Path(places[0]).suffix in _FEATURE_FILES and issubclass(schema, FeatureCfg) and len(places) == 1:
        return as_word(SOURCES[2], places[0])
    return as_word(SOURCES[0], places[0] if len(places) == 1 else list(places))


def take_over(values: dict[str, Any], origins: Origins, run: Mapping[str, Any]) -> None:
    """Give a recipe, in place, the images of a run, of section `data`, where the command line has no others."""
    for name in OF_THE_IMAGES:
        if run.get(name) is not None and origins.get(f"data.{name}") != COMMAND_LINE:
            values["data"][name], origins[f"data.{name}"] = run[name], _RUN


def complete(
    values: dict[str, Any], origins: Origins, schema: type, saved_data: Callable[[str], Mapping[str, Any]]
) -> list[str]:
    """Fill in, in place, what the source says of the data; what may surprise is returned, a line each.

    `saved_data` gives the section `data` of the run that made a checkpoint, empty if it has none.
    """
    if isinstance(values.get(_SHORT), (str, list)):  # in a file; `checkpoint` is a section otherwise
        values[SOURCES[0]] = values.pop(_SHORT)
    data = values.setdefault("data", {})
    paths = values.get(SOURCES[0])
    path = paths[0] if isinstance(paths, list) and paths else paths
    if not isinstance(data, dict):
        return []  # the check says so
    if isinstance(path, str) and Path(path).expanduser().exists() and data.get("dataset") is None:
        saved, known = saved_data(path), _data_keys(schema)
        for name in _OF_THE_RUN:
            if name in known and data.get(name) is None and saved.get(name) is not None:
                data[name], origins[f"data.{name}"] = saved[name], _RUN
    spec, told = DATASETS.get(str(data.get("dataset"))), list[str]()
    trained = origins.get("data.train_path") == _RUN and not data.get("val_path") and "val_only" in _data_keys(schema)
    if trained and spec is not None and spec.folders and not validation_path(spec, data["train_path"]):
        data |= {"val_only": True, "val_path": data["train_path"]}
        origins["data.val_only"] = origins["data.val_path"] = _RUN
        told.append("the run names no other images: these are those it was trained on; data.val_path=FOLDER: others")
    alone = spec is not None and spec.folders and data.get("val_path") and not data.get("train_path")
    if alone and "val_only" in _data_keys(schema):
        data |= {"val_only": True, "train_path": data["val_path"]}
        origins["data.val_only"] = origins["data.train_path"] = "data.val_path"
    return told


def _data_keys(schema: type) -> set[str]:
    section = keys_of(schema)["data"].section
    return set(keys_of(section)) if section else set()


def check_source(values: Mapping[str, Any]) -> Iterator[Problem]:
    """No source, several, or one without a data set."""
    if "features" not in values:
        return
    given = [name for name in SOURCES if values[name]]
    if not given:
        yield SOURCES[0], f" is missing; give {_SHOWN}"
    elif len(given) > 1:
        yield given[1], f" and {given[0]} are both given; take one of {_SHOWN}"
    if given == ["features"]:
        if values["data"]["dataset"] is not None:
            yield "data.dataset", " has no place beside features=FILE, which has its own labels; leave it out"
    elif given and values["data"]["dataset"] is None:
        what = "the checkpoint doesn't name it" if given == [SOURCES[0]] else "a published model has none"
        yield "data.dataset", f" is missing ({what}); give data.dataset=NAME, or custom and data.val_path=FOLDER"
