"""From a recipe and words to a plain config, of which every value remembers where it came from."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo.args.config import to_plain
from solo.args.origins import COMMAND_LINE, Origins, display, refuse_resolvers
from solo.args.recipes import gather
from solo.args.words import Word, read_word
from solo.errors import ConfigError, reason


def compose(recipe: Path | None, words: Sequence[str], schema: type | None = None) -> tuple[dict[str, Any], Origins]:
    """Compose a recipe with the words of a command line; `key=value` also works for keys that the files don't have.

    Without a recipe the words are alone. Returns the config as written, and the place of each key. Raises a
    `ConfigError` for anything that YAML, OmegaConf or Hydra refuses, in one line.
    """
    read = [read_word(word, schema) for word in words]
    origins = Origins({"": display(recipe) if recipe else COMMAND_LINE})
    chooses = [word for word in read if recipe and _chooses(word, recipe)]
    values = _files(recipe, chooses, origins) if recipe else OmegaConf.create()
    for word in read:
        if word in chooses:
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
            text = "a list has no such entry; 0 is the first" if lacks else reason(error)
            raise ConfigError(f"command line: {word.key}: {text}") from error
        origins.add_override(word.key, word.value)
    try:
        return to_plain(values), origins
    except RecursionError as error:
        raise ConfigError(f"{origins['']}: values refer to each other in a circle") from error


def _chooses(word: Word, recipe: Path) -> bool:
    """Whether a word is about files, as in `augmentations=symmetric`, or about Hydra."""
    folders = (recipe.parent / word.key, recipe.parent.parent / word.key)
    group = "/" in word.key or any(folder.is_dir() for folder in folders)
    return word.key.startswith("hydra") or (group and (word.removes or isinstance(word.value, str)))


def _files(recipe: Path, words: Sequence[Word], origins: Origins) -> DictConfig:
    """What a recipe's files say, with the files that words choose; a word that is about Hydra does nothing."""
    chosen, added = {}, []
    for word in words:
        if word.key == "hydra" and not isinstance(word.value, (str, list)):
            raise ConfigError(f"{display(recipe)}: Config group override must be a string or a list. Got {word.value}")
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
            raise ConfigError(
                f"{display(recipe)}: primary config '{part.source.stem}' must be a DictConfig, got ListConfig"
            )
        try:
            values.merge_with(content)
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            raise ConfigError(f"{display(recipe)}: {reason(error)}") from error
        origins.add_part(part, section)
    made = {part.source: part.made_of for _, part in reversed(parts) if part.made_of}
    origins.notes = [f"{display(file)} isn't there; composed of {', '.join(paths)}" for file, paths in made.items()]
    refuse_resolvers(values, display(recipe))
    _keep_to_the_network(values, origins)
    return values


def _keep_to_the_network(values: DictConfig, origins: Origins) -> None:
    """A data set's kwargs are those of its own network: they go where a later file takes another one, as a ViT."""
    home = "/data.yaml:"
    if home not in origins.place("backbone.name"):
        for key in list(OmegaConf.select(values, "backbone.kwargs") or ()):
            if home in origins.place(f"backbone.kwargs.{key}"):
                del values.backbone.kwargs[key]
                origins.remove(f"backbone.kwargs.{key}")
