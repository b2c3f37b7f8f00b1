"""The way of a config, whoever calls: older names -> `check` -> `check_*` -> `resolve`."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from solo.args.check import ParseError, Problem, check
from solo.args.check_method import check_labels_of_method, check_method, count_views
from solo.args.check_run import (
    check_data,
    check_files,
    check_folders,
    check_levels,
    check_run,
    obtain_all,
    remarks,
    spec_of,
    to_fetch,
)
from solo.args.config import freeze
from solo.args.fields import declarations, keys_of, walk
from solo.args.origins import COMMAND_LINE, Origins
from solo.args.outside import check_outside
from solo.args.resolve import BASE_BATCH, global_batch, keeps_classifier_lr, resolve
from solo.args.source import check_source
from solo.args.unread import unread_keys
from solo.compat.keys import Modern, modernise
from solo.data.catalogue.registry import DatasetSpec, resolve_spec
from solo.data.catalogue.rows import SMALL
from solo.errors import UserError
from solo.methods.catalogue import facts_of


@dataclass(frozen=True)
class Parsed:
    """A config that can run."""

    values: dict[str, Any]  # plain dicts and lists, complete and resolved
    config: Any  # the same as a frozen instance of the schema, with the resolved data set: what a run reads
    origins: dict[str, str]  # key -> where its value came from; keys that aren't there hold the schema's default
    notes: list[str]  # one-line remarks for the user
    # what the run has to call first, where its data aren't on this machine: fetches them, and gives the config that
    # knows them; `None` where they are here
    fetch: Callable[[], Parsed] | None = None


def parse(
    values: Mapping[str, Any],
    schema: type,
    origins: Mapping[str, str] | None = None,
    for_run: bool = False,
    from_code: bool = False,
    fetch: bool = False,
) -> Parsed:
    """From what the user wrote to what a run reads; looks at the disk, and touches no network.

    `origins` has the place of each key as written, for messages; that of `""` is the whole config's. `for_run` also
    looks whether folders and files are there. In a program's own config (`from_code`) what the program may have added
    (a method, an optimizer, ...) or may still add (a checkpoint, method_kwargs) is the program's to check. `fetch` gets
    what is not on this machine first. Raises a `ParseError` with all problems, one a line.
    """
    places = Origins(origins or {})
    modern = modernise(values, own={*keys_of(schema), *(name for name, _ in walk(schema))})
    places.spelled = modern.spelled

    def typed(key: str) -> bool:
        return places.of(places.spelled.get(key, key)) == COMMAND_LINE

    declared = -1
    while declared != declarations():  # a plug-in that was imported just now has keys of its own
        declared = declarations()
        checked, problems = check(modern.values, schema, open_names=from_code)
        problems += check_outside(checked, None if origins is None else typed)
    problems = [*modern.problems, *problems, *check_method(checked, from_code), *check_source(checked)]
    problems += [*check_data(checked), *check_run(checked)]
    if from_code:  # what models and programs ask for themselves, after parsing
        late = ("method_kwargs.", "pretrained_feature_extractor")
        problems = [
            (key, text) for key, text in problems if not (key.startswith(late) and text.startswith(" is missing"))
        ]
    absent: list[str | None] = []
    with contextlib.suppress(UserError):  # it can't be fetched, which `check_folders` says
        absent = [] if problems else to_fetch(checked)
    if fetch and absent and for_run:
        obtain_all(checked, absent)
        absent = []
    spec, wrong = None, None
    try:  # of a data set that nobody knows nothing is to be said here
        spec = resolve_spec(checked["data"], fetch) if spec_of(checked) else None
    except UserError as error:
        wrong = _data_problem(error)
    known = spec if not absent or (spec and spec.taxonomy) else None  # what isn't here has no levels yet
    if not problems:
        problems += check_labels_of_method(checked, known)
    problems += check_levels(checked, known)
    idle = list(unread_keys(checked, schema, typed))
    problems += [problem for typed, problem in idle if typed]
    if for_run:
        problems += [*check_folders(checked), *check_files(checked), *count_views(checked)]
    features = bool(checked.get("features"))  # a file with everything in it
    if not problems and not features and wrong:
        problems = [wrong]
    if problems or (spec is None and not features):
        raise ParseError(places.text(problems))
    notes = [places.line(note) for note in modern.notes]
    resolved, derived = {**checked, "name": checked["name"] or "features"}, dict[str, str]()
    if spec is not None:
        try:
            resolved, derived = resolve(checked, spec)
        except UserError as error:  # classes can't be counted
            raise ParseError(places.line(_data_problem(error))) from error
        notes += [*(places.line(problem) for _, problem in idle), *_notes(checked, resolved, spec)]
    again = None
    if absent and for_run:
        again = functools.partial(parse, values, schema, origins, for_run, from_code, fetch=True)
        where = ", ".join(place or "the package's folder" for place in absent)
        notes.append(f"data.dataset={checked['data']['dataset']} is not in {where}; the run begins by fetching it")
    data, facts = {**resolved["data"], "resolved": spec}, facts_of(resolved.get("method"))
    config: Any = freeze({**resolved, "data": data}, schema, facts.kwargs if facts else None)
    return Parsed(resolved, config, _origins(places, modern, derived), notes, again)


def _data_problem(error: UserError) -> Problem:
    named = re.match(r"data\.\w+", str(error))
    return (named[0], str(error)[named.end() :]) if named else ("data.train_path", f": {error}")


def _origins(places: Origins, modern: Modern, derived: Mapping[str, str]) -> dict[str, str]:
    """Places under today's keys; a derived value that has a place says both."""
    origins = {key: place for key, place in places.items() if key}
    for new, old in modern.spelled.items():
        if old in origins:
            origins[new] = f"{origins[old]} ({old})"
    for key, how in derived.items():
        written = places.of(key) if how.startswith("x ") else None
        origins[key] = f"{written}, {how}" if written else how
    return origins


def _notes(written: Mapping[str, Any], found: Mapping[str, Any], spec: DatasetSpec) -> Iterator[str]:
    """What the library has made of a config that was `written`, where that may be unexpected; `found` is resolved."""
    row = spec_of(written)
    seen = found if row and row.folders else written  # what is found beside own images counts as given
    given = {**written, "data": {**written["data"], "val_path": seen["data"]["val_path"]}}
    data, tree, batch = written["data"], spec.taxonomy, global_batch(given) if "optimizer" in given else 0
    pretrains, size = "method" in written, found["data"].get("image_size")
    if pretrains and not given["optimizer"]["lr_scaled"] and keeps_classifier_lr(given) and batch != BASE_BATCH:
        yield f"optimizer.classifier_lr is not scaled to the global batch of {batch}: data.val_path is not set"
    if data["levels"] is None and tree is not None and spec.nested:
        sizes = ", ".join(f"{name} ({len(nodes)})" for name, nodes in zip(tree.levels, tree.names, strict=True))
        yield f"data.train_path holds nested folders, read as a label tree: {sizes}; data.levels=flat turns that off"
    yield from spec.notes
    side = spec.sample.side
    if pretrains and side and size and size >= 1.5 * side:
        stem = " data.small_stem=true" if side <= SMALL and not spec.small_stem else ""
        what = f"the images of data.train_path have about {side} pixels a side and are enlarged to {size}"
        yield f"{what}; data.image_size={side}{stem} (and crop_size, where it is written down) trains faster, as well"
    if data["dataset"] == "custom" and data["val_path"] is None and found["data"]["val_path"]:
        yield f"data.val_path={found['data']['val_path']}, found beside data.train_path"
    yield from remarks(found)
