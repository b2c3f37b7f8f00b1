"""From a command line to a plain config: its words, the recipe that they name, and the run that it starts from.

A value is what Hydra's grammar makes of a word; what that can't read is text, and a key that holds a path or a name
takes everything behind the first `=` as it stands.
"""

import functools
import itertools
import os
import re
import types
import typing
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Union

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo.args.config import to_plain
from solo.args.eval_schema import FeatureCfg
from solo.args.fields import Problem, keys_of, walk
from solo.args.origins import COMMAND_LINE, Origins, display, refuse_resolvers
from solo.args.recipes import OF_THE_IMAGES, gather
from solo.data.catalogue.registry import DATASETS, validation_path
from solo.errors import ConfigError, reason

MOST_JOBS = 1000  # of a sweep; more are a slip
_FORM = re.compile(r"(?P<sign>\+{0,2}|~)(?P<key>[^\s=~+.@][^\s=]*)=(?P<value>.*)", re.DOTALL)


class LineParser(ArgumentParser):
    """A parser of argparse whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, a `ConfigError`."""
        raise ConfigError(f"command line: {message}; see --help")


class Word(NamedTuple):
    """One word that sets or removes something."""

    line: str  # as it was typed
    key: str  # dotted, or with slashes for a group of files
    value: Any  # plain; `None` if the key is removed
    removes: bool  # whether it takes something out


def read_word(word: str, schema: type | None = None) -> Word:
    """Read a word as the shell gave it, text where the schema says so; a `ConfigError`: not one key and one value."""
    form = _FORM.fullmatch(word)
    if form is None:
        if re.fullmatch(r"~[^\s=~+]+", word):
            return Word(word, word[1:], None, True)
        raise ConfigError(f"command line: {word!r} is not key=value; see --help")
    key, value, removes = form["key"], form["value"], form["sign"] == "~"
    kinds, override = _kinds(schema, key), _parsed(word)
    if override is None or override.is_sweep_override():
        if override is not None and str not in kinds:
            advice = "write a list as key=[a,b], quote a text: 'a,b', and start several runs with -m"
            raise ConfigError(f"command line: {word!r} has several values; {advice}")
        return Word(word, key, literal(value), removes)
    plain = override.value()
    if kinds == {str} and not isinstance(override._value, QuotedString) and plain is not None:
        plain = value
    return Word(word, override.key_or_group, plain, removes)


def as_word(key: str, value: Any) -> str:
    """The word that sets a key to a value; `read_word` reads it."""
    if isinstance(value, str):
        plain = _parsed(f"{key}={value}")
        if plain is None or (not plain.is_sweep_override() and plain._value == value and "${" not in value):
            return f"{key}={value}"
    return f"{key}={_as_text(value)}"


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower() if value is not None else "null"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_as_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_as_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, (int, float)):
        return repr(value)
    return str(QuotedString(literal(str(value)), Quote.single).with_quotes())


def literal(text: str) -> str:
    """A text in which OmegaConf finds nothing to fill in."""
    return text.replace("${", "\\${")


def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


@functools.cache
def _kinds(schema: type | None, key: str) -> set[Any]:
    """What a key may hold, besides null; nothing where it is none."""
    kind = next((found.type for name, found in walk(schema) if name == key), None) if schema else None
    union = typing.get_origin(kind) in (Union, types.UnionType)
    return {*(typing.get_args(kind) if union else [kind])} - {type(None), None}


class Sweep(NamedTuple):
    """What `--multirun` comes to: the overrides of each run, and what a run has for itself, for messages."""

    jobs: list[list[str]]
    differing: list[list[str]]


def expand(words: Sequence[str]) -> Sweep:
    """Read overrides in Hydra's grammar: `a=1,2`, `a=choice(1,2)`, `a=range(0,10,5)`; the last word varies fastest.

    Raises a `ConfigError` for a word that is none, or nothing or too much to sweep.
    """
    if hydras := [word for word in words if word.lstrip("+~").startswith("hydra")]:
        raise ConfigError(f"command line: {hydras[0]!r} does nothing here: runs go to checkpoint.dir; leave it out")
    choices = [_choices(word) for word in words]
    if not any(len(several) > 1 for several in choices):
        raise ConfigError("--multirun needs a word with several values, such as seed=1,2,3; or leave --multirun out")
    jobs = [list(job) for job in itertools.islice(itertools.product(*choices), MOST_JOBS + 1)]
    if len(jobs) > MOST_JOBS:
        raise ConfigError(f"--multirun: these words make more than {MOST_JOBS} runs; give fewer values")
    return Sweep(jobs, [[word for word, some in zip(job, choices, strict=True) if len(some) > 1] for job in jobs])


