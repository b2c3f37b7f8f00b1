"""`--multirun`: each run is a program of its own, one after the other; one that fails doesn't stop the others."""

import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from solo.args.words import Sweep
from solo.run.report import grid, say


def multirun(command: str, recipe: Sequence[str], sweep: Sweep) -> int:
    """Start all runs of a sweep and wait for them; 0 if all left with 0, else 1."""
    rows: list[tuple[str, Text, str]] = []
    for number, (words, differing) in enumerate(zip(*sweep, strict=True), start=1):
        say(f"\nrun {number} of {len(sweep.jobs)}: {' '.join(differing)}")
        sys.stdout.flush()
        code = subprocess.call([sys.executable, "-m", "solo", command, *recipe, *words])
        rows.append((str(number), Text(" ".join(differing)), str(code)))
    Console(highlight=False).print(grid("runs", ("run", "with", "exit code"), rows))
    return 0 if all(code == "0" for *_, code in rows) else 1
