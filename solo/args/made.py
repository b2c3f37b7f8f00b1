"""Recipes that no file spells out, made from parts that are there: which and of what is in docs/recipes.md.

What single methods change in a folder is in its `methods.yaml`. A file that is there is always taken as it is.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solo.args.harmless import merged, named_in, read_table
from solo.args.origins import display, lines_of
from solo.args.source import OF_THE_IMAGES
from solo.data.catalogue.registry import DATASETS, DatasetSpec
from solo.errors import ConfigError
from solo.methods.catalogue import CATALOGUE, USUAL

_NOT_RECIPES = ("data", "methods", "paper")
_PAPER = "table_6.yaml"  # what `paper_METHOD` sets
_TYPES = {"hex": "HEX_adaptive", "relatives": "HEX"}  # how the name of a recipe starts -> its `type`
_SMALL = 64  # pixels: of smaller images a blur leaves little
_LARGE = 128  # pixels: from here on the settings in large/ count
# What a recipe of the other commands takes over from the pretraining data.yaml.
_TAKEN_OVER = ("dataset", *OF_THE_IMAGES, "num_workers")


@dataclass(frozen=True)
class Made:
    """A recipe without a file."""

    defaults: list[Any]  # as in a file's defaults list
    values: dict[str, Any]  # what it says itself
    places: dict[str, str]  # dotted key -> where the value was written
    parts: list[str]  # paths of what it is made of


def made_for(folder: Path, name: str) -> dict[str, Made]:
    """What has to be made for a recipe, itself or something in its defaults list."""
    made: dict[str, Made] = {}
    seen, todo = {"_self_"}, [name]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        file = _file(folder, name)
        if file is not None:
            try:
                defaults = read_table(file).get("defaults") or []
            except ConfigError:  # whoever composes it says what is wrong
                continue
        elif found := _make(folder, name):
            made[name], defaults = found, found.defaults
        else:
            continue
        named = named_in(defaults) if isinstance(defaults, list) else ()
        todo += [f"{group.strip('/')}/{entry}" if group else entry for group, entry in named]
    return made


def has_own_name(folder: Path) -> bool:
    """Whether the folder's recipe is called like the command, as in `scripts/linear/digits linear`."""
    return (folder.parent / "common.yaml").is_file() and folder.parent.name != "pretrain" and bool(_images(folder)[0])


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
    return list(dict.fromkeys(name for name in names if name not in _NOT_RECIPES))


def _make(folder: Path, name: str) -> Made | None:
    group, _, row = name.rpartition("/")
    if group == "methods" and row in read_table(folder.parent / "methods.yaml"):
        return _row(folder.parent / "methods.yaml", row)
    if (folder / "data.yaml").is_file() and (folder.parent / "methods").is_dir():
        return _pretraining(folder, name)
    return _offline(folder, name) if has_own_name(folder) else None


def _pretraining(folder: Path, name: str) -> Made | None:
    above = folder.parent
    full = f"{name}-{folder.name}"
    rows = read_table(folder / "methods.yaml")
    start, _, rest = name.partition("_")
    if start == "paper":
        kind, _, method = rest.partition("_")
        if kind in _TYPES:  # paper_hex_nnclr is hex_paper_nnclr
            start, rest = kind, f"paper_{method or USUAL}"
        elif found := _paper(folder, rest or USUAL, {"name": full}):
            return found
    if start in _TYPES:
        for base in (rest, f"{USUAL}_{rest}".rstrip("_")):
            if base and ((folder / f"{base}.yaml").is_file() or _make(folder, base)):
                values = {"name": full, "type": _TYPES[start]}
                return Made([base, "_self_"], values, _said_by(values, name), [f"{base} and type: {_TYPES[start]}"])
        return None
    base, _, part = name.rpartition("_")
    pixels = _of_images(folder)[1]
    small = pixels <= _SMALL
    if base and small and (above / "parts" / f"{part}.yaml").is_file():
        if not ((folder / f"{base}.yaml").is_file() or _make(folder, base)):
            return None
        return _with_rows(folder, [base, {"parts": part}], {"name": full}, name)
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
    return _with_rows(folder, defaults, values, name, [(folder / "methods.yaml", name)])


def _paper(folder: Path, method: str, values: dict[str, Any]) -> Made | None:
    """The HEX paper's Table 6 on the method's recipe; the folder's rows `paper` and `paper_METHOD` last."""
    table, own = folder.parent / _PAPER, folder / "methods.yaml"
    if method not in read_table(table) or method == "all":
        return None
    rows = [(table, "all"), (table, method), (own, "paper"), (own, f"paper_{method}")]
    defaults = ["data", {"methods": method}, {"augmentations": _views(folder, method, multicrop=False)}]
    return _with_rows(folder, defaults, values, f"paper_{method}", rows)