def _choices(word: str) -> list[str]:
    """The words of a sweep, with one value each; or the word itself."""
    override = _parsed(word) if _FORM.fullmatch(word) else None
    if override is None or not override.is_sweep_override():
        return [read_word(word).line]
    if not override.is_discrete_sweep() or (override.is_choice_sweep() and "glob(" in word):
        raise ConfigError(f"command line: {word!r} can't be listed; give the values, as in key=1,2,3")
    several = itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1)
    return [f"{word.partition('=')[0]}={one}" for one in several]


def compose(recipe: Path | None, words: Sequence[str], schema: type | None = None) -> tuple[dict[str, Any], Origins]:
    """Compose a recipe with the words of a command line; `key=value` also works for keys that the files don't have.

    Without a recipe the words are alone. Returns the config as written, and the place of each key. Raises a
    `ConfigError` for anything that YAML, OmegaConf or Hydra refuses, in one line.
    """
    read = [read_word(word, schema) for word in words]
    origins = Origins({"": display(recipe) if recipe else COMMAND_LINE})
    chooses = [word for word in read if recipe and _chooses(word, recipe)]
    values = _files(recipe, chooses, origins) if recipe else OmegaConf.create()
    for word in (word for word in read if word not in chooses):
        if word.removes:
            section, _, last = word.key.rpartition(".")
            around = OmegaConf.select(values, section) if section else values
            if not isinstance(around, DictConfig) or last not in list(around.keys()):
                raise ConfigError(f"command line: {word.line!r} takes out a key that isn't there")
            del around[last]
            origins.remove(word.key)
            continue
        if "${" in str(word.value).replace("\\${", ""):
            refuse_resolvers(OmegaConf.create({word.key: word.value}), COMMAND_LINE)
        try:
            if re.search(r"\.-\d", word.key):
                raise IndexError
            OmegaConf.update(values, word.key, word.value, merge=True, force_add=True)
        except (OmegaConfBaseException, AttributeError, TypeError, ValueError, IndexError) as error:
            lacks = isinstance(error, (IndexError, ValueError))
            text = "a list has no such entry; 0 is the first" if lacks else reason(error)
            raise ConfigError(f"command line: {word.key}: {text}") from error
        origins.add_override(word.key, word.value)
    try:
        return to_plain(values), origins
    except RecursionError as error:
        raise ConfigError(f"{origins['']}: values refer to each other in a circle") from error


def _chooses(word: Word, recipe: Path) -> bool:
    """Whether a word is about files, as in `augmentations=symmetric`, or about Hydra."""
    group = "/" in word.key or any((folder / word.key).is_dir() for folder in (recipe.parent, recipe.parent.parent))
    return word.key.startswith("hydra") or (group and (word.removes or isinstance(word.value, str)))


def _files(recipe: Path, words: Sequence[Word], origins: Origins) -> DictConfig:
    """What a recipe's files say, with the files that words choose; a word that is about Hydra does nothing."""
    chosen, added = {}, []
    for word in words:
        if word.key == "hydra" and not isinstance(word.value, (str, list)):
            raise ConfigError(f"command line: {word.line!r} names no file of a group; leave it out")
        if word.line.startswith("+"):
            added.append({word.key: word.value})
        elif not word.key.startswith("hydra"):
            chosen[word.key] = [] if word.removes else [word.value]
    parts, values = gather(recipe, chosen, added), OmegaConf.create()
    for section, part in parts:
        content = part.values
        for name in reversed(section.split(".") if section else ()):
            content = {name: content}
        if not isinstance(content, dict):
            raise ConfigError(f"{display(part.source)}: it is a list; a recipe has lines of the form key: value")
        try:
            values.merge_with(content)
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            raise ConfigError(f"{display(recipe)}: {reason(error)}") from error
        origins.add_part(part, section)
    made = {part.source: part.made_of for _, part in reversed(parts) if part.made_of}
    origins.notes = [f"{display(file)} isn't there; composed of {', '.join(paths)}" for file, paths in made.items()]
    refuse_resolvers(values, display(recipe))
    # A data set's kwargs are those of its own network: they go where a later file takes another one, as a ViT.
    kwargs = OmegaConf.select(values, "backbone.kwargs") or {}
    for key in [] if "/data.yaml:" in origins.place("backbone.name") else list(kwargs):
        if "/data.yaml:" in origins.place(f"backbone.kwargs.{key}"):
            del kwargs[key]
            origins.remove(f"backbone.kwargs.{key}")
    return values


