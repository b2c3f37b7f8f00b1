"""From a command line to a plain config: finds the recipe, lets Hydra compose it, remembers where each value came from.

Hydra's compose API is used, so that nothing is logged, no folder is made, and both forms of naming a recipe work from
any working directory.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import solo
from solo.args.config import to_plain
from solo.args.harmless import check_files, refuse_resolvers
from solo.args.origins import COMMAND_LINE, Origins, display
from solo.args.parse import one_line
from solo.errors import ConfigError, did_you_mean

_HYDRA_VERSION = "1.2"  # whose rules solo-learn's files are written for


@dataclass(frozen=True)
class Recipe:
    """A YAML file: the folder that Hydra searches first, and the file's name in it."""

    folder: Path
    name: str

    @property
    def shown(self) -> str:
        """Its path, for messages."""
        return display(self.folder / self.name)


def find_recipe(places: Sequence[str]) -> Recipe:
    """The recipe for `FOLDER FILE` or `FOLDER/FILE`.

    A relative folder is looked up in the working directory, then beside `main_pretrain.py`.

    Raises:
        ConfigError: if there is no such folder or file; names similar files.
    """
    if not places:
        raise ConfigError("no recipe is named; give its folder and file, for example scripts/pretrain/digits hex.yaml")
    bases = [Path.cwd(), Path(solo.__file__).parents[1]]
    if len(places) == 1 and any((base / places[0]).is_dir() for base in bases):
        places = [places[0], ""]
    elif len(places) == 1:
        places = [str(Path(places[0]).parent), Path(places[0]).name]
    folders = [folder for folder in (base / Path(places[0]).expanduser() for base in bases) if folder.is_dir()]
    if not folders:
        raise ConfigError(f"the folder {places[0]!r} doesn't exist, neither here nor in {display(bases[1])}")
    name = places[1] if Path(places[1]).suffix in (".yaml", ".yml") else f"{places[1]}.yaml"
    for folder in folders:
        if (folder / name).is_file():
            if name.endswith(".yml"):
                raise ConfigError(f"{places[0]}/{name}: Hydra reads .yaml files only; rename it")
            return Recipe(folder.resolve(), name)
    raise ConfigError(_no_file(places[0], places[1] and name, folders[0]))


def _no_file(folder: str, name: str, path: Path) -> str:
    files = sorted(file.name for file in path.glob("*.yaml"))
    there = f"choose {', '.join(files)}" if files else "it holds no .yaml file"
    if not name:
        return f"{folder!r} is a folder; name a file in it as well: {there}"
    return f"{folder!r} has no file {name!r}; {did_you_mean(name, files)}{there}"


def compose(recipe: Recipe, words: Sequence[str]) -> tuple[dict[str, Any], Origins]:
    """Compose a recipe with overrides in Hydra's grammar; `key=value` also works for keys that the files don't have.

    Returns:
        The config as written, and the place of each key.

    Raises:
        ConfigError: for anything that YAML, OmegaConf or Hydra refuses, in one line.
    """
    overrides = [_parse_word(word) for word in words]
    # Where a folder of files has the key's name, Hydra takes every value for a file; these are put in afterwards.
    late = [o for o in overrides if _names_folder(o, recipe) and not isinstance(o.value(), str)]
    groups = {o.key_or_group for o in overrides if _names_folder(o, recipe) and o not in late}
    check_files(
        recipe.folder / recipe.name,
        [recipe.folder, recipe.folder.parent],
        {o.key_or_group: str(o.value()) for o in overrides if o.key_or_group in groups},
    )
    final = [_searchpath(recipe), *(_may_add(o, groups) for o in overrides if o not in late)]
    values, defaults = _call_hydra(recipe, final)
    values |= {o.key_or_group: o.value() for o in late}
    origins = Origins({"": recipe.shown})
    for default in defaults:
        file = _file_of(default.config_path, recipe)
        if file is not None:
            origins.add_file(file, default.package or "")
    for override in overrides:
        if override.key_or_group not in groups:
            origins.add_override(override.key_or_group, override.value())
    return values, origins


