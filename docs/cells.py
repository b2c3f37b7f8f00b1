"""Runs the code cells of a notebook in order, in one namespace, and gives what a reader would see of them.

The site is built with it, so that no output there is old; the tests run it, and `python docs/cells.py FILE`.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def cells(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Kind (`markdown`, `code`), source, and what it gives, as Markdown; runs in an empty folder."""
    space: dict[str, Any] = {"__name__": "__main__"}
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        os.chdir(folder)
        try:
            for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
                source = "".join(cell["source"])
                yield cell["cell_type"], source, _run(source, space) if cell["cell_type"] == "code" else []
        finally:
            os.chdir(before)


def _run(source: str, space: dict[str, Any]) -> list[str]:
    tree, told = ast.parse(source), io.StringIO()
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(told):
        exec(compile(tree, "cell", "exec"), space)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), space) if last else None
    return [f"```text\n{told.getvalue().rstrip()}\n```"] * bool(told.getvalue().strip()) + _shown(value)


def _shown(value: Any) -> list[str]:
    if value is None:
        return []
    if hasattr(value, "savefig") or hasattr(value, "convert"):  # a figure of Matplotlib, an image of Pillow
        stream = io.BytesIO()
        value.savefig(stream, format="png", dpi=90) if hasattr(value, "savefig") else value.save(stream, "PNG")
        return [f"![what the cell shows](data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()})"]
    return [f"```text\n{value!r}\n```"]


def markdown(file: Path) -> str:
    """The whole notebook with fresh results, as a page."""
    parts = []
    for kind, source, given in cells(file):
        parts += [source] if kind == "markdown" else [f"```python\n{source}\n```", *given]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown(Path(sys.argv[1]).resolve()))
