"""Finds the recipe that `FOLDER FILE` or `DATASET NAME` means, and its parts: files, and what stands for missing ones.

Which is made of what is in docs/recipes.md; what single methods change in a folder is in its `methods.yaml`. A file
that is there is always taken as it is. Defaults lists mean what they mean to Hydra, for whose rules solo-learn's files
are written.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import solo
from solo.args.origins import Part, display, read_part, read_table
from solo.data.catalogue.registry import DATASETS
from solo.data.catalogue.rows import SMALL, DatasetSpec
from solo.errors import ConfigError, did_you_mean
from solo.methods.catalogue import CATALOGUE, USUAL

FOLDERS = {"linear": ("linear", "finetune")}  # of `scripts`, in which a command looks for a data set's recipes
_PAPER = "table_6.yaml"  # what `paper_METHOD` sets
_TYPES = {"hex": "HEX_adaptive", "relatives": "HEX"}  # how the name of a recipe starts -> its `type`
_LARGE = 128  # pixels: from here on the settings in large/ count
# What evaluation takes over from the run that made a checkpoint; size and statistics come with the network.
OF_THE_IMAGES = ("train_path", "val_path", "format", "levels", "taxonomy", "path_column", "label_columns")
# What a recipe of the other commands takes over from the pretraining data.yaml.
_TAKEN_OVER = ("dataset", *OF_THE_IMAGES, "num_workers")
_ENTRY = re.compile(r"((?:(?:optional|override) +)*)([^@]*)(?:@(.*))?", re.DOTALL)


def _entries(defaults: Sequence[Any], around: str) -> Iterator[tuple[str, str, str | None, list[Any]]]:
    """Of a defaults list, `words group@section: files`; without a group it is a file that nothing replaces."""
    for entry in defaults:
        for key, files in entry.items() if isinstance(entry, dict) else [("", entry)]:
            named = _ENTRY.fullmatch(str(key or files))
            words, path, section = named.groups() if named else ("", "", None)
            if isinstance(entry, dict):
                yield words, _join(around, path), section, files if isinstance(files, list) else [files]
            else:
                yield words, "", section, [path if isinstance(files, str) else files]


def _join(group: str, path: str) -> str:
    """A path in a file of this group; one that begins with a slash is whole."""
    return str(PurePosixPath("/", group, path))[1:]


def gather(
    file: Path, chosen: Mapping[str, list[Any]] | None = None, added: Sequence[Any] = (), composes: bool = True
) -> list[tuple[str, Part]]:
    """The parts of a recipe with the section that each fills, in the order in which they replace each other.

    `chosen` are the files that the command line takes for groups, `added` its entries for the recipe's defaults list.
    Without `composes` only files count. Raises a `ConfigError` for a list that names what isn't there, or itself.
    """
    folder, recipe, shown = file.parent, file.name.removesuffix(".yaml"), display(file)
    choices, met = dict(chosen or {}), {""}

    def parts_of(name: str, package: str, fixed: bool, inside: tuple[str, ...]) -> Iterator[tuple[str, Part]]:
        """Backwards: of two files that override a group the last one counts."""
        around = name.rpartition("/")[0]
        if name in inside:
            raise ConfigError(f"{shown}: defaults lists include each other in a circle")
        part = find_part(folder, name, composes)
        if part is None:
            there = sorted({file.stem for place in (folder, folder.parent) for file in (place / around).glob("*.yaml")})
            others = f"; in {around} there are {', '.join(there) or 'none'}" if around else ""
            raise ConfigError(f"{shown}: {(recipe, *inside)[-1]} asks for {name}.yaml, which isn't there{others}")
        defaults = [*(part.defaults or ["_self_"]), *(() if inside else added)]
        lacks_itself = part.values and "_self_" not in defaults
        if lacks_itself and inside:
            defaults.append("_self_")
        if not fixed and part.package:
            package = part.package.replace("_group_", package).removeprefix("_global_").strip(".")
        entries = [*_entries(defaults, around)]
        for words, group, _, files in entries:
            if "override" in words:
                choices.setdefault(group, files)
        for words, group, section, files in reversed(entries):
            if "override" in words or group.startswith("hydra"):
                continue
            met.add(group)
            for named in reversed(choices.get(group, files)):
                if isinstance(named, Part):
                    yield package, named
                elif named == "_self_":
                    yield package, part
                elif named is not None:
                    path = _join(group or around, str(named).removesuffix(".yaml"))
                    if "optional" in words and find_part(folder, path, composes) is None:
                        continue
                    below = path.rpartition("/")[0].removeprefix(around).strip("/").replace("/", ".")
                    if section is not None:
                        below = section.replace("_here_", "").replace("_group_", below)
                    inner = f"{package}.{below}".strip(".").rpartition("_global_")[2].lstrip(".")
                    yield from parts_of(path, inner, section is not None, (*inside, name))
        if lacks_itself and not inside:
            advice = "put it last, so that the file's own values win"
            raise ConfigError(f"{shown}: defaults lacks `_self_`, the place of the file's own values; {advice}")

    parts = [*parts_of(recipe, "", False, ())][::-1]
    if unused := [group for group in choices if group not in met and not group.startswith("hydra")]:
        names = ", ".join(sorted(met - {""})) or "none"
        advice = f"add it with +{unused[0]}=NAME" if unused[0] in (chosen or {}) else "spell it as there"
        raise ConfigError(f"{shown}: no file of the group {unused[0]} is in defaults (groups: {names}); {advice}")
    return parts


def find_part(folder: Path, name: str, composes: bool = True) -> Part | None:
    """What a name means: the file in the folder or one above, or what is composed in its place."""
    file = _file(folder, name)
    return read_part(file) if file else _make(folder, name) if composes else None


def has_own_name(folder: Path) -> bool:
    """Whether the folder's recipe is called like the command, as in `scripts/linear/digits linear`."""
    return (folder.parent / "common.yaml").is_file() and folder.parent.name != "pretrain" and bool(_images_in(folder))


