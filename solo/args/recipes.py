"""Finds the recipe that `FOLDER FILE` or `DATASET NAME` means, in the working directory or in the package."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import solo
from solo.args.harmless import display
from solo.args.made import find_part, has_own_name, images_in, names_in
from solo.errors import ConfigError
from solo.suggest import did_you_mean

# The folders of `scripts` in which a command looks for a data set's recipes.
FOLDERS = {"linear": ("linear", "finetune")}


@dataclass(frozen=True)
class Recipe:
    """A recipe by its `name` in a `folder`, in a file or composed in its place."""

    folder: Path
    name: str

    @property
    def shown(self) -> str:
        """The recipe's path as messages show it."""
        return display(self.folder / self.name)

    @property
    def images(self) -> dict[str, Any]:
        """What a composed recipe of `solo linear` and the like says of its images."""
        parts = [] if (self.folder / self.name).is_file() else images_in(self.folder)
        return {key: value for part in parts for key, value in part.values["data"].items()}


def roots() -> list[Path]:
    """Where a relative folder is looked up: the working directory, beside `main_pretrain.py`, in the package."""
    package = Path(solo.__file__).parent
    return [Path.cwd(), package.parent, package]


def find_recipe(places: Sequence[str], command: str = "pretrain") -> Recipe:
    """The recipe for one or two words, `FOLDER FILE`, `FOLDER/FILE` or `DATASET NAME`.

    Raises a `ConfigError` if there is no such folder or file; names similar ones.
    """
    if not places:
        raise ConfigError(f"no recipe is named; give a data set and a recipe, for example: solo {command} digits hex")
    if len(places) == 1 and not any(os.path.isdir(folder) for folder in find_folders(places[0], command)):
        first, last = Path(places[0]).parent, Path(places[0]).name
        places = [str(first), last] if places[0] != last or last.endswith((".yaml", ".yml")) else [last, ""]
    name = places[1] if len(places) > 1 else ""
    folders = find_folders(places[0], command)
    if not name:
        name = next((folder.parent.name for folder in folders if has_own_name(folder)), "")
    name = name if not name or Path(name).suffix in (".yaml", ".yml") else f"{name}.yaml"
    for folder in folders:
        if name and os.path.isfile(folder / name):
            if name.endswith(".yml"):
                raise ConfigError(f"{places[0]}/{name}: Hydra reads .yaml files only; rename it")
            return Recipe(folder.resolve(), name)
    for folder in folders:
        if name and find_part(folder.resolve(), Path(name).stem):
            return Recipe(folder.resolve(), name)
    raise ConfigError(_not_there(places[0], name, folders))


def recipes_of(place: str, command: str) -> list[str]:
    """What can be run of a data set or in a folder."""
    return list(dict.fromkeys(name for folder in find_folders(place, command) for name in names_in(folder)))


def data_sets(command: str) -> list[str]:
    """The folders that have recipes of a command."""
    found = {
        file.parent.name
        for root in roots()
        for kind in ("pretrain", *FOLDERS.get(command, (command,)))
        for file in (root / "scripts" / kind).glob("*/*.yaml")
        if kind != "pretrain" or file.name in ("data.yaml", "hex.yaml")
    }
    return sorted(found - {"parts"})


def find_folders(place: str, command: str) -> list[Path]:
    """Where the recipe may lie; folders that don't exist count where their recipes can be made."""
    path = Path(place).expanduser()
    found = [root / path for root in roots()]
    if len(path.parts) == 1:  # the name of a data set
        kinds = FOLDERS.get(command, (command,))
        found += [root / "scripts" / kind / path for kind in kinds for root in roots()]
    return [folder for folder in dict.fromkeys(found) if os.path.isdir(folder) or has_own_name(folder)]


def _not_there(place: str, name: str, folders: Sequence[Path]) -> str:
    if not folders:
        path = Path(place)
        if len(path.parts) > 1:
            names = [str(path.parent / other.name) for root in roots() for other in (root / path.parent).glob("*/")]
        else:
            names = [file.parent.name for root in roots() for file in (root / "scripts/pretrain").glob("*/hex.yaml")]
        hint = did_you_mean(place, set(names) - {place})
        return f"the folder {place!r} doesn't exist, neither here nor in {display(roots()[1])}; {hint}".rstrip("; ")
    names = names_in(folders[-1] if len(folders) > 1 and names_in(folders[-1]) else folders[0])
    there = f"choose {', '.join(names)}" if names else "it holds no .yaml file"
    if not name:
        return f"{place!r} is a folder; name a file in it as well: {there}"
    return f"{place!r} has no recipe {name!r}; {did_you_mean(name, names)}{there}"
