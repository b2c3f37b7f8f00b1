"""`docs/faults.md`: the faults that were tried, from the marks of the tests that hold what happens now.

`python tests/faults.py` writes the page; `tests/test_faults.py` holds that it lists exactly the marked ones.
"""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "faults.md"
SECTIONS = {
    1: "Words and paths",
    2: "Images and folders",
    3: "Sizes and crops",
    4: "Weights from elsewhere",
    5: "Never lost, never fooled",
    6: "What the numbers say",
    7: "Code written for solo-learn",
}
_HEAD = """# Faults that were tried

Each row is something that was done to the library, and what happens then; the test named behind it does it again with
every change. Written by `python tests/faults.py` from the marks `@pytest.mark.fault(section, tried, outcome)`; don't
edit.
"""


def marks() -> list[tuple[int, str, str, str]]:
    """(section, what was tried, what happens, `folder/test_file.py`) of every mark, in the order of sections and files.

    Read from the source, so that it needs no collection and finds marks of parametrised rows, too.

    Raises:
        ValueError: a mark has other arguments than a section and two literal texts; says where.
    """
    found = []
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "mark.fault" in text else ():
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.fault")):
                continue
            try:
                section, tried, outcome = (ast.literal_eval(part) for part in node.args)
            except ValueError:
                section = tried = outcome = None
            if section not in SECTIONS or not (isinstance(tried, str) and isinstance(outcome, str)):
                raise ValueError(f"{file}:{node.lineno}: write pytest.mark.fault(SECTION, 'tried', 'what happens')")
            found.append((section, node.lineno, tried, outcome, file.relative_to(TESTS).as_posix()))
    return [(mark[0], *mark[2:]) for mark in sorted(found, key=lambda mark: (mark[0], mark[4], mark[1]))]


def page() -> str:
    """The whole page."""
    parts, rows = [_HEAD], marks()
    for number, title in SECTIONS.items():
        own = [row[1:] for row in rows if row[0] == number]
        if own:
            lines = [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in own]
            parts.append("\n".join([f"## {title}\n", "| tried | what happens | test |", "|---|---|---|", *lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