def names_in(folder: Path) -> list[str]:
    """What can be run in a folder, files first."""
    files = sorted(file.name for file in folder.glob("*.yaml") if file.is_file())
    above = folder.parent
    if above.name == "pretrain" and (folder / "data.yaml").is_file():
        of_methods = [*(file.stem for file in (above / "methods").glob("*.yaml")), *read_table(above / "methods.yaml")]
        made = [*read_table(folder / "methods.yaml"), *sorted(of_methods)]
        made += [f"paper_{method}" for method in read_table(above / _PAPER) if method != "all"]
    elif has_own_name(folder):
        parts = sorted(file.stem for file in (above / "parts").glob("*.yaml"))
        made = [above.name, *read_table(folder / "methods.yaml"), *parts]
    else:
        return files
    names = (name.removesuffix(".yaml") for name in [*files, *made])
    return list(dict.fromkeys(name for name in names if name not in ("data", "methods", "paper")))


def _make(folder: Path, name: str) -> Part | None:
    group, _, row = name.rpartition("/")
    if group == "methods" and (found := read_part(folder.parent / "methods.yaml", row)):
        return replace(found, package="_global_")
    if (folder / "data.yaml").is_file() and (folder.parent / "methods").is_dir():
        return _pretraining(folder, name)
    above, own = folder.parent, folder / "methods.yaml"
    if not has_own_name(folder):
        return None
    if name == above.name:
        composed = _composed(folder, name, ["common", *_images_in(folder)], {"name": f"{name}-{folder.name}"})
        return replace(composed, made_of=[*composed.made_of, f"pretrain/{folder.name}/data.yaml"])
    if (above / "parts" / f"{name}.yaml").is_file():
        values = {"name": f"{above.name}_{name.removeprefix('semi_')}-{folder.name}"}
        return _composed(folder, name, [above.name, {"parts": name}], values)
    return _composed(folder, name, [above.name], {}, [(own, name)]) if name in read_table(own) else None


