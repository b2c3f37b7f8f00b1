"""The rows of an experiment: one line of JSON for each run that has ended, in `rows.jsonl`."""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solo.errors import UserError
from solo.untrusted import parse_json

Row = dict[str, Any]
NAME = "rows.jsonl"


def read_rows(folder: Path, needs: Sequence[str] = ()) -> dict[str, Row]:
    """Rows by the id of their run; half a line at the end, of a process that was killed, is cut off.

    Raises:
        UserError: another line is damaged, or its row has none of the keys `needs`.
    """
    file = folder / NAME
    content = file.read_bytes() if file.is_file() else b""
    if not content.endswith(b"\n") and content:
        content = content[: content.rfind(b"\n") + 1]
        os.truncate(file, len(content))
    rows: dict[str, Row] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = parse_json(line)
            if row.pop("crc", None) not in (None, _checksum(row)) or not {"id", *needs} <= row.keys():
                raise ValueError("another row was written here")
            rows[row["id"]] = row
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}, line {number} is damaged; take it out, and its run is done again") from error
    return rows


def add_row(folder: Path, row: Row) -> None:
    """Append a row in one piece, and wait until it is on disk."""
    plain = json.loads(json.dumps(row, default=str))
    with (folder / NAME).open("ab", buffering=0) as file:
        file.write(json.dumps({**plain, "crc": _checksum(plain)}).encode() + b"\n")
        os.fsync(file.fileno())


def _checksum(row: Row) -> int:
    return zlib.crc32(json.dumps(row).encode())
