"""What lies in `page/`: HTML pages as Jinja's templates, and the words of figures and protocols."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment
from markupsafe import Markup

from solo.screen import shown


@cache
def page_file(name: str) -> str:
    """The text of a file in `page/`."""
    return resources.files("solo.analysis").joinpath("page", name).read_text(encoding="utf-8")


@cache
def words_of(name: str) -> Any:
    """What `<name>.yaml` in `page/` holds: mappings of texts with fields to fill."""
    return yaml.safe_load(page_file(f"{name}.yaml"))


def render(name: str, show: Callable[[object], str] = shown, **values: Any) -> str:
    """The template of this name, filled: all text goes through `show`, and its marks are escaped."""
    page = Environment(autoescape=True, finalize=lambda x: x if isinstance(x, Markup) else show(x))
    return page.from_string(page_file(name)).render(**values)


def embedded(picture: bytes, kind: str = "png") -> Markup:
    """The address of a picture that is in the page itself, for `src`."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(picture).decode()}")


Lines = Sequence[Sequence[str]]  # of a table: its heading, then its rows


def markdown_table(lines: Lines) -> str:
    """The Markdown of a table whose first line is its heading; `|` in a cell is escaped."""
    head, *rows = lines
    cells = ([cell.replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def finite(value: Any, digits: int | None = None) -> Any:
    """None for what isn't finite, which JSON doesn't know, in mappings and lists; else floats of significant digits."""
    if isinstance(value, Mapping):
        return {key: finite(inner, digits) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner, digits) for inner in value]
    if not isinstance(value, float):
        return value
    return None if not math.isfinite(value) else value if digits is None else float(f"{value:.{digits}g}")