def _pretraining(folder: Path, name: str) -> Part | None:
    above, full, rows = folder.parent, f"{name}-{folder.name}", read_table(folder / "methods.yaml")
    start, _, rest = name.partition("_")
    if start == "paper":
        kind, _, method = rest.partition("_")
        if kind in _TYPES:  # paper_hex_nnclr is hex_paper_nnclr
            start, rest = kind, f"paper_{method or USUAL}"
        elif found := _paper(folder, rest or USUAL, {"name": full}):
            return found
    if start in _TYPES:
        for base in (rest, f"{USUAL}_{rest}".rstrip("_")):
            if base and _is_recipe(folder, base):
                composed = _composed(folder, name, [base], {"name": full, "type": _TYPES[start]})
                return replace(composed, made_of=[f"{base} and type: {_TYPES[start]}"])
        return None
    base, _, part = name.rpartition("_")
    pixels = _of_images(folder)[1]
    small = pixels <= SMALL
    if base and small and (above / "parts" / f"{part}.yaml").is_file():
        return _composed(folder, name, [base, {"parts": part}], {"name": full}) if _is_recipe(folder, base) else None
    if rows.get(name) == f"paper_{name}":
        return _paper(folder, name, {})
    method, multicrop = (base, True) if part == "multicrop" else (name, False)
    if start == "sololearn" and rows.get(rest) == f"paper_{rest}":  # the folder's own name stands for the paper's
        method = rest
    if method in CATALOGUE:
        method = CATALOGUE[method].recipe or method
    if not (above / "methods" / f"{method}.yaml").is_file() and method not in read_table(above / "methods.yaml"):
        return None
    group = "large" if pixels >= _LARGE and (above / "large" / f"{method}.yaml").is_file() else "methods"
    trained = (read_table(above / "methods.yaml").get(method) or {}).get("method", method)  # of continue_dinov2: dinov2
    views, facts = _views(folder, trained, multicrop), CATALOGUE.get(method)
    network = [{"parts": "vit"}] if small and facts and facts.masked else []
    defaults = ["data", {group: method}, *network, *([{"augmentations": views}] if views else [])]
    values = {"name": full} if multicrop or start == "sololearn" else {}
    return _composed(folder, name, defaults, values, [(folder / "methods.yaml", name)])


def _paper(folder: Path, method: str, values: dict[str, Any]) -> Part | None:
    """The HEX paper's Table 6 on the method's recipe; the folder's rows `paper` and `paper_METHOD` last."""
    table, own = folder.parent / _PAPER, folder / "methods.yaml"
    if method not in read_table(table) or method == "all":
        return None
    rows = [(table, "all"), (table, method), (own, "paper"), (own, f"paper_{method}")]
    defaults = ["data", {"methods": method}, {"augmentations": _views(folder, method, multicrop=False)}]
    return _composed(folder, f"paper_{method}", defaults, values, rows)


def _is_recipe(folder: Path, name: str) -> bool:
    return (folder / f"{name}.yaml").is_file() or _make(folder, name) is not None


def _composed(
    folder: Path, name: str, defaults: list[Any], values: dict[str, Any], rows: Sequence[tuple[Path, str]] = ()
) -> Part:
    """With what rows of tables say of this recipe: values, and files (`defaults`) under them; the last row wins."""
    found = [(part, entry) for table, entry in rows if (part := read_part(table, entry))]
    own = [entry for part, _ in found for entry in part.defaults]
    chosen = {group for entry in own if isinstance(entry, dict) for group in entry}  # in place of the folder's
    named = [*(e for e in defaults if not (isinstance(e, dict) and chosen & e.keys())), *own]
    paths = ["/".join(*entry.items()) if isinstance(entry, dict) else entry for entry in named]
    table = _short(folder, folder.parent / "methods.yaml")
    files = [(_file(folder, path), path) for path in paths if isinstance(path, str)]
    made_of = [_short(folder, file) if file else path.replace("methods/", f"{table}: ") for file, path in files]
    made_of += [f"{_short(folder, part.source)} ({entry})" for part, entry in found if part.values]
    lines = [(key, 0, True) for key in values]
    return Part([*named, "_self_", *(part for part, _ in found)], values, lines, folder / f"{name}.yaml", "", made_of)