def _offline(folder: Path, name: str) -> Made | None:
    above = folder.parent
    if name == above.name:
        values: dict[str, Any] = {"name": f"{name}-{folder.name}"}
        places = _said_by(values, name)
        values["data"], found = _images(folder)
        parts = [*_paths(folder, ["common"]), f"pretrain/{folder.name}/data.yaml"]
        return Made(["common", "_self_"], values, places | found, parts)
    if (above / "parts" / f"{name}.yaml").is_file():
        values = {"name": f"{above.name}_{name.removeprefix('semi_')}-{folder.name}"}
        return _with_rows(folder, [above.name, {"parts": name}], values, name)
    own = folder / "methods.yaml"
    return _with_rows(folder, [above.name], {}, name, [(own, name)]) if name in read_table(own) else None


def _with_rows(
    folder: Path, defaults: list[Any], values: dict[str, Any], name: str, rows: Sequence[tuple[Path, str]] = ()
) -> Made:
    """With what rows of tables say of this recipe: values, and files (`defaults`) under them; the last row wins."""
    places, parts, own = _said_by(values, name), [], []
    for table, entry in rows:
        row = _row(table, entry)
        own += row.defaults[:-1]
        values = merged(values, row.values)
        places |= row.places
        parts += [f"{_short(folder, table)} ({entry})"] if row.values else []
    chosen = {group for entry in own if isinstance(entry, dict) for group in entry}  # in place of the folder's
    defaults = [*(e for e in defaults if isinstance(e, str) or not chosen & e.keys()), *own, "_self_"]
    return Made(defaults, values, places, [*_paths(folder, defaults), *parts])


def _row(table: Path, name: str) -> Made:
    """A row of a table, as if it were a file; empty where there is none."""
    found = read_table(table).get(name) or {}
    if not isinstance(found, dict):
        raise ConfigError(f"{display(table)}: {name} is {found!r}; a table from keys to values is needed here")
    row = dict(found)
    own = row.pop("defaults", [])
    lines = lines_of(table, name) if row else ()
    said = {key: line for key, line, replaces in lines if (replaces or "[" in key) and not key.startswith("defaults")}
    return Made([*own, "_self_"], row, {key: f"{display(table)}:{line}" for key, line in said.items()}, [])


def _views(folder: Path, method: str, multicrop: bool) -> str | None:
    """The file of augmentations/ that `views.yaml` names for a method and this folder's images."""
    table = read_table(folder.parent / "views.yaml")
    view = table.get("methods", {}).get(method)
    if multicrop:
        view = table.get("multicrop", {}).get(view, view)
    spec, pixels = _of_images(folder)
    kind = "grey" if spec is not None and spec.channels == 1 else "small" if pixels <= _SMALL else ""
    view = table.get(kind, {}).get(view, view)
    return None if view is None else str(view)


def _of_images(folder: Path) -> tuple[DatasetSpec | None, int]:
    """The row of a folder's data set, and pixels of a side of its images."""
    spec = DATASETS.get(str(_section(folder, "data")[0].get("dataset")))
    return spec, 224 if spec is None or spec.size is None else int(spec.size)


def _images(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What the pretraining recipes for the folder's name say of its images, and where; nothing if there are none."""
    values, places = _section(folder.parent.parent / "pretrain" / folder.name, "data")
    data = {key: values[key] for key in _TAKEN_OVER if key in values}
    return data, {f"data.{key}": places[f"data.{key}"] for key in data}


def _section(folder: Path, name: str, around: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """Section `data` of a file and of those in its defaults list; `around` it stand others."""
    file = _file(folder, name)
    content = read_table(file) if file else {}
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for entry in content.get("defaults", ["_self_"]):
        if entry == "_self_" and file and isinstance(content.get("data"), dict):
            values |= content["data"]
            places |= {key: f"{display(file)}:{line}" for key, line, _ in lines_of(file) if key.startswith("data.")}
        elif isinstance(entry, str) and entry not in ("_self_", name, *around):
            more, found = _section(folder, entry, (*around, name))
            values |= more
            places |= found
    return values, places


def _said_by(values: Mapping[str, Any], name: str) -> dict[str, str]:
    return {key: f"{name}, composed" for key in values}


def _file(folder: Path, name: str) -> Path | None:
    files = (folder / f"{name}.yaml", folder.parent / f"{name}.yaml")
    return next((file for file in files if os.path.isfile(file)), None)


def _paths(folder: Path, defaults: Sequence[Any]) -> list[str]:
    """The files of a defaults list, for messages; the name alone of what has none."""
    paths = [str(Path(*next(iter(e.items()))) if isinstance(e, dict) else e) for e in defaults if e != "_self_"]
    table = _short(folder, folder.parent / "methods.yaml")
    shown = [path.replace("methods/", f"{table}: ") for path in paths]
    files = [_file(folder, path) for path in paths]
    return [_short(folder, file) if file else row for file, row in zip(files, shown, strict=True)]


def _short(folder: Path, file: Path) -> str:
    """A file as it lies below `scripts`."""
    return str(file.relative_to(folder.parent.parent))
