"""A report of tables as Markdown, HTML and JSON: what `solo experiment` and `solo benchmark` write."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solo.analysis.pages import embedded, render
from solo.files import write_text

Lines = Sequence[Sequence[str]]  # of a table: its heading, then its rows


def markdown_table(lines: Lines) -> str:
    """The Markdown of a table whose first line is its heading; `|` in a cell is escaped."""
    head, *rows = lines
    cells = ([cell.replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


@dataclass(frozen=True)
class Written:
    """What is written, in the order of the fields."""

    title: str
    command: str  # that makes it
    tables: Mapping[str, Lines]  # under their headings, "" for none
    remarks: Sequence[str]
    file: str = ""  # text of the YAML file that asked for it

    def markdown(self) -> str:
        """All of it as Markdown, a heading each."""
        parts = [f"# {self.title}", f"`{self.command}`"]
        for heading, lines in self.tables.items():
            parts += [f"## {heading}"] if heading else []
            parts.append(markdown_table(lines))
        parts += [*self.remarks, *([f"```yaml\n{self.file.strip()}\n```"] if self.file else [])]
        return "\n\n".join(parts) + "\n"

    def html(self, picture: bytes | None = None) -> str:
        """As one file of HTML with everything in it; `picture` is a PNG."""
        return render("tables.html", **vars(self), picture=embedded(picture) if picture else "")

    def write(self, folder: Path, plain: Mapping[str, Any], picture: bytes | None = None) -> list[str]:
        """Write `report.html`, `report.md` and, of plain values, `report.json`; their names."""
        texts = {
            "report.html": self.html(picture),
            "report.md": self.markdown(),
            "report.json": json.dumps(finite(plain), indent=1) + "\n",
        }
        for name, text in texts.items():
            write_text(folder / name, text)
        return [*texts]


def finite(value: Any, digits: int | None = None) -> Any:
    """None in place of what isn't finite, which JSON doesn't know, in mappings and lists; other floats may be rounded.

    `digits` are significant ones.
    """
    if isinstance(value, Mapping):
        return {key: finite(inner, digits) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner, digits) for inner in value]
    if not isinstance(value, float):
        return value
    return None if not math.isfinite(value) else value if digits is None else float(f"{value:.{digits}g}")
