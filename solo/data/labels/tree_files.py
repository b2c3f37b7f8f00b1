"""Label trees from files that a user gives as `data.taxonomy`. No torch."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.data.labels.trees import Names, from_parents, from_paths, without_chains
from solo.errors import UserError, reason
from solo.taxonomy import Taxonomy
from solo.untrusted import parse_json, regular

_WNID = re.compile(r"n\d{8}")
_HEADERS = ({"child", "parent"}, {"class", "superclass"}, {"name", "parent"})


def read_tree(path: str | Path, classes: Sequence[str], levels: Sequence[str] | None = None) -> Taxonomy:
    """The label tree of `classes`, names of folders, from a file; `levels` names the levels where the file doesn't.

    * CSV, TSV or text with two columns, child and parent, a header or none. Lines of two WordNet ids are the other way
    round, parent and child, as in `wordnet.is_a.txt`; a `words.txt` beside it gives their names.
    * JSON: `{"child": "parent"}`, nested groups `{"animals": {"cats": ["lion", "tiger"]}}`, or what `Taxonomy.to_dict`
    returns.

    Raises a `UserError` if the file can't be read or describes no tree of these classes.
    """
    file = Path(path).expanduser()
    try:
        text = regular(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.taxonomy={path} can't be read ({reason(error)}); give a file with the tree") from error
    try:
        if file.suffix.lower() == ".json":
            return _from_json(parse_json(text), classes, levels)
        return _from_lines(text, file, classes, levels)
    except UserError as error:
        raise UserError(f"data.taxonomy={path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, csv.Error) as error:
        what = "no JSON" if isinstance(error, ValueError) else "no tree"
        raise UserError(f"data.taxonomy={path} is {what} ({error})") from error


def _from_json(data: Any, classes: Sequence[str], levels: Sequence[str] | None) -> Taxonomy:
    if not isinstance(data, Mapping) or not data:
        raise UserError("expected an object of children and parents, or of nested groups")
    if {"levels", "names", "parents"} <= set(data):
        return _same_classes(Taxonomy.from_dict(data), classes)
    if all(isinstance(parent, str) or parent is None for parent in data.values()):
        return from_parents({child: [parent] for child, parent in data.items() if parent}, classes, levels)
    order = {name: place for place, name in enumerate(classes)}
    paths = sorted(_nested(data), key=lambda path: order.get(path[-1], -1))
    twice = [path[-1] for path, after in zip(paths, paths[1:], strict=False) if path[-1] == after[-1]]
    if twice:
        raise UserError(f"class {twice[0]!r} is in two groups")
    return _same_classes(from_paths(paths, levels), classes)


def _nested(data: Any, above: Names = ()) -> list[Names]:
    if isinstance(data, Mapping):
        return [path for name, below in data.items() for path in _nested(below, (*above, str(name)))]
    return [(*above, str(name)) for name in data] if isinstance(data, list) and data else [above]


def _same_classes(tree: Taxonomy, classes: Sequence[str]) -> Taxonomy:
    differing = sorted(set(classes) ^ set(tree.class_names))
    if differing:
        shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise UserError(f"{len(differing)} classes are only in the tree or only among the folders: {shown}")
    return tree


def _from_lines(text: str, file: Path, classes: Sequence[str], levels: Sequence[str] | None) -> Taxonomy:
    first = text.lstrip().partition("\n")[0]
    delimiter = next((mark for mark in ("\t", ",", ";") if mark in first), " ")
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    if rows and set(map(str.lower, rows[0])) in _HEADERS:
        upper_first = rows[0][0].lower() in ("parent", "superclass")
        rows = rows[1:]
    else:
        upper_first = all(_WNID.fullmatch(cell) for cell in rows[0]) if rows else False
    parents: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or not row[0]:
            raise UserError(f"row {number} is {delimiter.join(row)!r}; expected two columns, child and parent")
        child, parent = reversed(row) if upper_first else row
        parents.setdefault(child, []).extend([parent] if parent and parent not in parents.get(child, []) else [])
    if not all(map(_WNID.fullmatch, classes)):
        return from_parents(parents, classes, levels)
    tree = from_parents(without_chains(parents, classes), classes, levels)
    words, listed = {}, file.with_name("words.txt")  # as ImageNet has it: id, tab, names with commas between them
    if listed.is_file():
        for line in regular(listed).read_text(encoding="utf-8").splitlines():
            wnid, _, called = line.partition("\t")
            words[wnid] = called.partition(",")[0].strip()
    # Inner nodes have words beside their ids; classes keep the names of their folders.
    names = [[f"{words[name]} ({name})" if name in words else name for name in nodes] for nodes in tree.names]
    for level, node in tree.leaves:
        names[level][node] = tree.names[level][node]
    return Taxonomy(tree.levels, tuple(map(tuple, names)), tree.parents)
