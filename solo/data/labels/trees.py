"""Label trees from what people have: nested folders, label columns, parent-child files, WordNet. No torch."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.errors import UserError, explained, reason, some
from solo.files import parse_json, regular
from solo.taxonomy import MOST_LEVELS, UNKNOWN, Taxonomy

Names = tuple[str, ...]
Labels = tuple[int, ...]
Parents = Mapping[str, Sequence[str]]  # of each child; a tree has one
_WNID = re.compile(r"n\d{8}")
_HEADERS = ({"child", "parent"}, {"class", "superclass"}, {"name", "parent"})  # of files of two columns
_LONGEST = 1000  # way from a class up, in a graph that becomes a tree
_NO_LABELS = {"image", "images", "img", "imgs", "photos", "pictures", "data"}  # folders inside of a class


def from_paths(paths: Iterable[Names], levels: Sequence[str] | None = None) -> Taxonomy:
    """A tree from name paths, coarse first, such as `("birds", "owls")`; they may end at different depths.

    Nodes are numbered as they come. A name that several nodes of a level share becomes their whole path, joined by `/`.
    `levels` names the levels; default `class` for one, `level1`, `level2`, ... for more.
    """
    unique = list(dict.fromkeys(paths))
    depth = max(map(len, unique), default=0)
    if depth == 0:
        raise UserError("there is no class to make a label tree of")
    if depth > MOST_LEVELS:  # said before the nodes are made, whose paths would fill the memory
        raise UserError(f"a label tree of {depth} levels is too deep; at most {MOST_LEVELS} can be used")
    nodes, names = numbered(unique), []
    for found in nodes:
        shared = Counter(path[-1] for path in found)
        names.append(tuple(path[-1] if shared[path[-1]] == 1 else "/".join(path) for path in found))
    parents = tuple(tuple(upper[path[:-1]] for path in lower) for upper, lower in itertools.pairwise(nodes))
    if levels is not None and len(levels) != depth:
        raise UserError(f"data.levels names {len(levels)} levels ({', '.join(levels)}), but the labels have {depth}")
    unnamed = ["class"] if depth == 1 else [f"level{level + 1}" for level in range(depth)]
    return Taxonomy(tuple(unnamed if levels is None else levels), tuple(names), parents)


def numbered(paths: Collection[Names]) -> list[dict[Names, int]]:
    """Of each level its nodes by their name paths, numbered as they come."""
    nodes: list[dict[Names, int]] = []
    for depth in range(1, max(map(len, paths)) + 1):
        found = dict.fromkeys(path[:depth] for path in paths if len(path) >= depth)
        nodes.append({path: index for index, path in enumerate(found)})
    return nodes


def folder_classes(folders: Iterable[Names]) -> list[Names]:
    """Class paths of the folders that hold images, without a last level that distinguishes nothing.

    In `n01443537/images/*.jpg` it is one folder in each class, always. Where folders end at different depths, it is no
    label only if it is called the same everywhere.
    """
    paths = sorted(set(folders))
    depth = max(map(len, paths), default=0)
    while depth > 1:
        deepest = {path for path in paths if len(path) == depth}
        siblings = Counter(path[:-1] for path in deepest)
        if max(siblings.values()) > 1 or any(path in siblings for path in paths):
            break
        names = {path[-1] for path in deepest}
        alike = len(names) == 1 and (len(deepest) > 1 or names <= _NO_LABELS)
        if len(deepest) < len(paths) and not alike:
            break
        depth -= 1
        paths = sorted({path[:depth] for path in paths})
    return paths


def folder_labels(tree: Taxonomy) -> dict[Names, Labels]:
    """Labels at every level of each node of a `from_paths` tree, by its name path."""
    found: dict[Names, Labels] = {}
    for level, names in enumerate(tree.names):
        for node in range(len(names)):
            labels = tree.node_path(level, node)
            found[tuple(tree.names[lvl][labels[lvl]].rpartition("/")[2] for lvl in range(level + 1))] = labels
    return found


def label_rows(
    rows: Sequence[Names], columns: Sequence[str] | None, tree: Taxonomy, nested: bool = False
) -> tuple[list[Labels], list[str]]:
    """Labels of images at every level of a tree; and of those whose label it lacks that label, else an empty text.

    `rows` are cells of `columns`, coarse first, or folders: the first is the class unless they are `nested`.
    """
    if columns is None:
        flat: dict[Names, Labels] = {(name,): tree.path(leaf) for leaf, name in enumerate(tree.class_names)}
        places = folder_labels(tree) if nested else flat
        found: dict[Names, tuple[Labels, str]] = {}
        for parts in set(rows):
            end = next((end for end in range(len(parts), 0, -1) if parts[:end] in places), 0)
            labels = places[parts[:end]] if end else (UNKNOWN,) * tree.num_levels
            # A class folder may have folders of its own, which mean nothing.
            known_class = end and (end == len(parts) or tree.leaf_of(labels) != UNKNOWN)
            found[parts] = labels, "" if known_class else "/".join(parts)
        return [found[parts][0] for parts in rows], [found[parts][1] for parts in rows]
    known = [set(names) for names in tree.names]
    cells = [[(name, not name or name in level) for name, level in zip(row, known, strict=True)] for row in rows]
    strange = [next((name for name, there in reversed(row) if not there), "") for row in cells]
    return from_columns([[name if there else "" for name, there in row] for row in cells], columns, tree)[1], strange


def from_columns(
    rows: Sequence[Sequence[str]], columns: Sequence[str], tree: Taxonomy | None = None
) -> tuple[Taxonomy, list[Labels]]:
    """A tree from label columns, coarse first, and the labels of every row; an empty cell is unknown.

    Coarse labels that are missing in a row are taken from rows with the same finer label. `tree` is that of the
    training data, which has all of the names.
    """
    # parents[l][name]: the label in column l of `name` in column l + 1, and the first row that says so
    parents: list[dict[str, tuple[str, int]]] = [{} for _ in columns[1:]]
    for number, row in enumerate(rows, start=1):
        for level, (upper, lower) in enumerate(itertools.pairwise(row)):
            if upper and lower:
                known, first = parents[level].setdefault(lower, (upper, number))
                if known != upper:
                    what = f"{columns[level + 1]} {lower!r} has two parents in column {columns[level]}"
                    rows_ = f"{known!r} (row {first}) and {upper!r} (row {number})"
                    raise UserError(f"{what}: {rows_}; correct one of the rows, or give the labels two names")
    if tree is None:
        names, links = list[Names](), []
        for level, column in enumerate(columns):
            found = {row[level] for row in rows if row[level]}
            if not found:
                raise UserError(f"column {column} holds no label; choose other data.label_columns")
            numbers = all(name.lstrip("-").isdigit() for name in found)
            names.append(tuple(sorted(found, key=int) if numbers else sorted(found)))
        for level, above in enumerate(parents):
            column, place = columns[level], {name: index for index, name in enumerate(names[level])}
            if orphans := [name for name in names[level + 1] if name not in above]:
                raise UserError(f"{columns[level + 1]} {orphans[0]!r} never stands beside a {column}; fill that in")
            links.append(tuple(place[above[name][0]] for name in names[level + 1]))
        tree = Taxonomy(tuple(columns), tuple(names), tuple(links))
    index = [{name: node for node, name in enumerate(names)} for names in tree.names]
    labels = []
    for number, row in enumerate(rows, start=1):
        level = max((lvl for lvl, name in enumerate(row) if name), default=-1)
        path = tree.node_path(level, index[level][row[level]]) if level >= 0 else (UNKNOWN,) * tree.num_levels
        for lvl, name in enumerate(row[: max(level, 0)]):
            if name and path[lvl] != index[lvl][name]:
                right = tree.names[lvl][path[lvl]]
                what = f"row {number}: {columns[level]} {row[level]!r} belongs to {columns[lvl]} {right!r}"
                raise UserError(f"{what}, but the row says {name!r}; correct one of them")
        labels.append(path)
    return tree, labels


def from_parents(
    parents: Parents, classes: Sequence[str], levels: Sequence[str] | None = None, graph: bool = False
) -> Taxonomy:
    """A tree from child -> parents; only what lies above `classes` is kept, without top levels of a single node.

    Of a `graph` such as WordNet the first parents count, and nodes with a single child are left out. The order of the
    classes is kept where all of them end at the same depth.
    """
    known = {*parents, *(parent for several in parents.values() for parent in several)}
    if missing := [name for name in classes if name not in known]:
        raise UserError(f"{len(missing)} of {len(classes)} classes are not in the label tree: {some(missing)}")
    if graph:
        parents = {child: above[:1] for child, above in parents.items()}
    paths = [climb(name, parents) for name in classes]
    if graph:
        children = Counter(upper for upper, _ in {link for path in paths for link in itertools.pairwise(path)})
        kept = {*classes, *(name for name, count in children.items() if count > 1)}
        paths = [tuple(name for name in path if name in kept) for path in paths]
    while min(map(len, paths)) > 1 and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    return from_paths(paths, levels)


def climb(name: str, parents: Parents) -> Names:
    """The way from the root down to a node of child -> parents; a `UserError` for two parents or a circle."""
    path = [name]
    while above := parents.get(path[-1]):
        if len(set(above)) > 1:
            raise UserError(f"{path[-1]!r} has two parents in the label tree, {above[0]!r} and {above[1]!r}; keep one")
        if above[0] in path:
            circle = " -> ".join([*path[path.index(above[0]) :], above[0]])
            raise UserError(f"the label tree goes around in a circle: {circle}; remove one of these links")
        path.append(above[0])
        if len(path) > _LONGEST:
            raise UserError(f"the label tree is too deep: {name!r} has more than {_LONGEST} nodes above it")
    return tuple(reversed(path))


def read_tree(path: str | Path, classes: Sequence[str], levels: Sequence[str] | None = None) -> Taxonomy:
    """The label tree of `classes`, names of folders, from a file; `levels` names the levels where the file doesn't.

    * CSV, TSV or text with two columns, child and parent, a header or none. Lines of two WordNet ids are the other way
    round, as in `wordnet.is_a.txt`; a `words.txt` beside it gives their names.
    * JSON: `{"child": "parent"}`, nested groups `{"animals": {"cats": ["lion", "tiger"]}}`, or what `Taxonomy.to_dict`
    returns.
    """
    file = Path(path).expanduser()
    with explained(f"data.taxonomy={path} can't be read", "give a file with the tree", OSError, UnicodeDecodeError):
        text = regular(file).read_text(encoding="utf-8")
    try:
        if file.suffix.lower() == ".json":
            return _from_json(parse_json(text), classes, levels)
        return _from_lines(text, file, classes, levels)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, csv.Error) as error:
        what = error if isinstance(error, UserError) else f"no JSON, or no tree ({reason(error)}); correct it"
        raise UserError(f"data.taxonomy={path}: {what}") from error


def _from_json(data: Any, classes: Sequence[str], levels: Sequence[str] | None) -> Taxonomy:
    if not isinstance(data, Mapping) or not data:
        raise UserError("expected an object of children and parents, or of nested groups")
    if all(isinstance(parent, str) or parent is None for parent in data.values()):
        return from_parents({child: [parent] for child, parent in data.items() if parent}, classes, levels)
    if {"levels", "names", "parents"} <= set(data):
        tree = Taxonomy.from_dict(data)
    else:
        order = {name: place for place, name in enumerate(classes)}
        paths = sorted(_nested(data), key=lambda path: order.get(path[-1], -1))
        if twice := [path[-1] for path, after in itertools.pairwise(paths) if path[-1] == after[-1]]:
            raise UserError(f"class {twice[0]!r} is in two groups")
        tree = from_paths(paths, levels)
    if differing := sorted(set(classes) ^ set(tree.class_names)):
        raise UserError(f"{len(differing)} classes are only in the tree or only among the folders: {some(differing)}")
    return tree


def _nested(data: Any, above: Names = ()) -> list[Names]:
    if isinstance(data, Mapping):
        return [path for name, below in data.items() for path in _nested(below, (*above, str(name)))]
    return [(*above, str(name)) for name in data] if isinstance(data, list) and data else [above]


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
    wordnet = all(map(_WNID.fullmatch, classes))
    tree = from_parents(parents, classes, levels, graph=wordnet)
    if not wordnet:
        return tree
    listed = file.with_name("words.txt")  # as ImageNet has it: id, tab, names with commas between them
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    words = {wnid: called.partition(",")[0].strip() for wnid, _, called in (line.partition("\t") for line in lines)}
    # Inner nodes have words beside their ids; classes keep the names of their folders.
    names = [[f"{words[name]} ({name})" if name in words else name for name in nodes] for nodes in tree.names]
    for level, node in tree.leaves:
        names[level][node] = tree.names[level][node]
    return Taxonomy(tree.levels, tuple(map(tuple, names)), tree.parents)