def compose_words(words: Sequence[str]) -> tuple[dict[str, Any], Origins]:
    """A config of overrides alone, for commands that need no recipe.

    Raises:
        ConfigError: a word is not `key=value`.
    """
    values, origins = OmegaConf.create(), Origins({"": COMMAND_LINE})
    for override in map(_parse_word, words):
        if override.type not in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD):
            raise ConfigError(f"command line: {override.input_line!r} takes a key out, and no recipe is named")
        key = override.key_or_group
        try:
            OmegaConf.update(values, key, override.value(), merge=True, force_add=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"command line: {key}: {one_line(error)}") from error
        origins.add_override(key, override.value())
    refuse_resolvers(values, COMMAND_LINE)
    return to_plain(values), origins


def _call_hydra(recipe: Recipe, overrides: list[str]) -> tuple[dict[str, Any], list[ResultDefault]]:
    """The composed values, and the files they came from in the order in which they replace each other."""
    try:
        with initialize_config_dir(str(recipe.folder), version_base=_HYDRA_VERSION), warnings.catch_warnings():
            warnings.filterwarnings("error", ".*missing `_self_`.*", UserWarning)
            loader = GlobalHydra.instance().config_loader()
            composed = hydra_compose(recipe.name, overrides=overrides)
            refuse_resolvers(composed, recipe.shown)
            values = to_plain(composed)
            return values, list(loader.compute_defaults_list(recipe.name, overrides, RunMode.RUN).defaults)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{display(Path(mark.name))}:{mark.line + 1}" if mark else recipe.shown
        tag = re.search(r"'tag:yaml.org,2002:(python/[^']*)'", str(error.problem))
        if tag:
            advice = "files can't make Python objects or run code; give plain values"
            raise ConfigError(f"{place}: the tag !!{tag[1]} is refused: {advice}") from error
        raise ConfigError(f"{place}: this is no YAML: {error.problem}") from error
    except UserWarning as error:
        advice = "put it last, so that the file's own values win"
        raise ConfigError(f"{recipe.shown}: {one_line(error)} {advice}") from error
    except RecursionError as error:
        raise ConfigError(f"{recipe.shown}: defaults lists include each other in a circle") from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        text = one_line(error) or "Hydra can't read it; give keys that are texts and values that are plain"
        raise ConfigError(f"{recipe.shown}: {text}") from error


def _parse_word(word: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"command line: {word!r} is not key=value: {one_line(error)}") from error
    if override.is_sweep_override():
        raise ConfigError(f"command line: {word!r} has several values; write a list as key=[a,b], quote a text: 'a,b'")
    return override


def _searchpath(recipe: Recipe) -> str:
    """Lets recipes share files: what isn't beside them is looked up one folder above."""
    parent = re.sub(r"(['\\])", r"\\\1", str(recipe.folder.parent))
    return f"hydra.searchpath=['file://{parent}']"


def _names_folder(override: Override, recipe: Recipe) -> bool:
    """Whether the word may choose a file, as in `augmentations=symmetric`."""
    name = override.key_or_group
    return "/" in name or (recipe.folder / name).is_dir() or (recipe.folder.parent / name).is_dir()


def _may_add(override: Override, groups: set[str]) -> str:
    """Hydra wants `++` for new keys; the schema finds misspelt ones better, so every value may be new."""
    word = str(override.input_line)
    name = override.key_or_group
    if override.type != OverrideType.CHANGE or name in groups or name.startswith("hydra."):
        return word
    return f"++{word}"


def _file_of(config_path: str | None, recipe: Recipe) -> Path | None:
    if config_path is None or config_path.startswith("hydra/"):
        return None
    name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
    files = (recipe.folder / name, recipe.folder.parent / name)
    return next((file for file in files if file.is_file()), None)
