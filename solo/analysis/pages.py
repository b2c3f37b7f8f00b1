"""What lies in `page/`: HTML pages as Jinja's templates, and the words of figures and protocols."""

import base64
from collections.abc import Callable
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


def embedded(picture: bytes, kind: str = "png") -> str:
    """The address of a picture that is in the page itself, for `src`."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