def _views(folder: Path, method: str, multicrop: bool) -> str | None:
    """The file of augmentations/ that `views.yaml` names for a method and this folder's images."""
    table = read_table(folder.parent / "views.yaml")
    view = table.get("methods", {}).get(method)
    if multicrop:
        view = table.get("multicrop", {}).get(view, view)
    spec, pixels = _of_images(folder)
    kind = "grey" if spec is not None and spec.channels == 1 else "small" if pixels <= SMALL else ""
    view = table.get(kind, {}).get(view, view)
    return None if view is None else str(view)


def _of_images(folder: Path) -> tuple[DatasetSpec | None, int]:
    """The row of a folder's data set, and pixels of a side of its images."""
    names = [part.values["data"].get("dataset") for part in _data_parts(folder)]
    spec = DATASETS.get(str(next((name for name in reversed(names) if name), None)))
    return spec, 224 if spec is None or spec.size is None else int(spec.size)


def _images_in(folder: Path) -> list[Part]:
    """What the pretraining recipes for the folder's name say of its images; nothing if there are none."""
    parts = []
    for part in _data_parts(folder.parent.parent / "pretrain" / folder.name):
        data = {key: value for key, value in part.values["data"].items() if key in _TAKEN_OVER}
        lines = [line for line in part.lines if line[0].removeprefix("data.") in data]
        parts.append(replace(part, values={"data": data}, lines=lines))
    return parts


def _data_parts(folder: Path) -> list[Part]:
    """The parts of a folder's data.yaml that have a section `data`."""
    parts = gather(folder / "data.yaml", composes=False) if (folder / "data.yaml").is_file() else []
    return [part for _, part in parts if isinstance(part.values, dict) and isinstance(part.values.get("data"), dict)]


def _file(folder: Path, name: str) -> Path | None:
    files = (folder / f"{name}.yaml", folder.parent / f"{name}.yaml")
    return next((file for file in files if os.path.isfile(file)), None)


def _short(folder: Path, file: Path) -> str:
    """A file as it lies below `scripts`."""
    return str(file.relative_to(folder.parent.parent))


def roots() -> list[Path]:
    """Where a relative folder is looked up: the working directory, beside `main_pretrain.py`, in the package."""
    package = Path(solo.__file__).parent
    return [Path.cwd(), package.parent, package]


def find_recipe(places: Sequence[str], command: str = "pretrain") -> Path:
    """The file of `FOLDER FILE`, `FOLDER/FILE` or `DATASET NAME`, there or to be composed; else a `ConfigError`."""
    if not places:
        raise ConfigError(f"no recipe is named; give a data set and a recipe, for example: solo {command} digits hex")
    place, name = places[0], places[1] if len(places) > 1 else ""
    path = Path(place)
    if not name and not any(map(os.path.isdir, find_folders(place, command))):
        if place != path.name or path.suffix in (".yaml", ".yml"):
            place, name = str(path.parent), path.name
    folders = find_folders(place, command)
    name = name or next((folder.parent.name for folder in folders if has_own_name(folder)), "")
    if name and Path(name).suffix not in (".yaml", ".yml"):
        name += ".yaml"
    files = [folder.resolve() / name for folder in folders if name]
    for file in filter(os.path.isfile, files):
        if name.endswith(".yml"):
            raise ConfigError(f"{place}/{name}: Hydra reads .yaml files only; rename it")
        return file
    for file in files:
        if (found := find_part(file.parent, file.stem)) and found.made_of:
            return file
    raise ConfigError(_not_there(place, name, folders))


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
