"""Outcomes as tables: in the terminal, and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from solo.doctor.case import Case, Outcome
from solo.doctor.columns import Column
from solo.doctor.machine import Fact


@dataclass
class Guarantees:
    """A whole `solo doctor --full`."""

    # (case, column name) -> outcome; None where the column doesn't apply
    cells: dict[tuple[Case, str], Outcome | None] = field(default_factory=dict)
    facts: Sequence[Fact] = ()  # versions and devices it was run with

    @property
    def ok(self) -> bool:
        """Whether all cells are green."""
        return all(outcome is None or outcome.ok for outcome in self.cells.values())


def facts_table(title: str, facts: Sequence[Fact]) -> Table:
    """Facts of the machine as a table of the terminal of names and values."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    return table


def checks_table(rows: Mapping[str, Outcome]) -> Table:
    """One check a row, with the figure that decides."""
    table = Table(title="checks", title_justify="left")
    for heading in ("check", "result", "figure"):
        table.add_column(heading, overflow="fold")
    for name, outcome in rows.items():
        table.add_row(name, _mark(outcome), Text(outcome.detail))
    return table


def guarantees_table(found: Guarantees, columns: Sequence[Column]) -> Table:
    """The outcomes as a table of the terminal, cases down and guarantees across."""
    table = Table(title="guarantees", title_justify="left")
    for heading in ("method", "type", *(column.name for column in columns)):
        table.add_column(heading)
    for case in dict.fromkeys(case for case, _ in found.cells):
        table.add_row(case.method, case.type, *(_mark(found.cells[case, column.name]) for column in columns))
    return table


def _mark(outcome: Outcome | None) -> Text:
    if outcome is None:
        return Text("-")
    return Text("ok", style="green") if outcome.ok else Text("FAILED", style="bold red")


def page(found: Guarantees, columns: Sequence[Column]) -> str:
    """The whole text of `docs/guarantees.md`."""
    lines = [
        "# Guarantees",
        "",
        "Written by `solo doctor --full`; don't edit. A cell is `ok`, or the figure that failed; `-` where the column "
        "has no meaning. Run it on your machine: it leaves with 1 if a cell fails. Each check is "
        "tested with bugs that it must see (`tests/doctor/faults.py`).",
        "Faults that were tried from outside, and what happens then: [faults.md](faults.md), made by the tests.",
        "",
        *(f"- **{column.name}**: {column.says}." for column in columns),
        "",
        f"| method | type | {' | '.join(column.name for column in columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for case in dict.fromkeys(case for case, _ in found.cells):
        cells = (_cell(found.cells, case, column) for column in columns)
        lines.append(f"| `{case.method}` | `{case.type}` | {' | '.join(cells)} |")
    lines += ["", "## Machine", "", *(f"- {name}: {value}" for name, value in found.facts), ""]
    return "\n".join(lines)


def _cell(cells: Mapping[tuple[Case, str], Outcome | None], case: Case, column: Column) -> str:
    if (case, column.name) not in cells:
        return "not run"
    outcome = cells[case, column.name]
    if outcome is None:
        return "-"
    return "ok" if outcome.ok else f"**{_escape(outcome.detail)}**"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
