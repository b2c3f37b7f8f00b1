"""A report of tables as Markdown, HTML and JSON: what `solo experiment` and `solo benchmark` write."""

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        parts = [f"<h1>{html.escape(self.title)}</h1><p><code>{html.escape(self.command)}</code></p>"]
        if picture is not None:
            data = base64.b64encode(picture).decode()
            parts.append(f'<img alt="differences" src="data:image/png;base64,{data}">')
        for heading, lines in self.tables.items():
            parts.append(f"<h2>{html.escape(heading)}</h2>" if heading else "")
            kinds = ["th", *["td"] * (len(lines) - 1)]
            rows = (
                "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
                for tag, line in zip(kinds, lines, strict=True)
            )
            parts.append(f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
        parts += [f"<p>{html.escape(line)}</p>" for line in self.remarks]
        parts += [f"<pre>{html.escape(self.file)}</pre>"] if self.file else []
        return _PAGE.format(title=html.escape(self.title), body="\n".join(parts))

    def write(self, folder: Path, plain: Mapping[str, Any], picture: bytes | None = None) -> list[str]:
        """Write `report.html`, `report.md` and, of plain values, `report.json`; their names."""
        texts = {
            "report.html": self.html(picture),
            "report.md": self.markdown(),
            "report.json": json.dumps(_finite(plain), indent=1) + "\n",
        }
        for name, text in texts.items():
            write_text(folder / name, text)
        return [*texts]


def _finite(value: Any) -> Any:
    """None in place of NaN, which JSON doesn't know."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ margin: 2rem auto; max-width: 76rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; color: #2b2a27 }}
img {{ max-width: 100% }} table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #e6e5e1 }}
code, pre {{ overflow-wrap: anywhere; white-space: pre-wrap }}
</style></head><body>
{body}
</body></html>
"""
