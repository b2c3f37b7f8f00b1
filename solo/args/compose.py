"""From a recipe and words to a plain config: Hydra composes the files, every value remembers where it came from.

Hydra's compose API is used, so that nothing is logged, no folder is made, and it works from any working directory.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo.args.config import to_plain
from solo.args.harmless import check_files, refuse_resolvers
from solo.args.made import Made
from solo.args.origins import COMMAND_LINE, Origins, display
from solo.args.parse import one_line
from solo.args.recipes import Recipe
from solo.args.words import read_word
from solo.errors import ConfigError

_HYDRA_VERSION = "1.2"  # whose rules solo-learn's files are written for


def compose(recipe: Recipe | None, words: Sequence[str], schema: type | None = None) -> tuple[dict[str, Any], Origins]:
    """Compose a recipe with the words of a command line; `key=value` also works for keys that the files don't have.

    Without a recipe the words are alone. Returns the config as written, and the place of each key. Raises a
    `ConfigError` for anything that YAML, OmegaConf or Hydra refuses, in one line.
    """
    read, for_hydra = [read_word(word, schema) for word in words], []
    search = recipe.search if recipe else []
    for word in read if recipe else ():  # about Hydra, or a choice of files, as in `augmentations=symmetric`
        group = "/" in word.key or any((folder / word.key).is_dir() for folder in search)
        if word.key.startswith("hydra") or (group and (word.removes or isinstance(word.value, str))):
            for_hydra.append(word)
    origins = Origins({"": recipe.shown if recipe else COMMAND_LINE})
    values = OmegaConf.create()
    if recipe:
        chosen = {word.key: word.value for word in for_hydra if isinstance(word.value, str)}
        named = [entry for made in recipe.made.values() for entry in made.defaults]
        check_files([recipe.name, *named], recipe.search, chosen)
        values, defaults = _call_hydra(recipe, [word.line for word in for_hydra])
        for default in defaults:
            name = default.config_path or ""
            files = (folder / f"{name.removesuffix('.yaml')}.yaml" for folder in search)
            file = next((file for file in files if file.is_file()), None)
            if file is not None and name and not name.startswith("hydra/"):
                origins.add_file(file, default.package or "")
            elif name in recipe.made:
                origins.add_places(recipe.made[name].places)
        _keep_to_the_network(values, origins)
    for word in read:
        if word in for_hydra:
            continue
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
            text = "a list has no such entry; 0 is the first" if lacks else one_line(error)
            raise ConfigError(f"command line: {word.key}: {text}") from error
        origins.add_override(word.key, word.value)
    try:
        return to_plain(values), origins
    except RecursionError as error:
        raise ConfigError(f"{origins['']}: values refer to each other in a circle") from error


def _keep_to_the_network(values: DictConfig, origins: Origins) -> None:
    """A data set's kwargs are those of its own network: they go where a later file takes another one, as a ViT."""
    home = "/data.yaml:"
    if home not in origins.place("backbone.name"):
        for key in list(OmegaConf.select(values, "backbone.kwargs") or ()):
            if home in origins.place(f"backbone.kwargs.{key}"):
                del values.backbone.kwargs[key]
                origins.remove(f"backbone.kwargs.{key}")


def _call_hydra(recipe: Recipe, overrides: list[str]) -> tuple[DictConfig, list[ResultDefault]]:
    """The composed values, and the files they came from in the order in which they replace each other."""
    first, *others = recipe.search
    name = recipe.name.removesuffix(".yaml")
    # Recipes share files: what isn't beside them is looked up one folder above.
    quoted = ("'file://" + re.sub(r"(['\\])", r"\\\1", str(folder)) + "'" for folder in others)
    words = [f"hydra.searchpath=[{','.join(quoted)}]", *overrides]
    try:
        with (
            _in_store(recipe.made),
            initialize_config_dir(str(first), version_base=_HYDRA_VERSION),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("error", ".*missing `_self_`.*", UserWarning)
            loader = GlobalHydra.instance().config_loader()
            values = hydra_compose(name, overrides=words)
            refuse_resolvers(values, recipe.shown)
            OmegaConf.set_struct(values, False)
            return values, list(loader.compute_defaults_list(name, words, RunMode.RUN).defaults)
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
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError) as error:
        text = one_line(error) or "Hydra can't read it; give keys that are texts and values that are plain"
        raise ConfigError(f"{recipe.shown}: {text}") from error


@contextmanager
def _in_store(made: Mapping[str, Made]) -> Iterator[None]:
    """Lets Hydra find recipes that have no file."""
    store = ConfigStore.instance()
    for path, found in made.items():
        group, _, name = path.rpartition("/")
        package = "_global_" if group else None
        store.store(name, {"defaults": found.defaults, **found.values}, group=group or None, package=package)
    try:
        yield
    finally:
        for path in made:
            group, _, name = path.rpartition("/")
            (store.repo.get(group, {}) if group else store.repo).pop(f"{name}.yaml", None)