SOURCES = ("pretrained_feature_extractor", "model", "features")
CHECKPOINTS = (".ckpt", ".pth", ".pt")
_FEATURE_FILES = (".npz", ".safetensors")
_RUN = "the checkpoint's run"
_SHOWN = "checkpoint=PATH, model=timm/NAME or features=FILE"
_OF_THE_RUN: tuple[str, ...] = ("dataset", *OF_THE_IMAGES, "on_error", "no_labels", "unseen_classes", "split_seed")
_OF_THE_RUN += ("unknown_classes", "max_pixels")


def source_word(places: Sequence[str], schema: type) -> str | None:
    """The word that names the source, if all places are checkpoints or folders of runs, or a file of features."""
    if not places:
        return None
    for path in (Path(place).expanduser() for place in places):
        made_here = (path / "args.json").is_file() and not (path / "data.yaml").exists()
        run = os.path.isdir(path) and (made_here or any(path.glob("*.ckpt")))
        if not run and not (os.path.isfile(path) and path.suffix in (*CHECKPOINTS, *_FEATURE_FILES)):
            return None
    if Path(places[0]).suffix in _FEATURE_FILES and issubclass(schema, FeatureCfg) and len(places) == 1:
        return as_word(SOURCES[2], places[0])
    return as_word(SOURCES[0], places[0] if len(places) == 1 else list(places))


def take_over(values: dict[str, Any], origins: Origins, run: Mapping[str, Any]) -> None:
    """Give a recipe, in place, the images of a run, of section `data`, where the command line has no others."""
    data = values.get("data")
    if not isinstance(data, dict):
        return  # the check says so
    for name in OF_THE_IMAGES:
        if run.get(name) is not None and origins.get(f"data.{name}") != COMMAND_LINE:
            data[name], origins[f"data.{name}"] = run[name], _RUN


def complete(
    values: dict[str, Any], origins: Origins, schema: type, saved_data: Callable[[str], Mapping[str, Any]]
) -> list[str]:
    """Fill in, in place, what the source and its run's `saved_data` say of the data; what may surprise is returned."""
    if isinstance(values.get("checkpoint"), (str, list)):  # in a file; `checkpoint` is a section otherwise
        values[SOURCES[0]] = values.pop("checkpoint")
    data, paths = values.setdefault("data", {}), values.get(SOURCES[0])
    path = paths[0] if isinstance(paths, list) and paths else paths
    if not isinstance(data, dict):
        return []  # the check says so
    known = keys_of(typing.cast(type, keys_of(schema)["data"].section))
    if isinstance(path, str) and Path(path).expanduser().exists() and data.get("dataset") is None:
        saved = saved_data(path)
        for name in _OF_THE_RUN:
            if name in known and data.get(name) is None and saved.get(name) is not None:
                data[name], origins[f"data.{name}"] = saved[name], _RUN
    spec = DATASETS.get(str(data.get("dataset")))
    if spec is None or not spec.folders or "val_only" not in known:
        return []
    train, val = data.get("train_path"), data.get("val_path")
    if origins.get("data.train_path") == _RUN and not val and not validation_path(spec, train):
        data |= {"val_only": True, "val_path": train}
        origins["data.val_only"] = origins["data.val_path"] = _RUN
        return ["the run names no other images: these are those it was trained on; data.val_path=FOLDER: others"]
    if val and not train:
        data |= {"val_only": True, "train_path": val}
        origins["data.val_only"] = origins["data.train_path"] = "data.val_path"
    return []


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
