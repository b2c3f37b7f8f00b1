"""`solo doctor`: is this installation right on this machine? Versions, devices, speed of the data path, guarantees."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from solo.args.words import LineParser
from solo.compat.twin import twin
from solo.doctor.case import Case, Outcome
from solo.doctor.columns import COLUMNS, Column, all_cases
from solo.doctor.determinism import determinism
from solo.doctor.machine import bandwidth, devices, versions
from solo.doctor.table import Guarantees, checks_table, facts_table, guarantees_table, page
from solo.files import write_text
from solo.methods.catalogue import CATALOGUE, names

PAGE = "docs/guarantees.md"
# A contrastive loss with HEX, a queue, statistics of the batch, and a slow copy.
QUICK = tuple(
    Case(name, "HEX_adaptive" if CATALOGUE[name].negatives == "rows" else "standard")
    for name in sorted(names(lambda facts: facts.quick), key=lambda name: CATALOGUE[name].negatives != "rows")
)

Say = Callable[[str], None]


def main(words: Sequence[str]) -> int:
    """Look, check, print.

    Args:
        words: the command line behind `solo doctor`.

    Returns:
        0, or 1 if a check fails.

    Raises:
        UserError: a folder that can't be written or read.
    """
    parser = _parser()
    if {"-h", "--help"} & set(words):
        parser.print_help()
        return 0
    given = parser.parse_args(list(words))
    screen = Console(soft_wrap=False, highlight=False, width=None if os.isatty(1) else 160)
    if given.replay is not None:
        from solo.doctor.replay import replay

        return replay(Path(given.replay).expanduser(), screen)
    facts = [*versions(), *devices()]
    screen.print(facts_table("machine", facts))
    if other := twin():
        screen.print(f"warning: {other}", markup=False, soft_wrap=True)
    if given.full:
        return _full(screen, facts, Path(given.page).expanduser(), given.methods)
    screen.print(facts_table("data path, one core", bandwidth(Path(given.folder) if given.folder else None)))
    start = time.perf_counter()
    rows = quick()
    screen.print(checks_table(rows))
    failed = [name for name, outcome in rows.items() if not outcome.ok]
    end = f"failed: {', '.join(failed)}" if failed else "all checks passed"
    screen.print(f"{end} ({time.perf_counter() - start:.0f} s); `solo doctor --full` checks every method", markup=False)
    return 1 if failed else 0


def quick() -> dict[str, Outcome]:
    """Parity on two processes, resume and determinism, for a few methods that stand for the rest."""
    parity, resume = (next(column for column in COLUMNS if column.name == name) for name in ("parity 2", "resume"))
    rows = {f"two processes = one, {_name(case)}": found for case, found in _applied(parity, QUICK)}
    rows |= {f"resumed = uninterrupted, {_name(case)}": found for case, found in _applied(resume, QUICK[:2])}
    rows |= {f"same seed = same weights, {_name(QUICK[0])}": determinism(QUICK[0])}
    return rows


def guarantees(
    say: Say,
    cases: Sequence[Case],
    columns: Sequence[Column] = COLUMNS,
    keep: Callable[[Guarantees], None] = lambda found: None,
) -> Guarantees:
    """Every case in every column.

    Args:
        say: prints a line for each column.
        cases: the rows.
        columns: what is checked.
        keep: called after each column, so that nothing is lost if a later one is interrupted.
    """
    found = Guarantees()
    for column in columns:
        start = time.perf_counter()
        outcomes = column.check(cases)
        found.cells |= {(case, column.name): outcome for case, outcome in zip(cases, outcomes, strict=True)}
        green = sum(outcome is not None and outcome.ok for outcome in outcomes)
        applies = sum(outcome is not None for outcome in outcomes)
        say(f"{column.name}: {green} of {applies} ok ({time.perf_counter() - start:.0f} s)")
        keep(found)
    return found


def _full(screen: Console, facts: Sequence[tuple[str, str]], file: Path, methods: Sequence[str] | None) -> int:
    cases = [case for case in all_cases() if not methods or case.method in methods]
    file.parent.mkdir(parents=True, exist_ok=True)

    def keep(found: Guarantees) -> None:
        found.facts = facts
        write_text(file, page(found, COLUMNS))

    found = guarantees(lambda line: screen.print(line, markup=False), cases, COLUMNS, keep)
    screen.print(guarantees_table(found, COLUMNS))
    for (case, name), outcome in found.cells.items():
        if outcome is not None and not outcome.ok:
            screen.print(f"{name}, {_name(case)}: {outcome.detail}", markup=False)
    screen.print(f"written: {file}", markup=False)
    return 0 if found.ok else 1


def _applied(column: Column, cases: Sequence[Case]) -> list[tuple[Case, Outcome]]:
    outcomes = column.check(cases)
    return [(case, outcome) for case, outcome in zip(cases, outcomes, strict=True) if outcome is not None]


def _name(case: Case) -> str:
    return case.method if case.type == "standard" else f"{case.method} {case.type}"


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(prog="solo doctor", description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"check every method and write {PAGE}")
    parser.add_argument("--page", default=PAGE, help="where --full writes its table")
    parser.add_argument("--methods", nargs="+", help="--full: only these methods")
    parser.add_argument("--folder", help="where the disk is measured; default: the folder for temporary files")
    parser.add_argument("--replay", metavar="FOLDER", help="run a saved batch that gave a non-finite loss once more")
    return parser
