"""The rows of an experiment: one line of JSON for each run that has ended, in `rows.jsonl`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from solo.errors import UserError

Row = dict[str, Any]
NAME = "rows.jsonl"


def read_rows(folder: Path) -> dict[str, Row]:
    """Rows by the id of their run; half a line at the end, of a process that was killed, is cut off.

    Raises:
        UserError: another line is damaged.
    """
    file = folder / NAME
    content = file.read_bytes() if file.is_file() else b""
    if not content.endswith(b"\n") and content:
        content = content[: content.rfind(b"\n") + 1]
        os.truncate(file, len(content))
    rows: dict[str, Row] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[row["id"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}, line {number} is damaged; take it out, and its run is done again") from error
    return rows


def add_row(folder: Path, row: Row) -> None:
    """Append a row in one piece, and wait until it is on disk."""
    with (folder / NAME).open("ab", buffering=0) as file:
        file.write(json.dumps(row, default=str).encode() + b"\n")
        os.fsync(file.fileno())
