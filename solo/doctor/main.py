"""`solo doctor`: is this installation right on this machine? Versions, devices, guarantees."""

import functools
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from solo.args.compose import LineParser
from solo.callbacks.recorder import versions as installed
from solo.compat import twin
from solo.cores import usable_cores
from solo.doctor.parity import parities
from solo.doctor.resume import resume
from solo.doctor.toy import Case, Outcome, failure
from solo.files import write_text
from solo.methods.catalogue import CATALOGUE, names
from solo.run.report import grid

Fact = tuple[str, str]


def machine() -> list[Fact]:
    """Versions that decide what a run computes; processor, memory, GPUs, and what processes talk through."""
    packages = installed("torchvision", "numpy", "pillow")
    packages["python"] += f" on {platform.system()} {platform.machine()}"
    cores = f"{usable_cores()} cores, torch uses {torch.get_num_threads()} of them in a process"
    found = [*packages.items(), ("processor", cores)]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found.append(("memory", f"{size / 2**30:.1f} GiB"))
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append((f"cuda:{index}", f"{card.name}, {card.total_memory / 2**30:.1f} GiB"))
    if torch.cuda.is_available():
        found.append(("bf16 on GPU", "yes" if torch.cuda.is_bf16_supported() else "no: use precision=16-mixed"))
    elif torch.backends.mps.is_available():
        found.append(("mps", "available"))
    else:
        found.append(("GPU", "none visible"))
    backends = [name for name in ("gloo", "nccl", "mpi") if getattr(torch.distributed, f"is_{name}_available", bool)()]
    found.append(("processes talk by", ", ".join(backends) or "nothing: torch has no distributed package"))
    return found


@dataclass(frozen=True)
class Column:
    """One guarantee, and how it is checked."""

    name: str  # its heading
    says: str  # what a green cell means, in one sentence
    run: Callable[[Sequence[Case]], list[Outcome]]


COLUMNS = (
    Column(
        "parity 2",
        "loss, gradients, metrics and state on 2 processes equal those of one on the whole batch (1e-6, float64)",
        parities,
    ),
    Column("parity 4", "the same on 4 processes", functools.partial(parities, processes=4)),
    Column(
        "resume",
        "k steps, an end by force, n steps: the same weights, to the last bit, as k + n steps",
        lambda cases: [resume(case) for case in cases],
    ),
)


def all_cases() -> list[Case]:
    """Every method with its own loss, and with HEX where it has a place for it."""
    found = [Case(method) for method in names()]
    found += [Case(method, "HEX_adaptive") for method in names(lambda facts: facts.hex)]
    return sorted(found, key=lambda case: (case.method, case.type != "standard"))


PAGE = "docs/guarantees.md"
# A contrastive loss with HEX, a queue, statistics of the batch, and a slow copy.
QUICK = tuple(
    Case(name, "HEX_adaptive" if CATALOGUE[name].negatives == "rows" else "standard")
    for name in sorted(names(lambda facts: facts.quick), key=lambda name: CATALOGUE[name].negatives != "rows")
)

Say = Callable[[str], None]
Cells = dict[tuple[Case, str], Outcome]  # (case, column's name) -> outcome


def main(words: Sequence[str]) -> int:
    """Look, check, print; 0, or 1 if a check fails. Without `--full` a few methods stand for the rest."""
    parser = LineParser(prog="solo doctor", description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"check every method and write {PAGE}")
    parser.add_argument("--page", default=PAGE, help="where --full writes its table")
    parser.add_argument("--methods", nargs="+", help="--full: only these methods")
    if {"-h", "--help"} & set(words):
        parser.print_help()
        return 0
    given = parser.parse_args(list(words))
    screen = Console(soft_wrap=False, highlight=False, width=None if os.isatty(1) else 160)
    say = functools.partial(screen.print, markup=False, soft_wrap=True)
    facts = machine()
    screen.print(grid("machine", (), facts))
    if other := twin():
        say(f"warning: {other}")
    cases: Sequence[Case] = QUICK
    columns = [column for column in COLUMNS if given.full or column.name != "parity 4"]
    file = Path(given.page).expanduser()
    if given.full:
        cases = [case for case in all_cases() if not given.methods or case.method in given.methods]
        file.parent.mkdir(parents=True, exist_ok=True)

    def keep(found: Cells) -> None:
        if given.full:
            write_text(file, page(found, columns, facts))

    found = guarantees(say, cases, columns, keep)
    heads = [column.name for column in columns]
    marks: dict[bool, str | Text] = {True: Text("ok", style="green"), False: Text("FAILED", style="bold red")}
    rows = ([case.method, case.type, *(marks[found[case, name].ok] for name in heads)] for case in cases)
    screen.print(grid("guarantees", ("method", "type", *heads), rows))
    failed = [f"{name}, {case}: {outcome.detail}" for (case, name), outcome in found.items() if not outcome.ok]
    for line in failed:
        say(line)
    end = f"written: {file}" if given.full else "`solo doctor --full` checks every method"
    say(f"{f'{len(failed)} checks failed' if failed else 'all checks passed'}; {end}")
    return 1 if failed else 0


def guarantees(
    say: Say, cases: Sequence[Case], columns: Sequence[Column] = COLUMNS, keep: Callable[[Cells], None] = lambda _: None
) -> Cells:
    """Every case in every column; `keep` gets what there is after each, so that nothing is lost by an interruption."""
    found: Cells = {}
    for column in columns:
        start = time.perf_counter()
        try:
            outcomes = column.run(cases)
        except Exception as error:
            outcomes = [failure(error)] * len(cases)
        found |= {(case, column.name): outcome for case, outcome in zip(cases, outcomes, strict=True)}
        green = sum(outcome.ok for outcome in outcomes)
        say(f"{column.name}: {green} of {len(outcomes)} ok ({time.perf_counter() - start:.0f} s)")
        keep(found)
    return found


def page(found: Cells, columns: Sequence[Column], facts: Sequence[Fact]) -> str:
    """The whole text of `docs/guarantees.md`."""
    rows = []
    for case in dict.fromkeys(case for case, _ in found):
        cells = [_cell(found.get((case, column.name))) for column in columns]
        rows.append(f"| `{case.method}` | `{case.type}` | {' | '.join(cells)} |")
    told = resources.files("solo.doctor").joinpath("guarantees.md").read_text(encoding="utf-8")
    return told.format(
        columns="\n".join(f"- **{column.name}**: {column.says}." for column in columns),
        names=" | ".join(column.name for column in columns),
        line="---|" * len(columns),
        rows="\n".join(rows),
        machine="\n".join(f"- {name}: {value}" for name, value in facts),
    )


def _cell(outcome: Outcome | None) -> str:
    """A cell of the page, with the figure that failed."""
    if outcome is None or outcome.ok:
        return "ok" if outcome else "not run"
    return f"**{' '.join(outcome.detail.split())}**".replace("|", "\\|").replace("<", "&lt;")
