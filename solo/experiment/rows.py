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
    """Rows by the id of their run; half a line at the end, of a process that was killed, doesn't count.

    Raises:
        UserError: another line is damaged.
    """
    file = folder / NAME
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[row["id"]] = row
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise UserError(f"{file}, line {number} is damaged; take it out, and its run is done again") from error
    return rows


def add_row(folder: Path, row: Row) -> None:
    """Append a row in one piece, and wait until it is on disk."""
    file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        size = os.lseek(file, 0, os.SEEK_END)
        if size and os.pread(file, 1, size - 1) != b"\n":  # half a line
            whole = os.pread(file, size, 0).rfind(b"\n") + 1
            os.ftruncate(file, whole)
            os.lseek(file, whole, os.SEEK_SET)
        os.write(file, json.dumps(row, default=str).encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
