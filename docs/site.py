"""Pages that mkdocs makes while it builds: one for each method, from what the code says of it, and the notebooks.

A page has the method's own docstring, a picture of how it is put together, its loss, its keys and its recipe, so that
none of them can grow old.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from cells import markdown
from mkdocs.structure.files import File, Files

from solo.args.fields import describe_type, keys_of
from solo.methods import METHODS
from solo.methods.catalogue import CATALOGUE, MethodFacts

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts" / "pretrain"

HEX = {
    "replaces": "`type=HEX_adaptive` replaces its loss by [HEX](../hierarchical.md).",
    "blends": "`type=HEX_adaptive` blends HEX in: `(1 - alpha) * own + alpha * scale * HEX`.",
    "denominator": "`type=HEX_adaptive` gives its loss the denominator of HEX.",
    None: "HEX has no place in it.",
}
COLLAPSE = {
    "contrast": "other images, from which it is told apart",
    "prediction": "a target that gets no gradient",
    "decorrelation": "features that have to vary, each by itself",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for name, facts in CATALOGUE.items():
        files.append(File.generated(config, f"methods/{name}.md", content=page(name, facts)))
    files.append(File.generated(config, "methods/index.md", content=index()))
    for file in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        link = f"[Download this notebook]({file.name})\n"
        files.append(File.generated(config, f"notebooks/{file.stem}.md", content=f"{markdown(file)}\n{link}"))
    figures = (ROOT / "visuals" / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "visuals/index.md", content=figures))
    for picture in sorted((ROOT / "visuals").glob("*.png")):
        files.append(File.generated(config, f"visuals/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The site has the folder of pictures, which lies beside that of the docs, inside of it."""
    return markdown.replace("](../visuals/", "](visuals/")


def index() -> str:
    """A table of all of them."""
    rows = [
        f"| [{name}]({name}.md) | {_title(facts)} | {facts.hex or '-'} | {'yes' if facts.momentum else '-'} | "
        f"{'yes' if facts.small_views else '-'} | {facts.labels or '-'} |"
        for name, facts in CATALOGUE.items()
    ]
    head = ["# Methods", "", "`python main_pretrain.py scripts/pretrain/DATA METHOD.yaml`, on any data set.", ""]
    head += ["| `method` | idea | HEX | slow copy | small views | labels |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def page(name: str, facts: MethodFacts) -> str:
    """The page of one method."""
    method = METHODS[name]
    recipe = facts.recipe or name
    said = [inspect.cleandoc(parent.__doc__ or "") for parent in _own(method)]
    lines = [f"# {name}", "", "\n\n".join(said), "", picture(facts), ""]
    lines += ["| | |", "|---|---|", *(f"| {what} | {told} |" for what, told in _facts(facts)), ""]
    for title, text in _losses(method):
        lines += [f"## Loss: `{title}`", "", "```text", text, "```", ""]
    lines += ["## Keys of `method_kwargs`", "", "| key | | type | default |", "|---|---|---|---|", *_keys(facts), ""]
    lines += ["## Recipe", "", "```", f"python main_pretrain.py scripts/pretrain/cifar10 {recipe}.yaml", "```", ""]
    lines += ["```yaml", _settings(recipe), "```", ""]
    return "\n".join([*lines, *_numbers(recipe)])


def _numbers(recipe: str) -> Iterator[str]:
    """The row that `recipes.md` has of it."""
    rows = [line for line in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines() if "|" in line]
    head = next(place for place, line in enumerate(rows) if line.startswith("| method |"))
    for row in rows[head:]:
        if row.startswith(f"| `{recipe}` |"):
            told = "Online linear accuracy that solo-learn publishes, in percent ([recipes](../recipes.md));"
            yield from ("## Numbers", "", f"{told} what was measured here: [measured](../measured.md).", "")
            yield from (rows[head], rows[head + 1], row, "")


def _title(facts: MethodFacts) -> str:
    """The first line of the docstring behind its name."""
    first = (METHODS[_recipe(facts)].__doc__ or "").splitlines()[0]
    return first.partition(": ")[2] or first


def _facts(facts: MethodFacts) -> Iterator[tuple[str, str]]:
    yield "HEX", HEX[facts.hex]
    yield "what keeps it from collapsing", COLLAPSE[facts.collapse]
    most = (
        "any number of"
        if facts.most_views is None
        else f"{facts.least_views}"
        if facts.most_views == facts.least_views
        else f"{facts.least_views} to {facts.most_views}"
    )
    yield "views", f"{most} large ones" + (", and small ones (multi-crop)" if facts.small_views else "")
    yield "slow copy of the network", "yes (`momentum.base_tau`, `momentum.final_tau`)" if facts.momentum else "no"
    labels = {"used": "used where there are some", "levels": "all levels of the tree", "needed": "needed"}
    yield "labels", labels.get(str(facts.labels), "not used")


def _own(method: Any) -> list[type]:
    """A class, and its parents in the same file."""
    return [parent for parent in method.mro() if parent.__module__ == method.__module__]


def _losses(method: Any) -> Iterator[tuple[str, str]]:
    """Loss functions that the method's class names, or the loss that it has, with what they say of themselves."""
    if hasattr(method, "Loss"):
        yield method.Loss.__name__, inspect.cleandoc(method.Loss.__doc__ or "")
        return
    text = "".join(map(inspect.getsource, _own(method)))
    for title, found in vars(import_module(method.__module__)).items():
        where = str(getattr(found, "__module__", ""))
        named = "loss" in title.lower() or title == "info_nce"  # and no helper
        if named and title in text and callable(found) and where.startswith("solo.losses") and found.__doc__:
            yield title, inspect.cleandoc(found.__doc__)


def _keys(facts: MethodFacts) -> Iterator[str]:
    for found in keys_of(facts.kwargs).values() if facts.kwargs else ():
        default = "required" if found.required else f"`{found.default}`"
        yield f"| `{found.name}` | {found.help} | {describe_type(found.type).replace('|', 'or')} | {default} |"


def picture(facts: MethodFacts) -> str:
    """How a view becomes a loss: an SVG with the parts that the recipe has."""
    kwargs = yaml.safe_load(_settings(facts.recipe or _recipe(facts)))
    has = kwargs.get("method_kwargs") or {}
    upper = ["views", "backbone"]
    upper += ["projector"] if "proj_output_dim" in has else ["decoder"] if "decoder_depth" in has else ["classifier"]
    upper += ["predictor"] if "pred_hidden_dim" in has else []
    upper += ["prototypes"] if "num_prototypes" in has else []
    lower = ["views", "slow backbone", "slow projector"] if facts.momentum else []
    lower += ["queue"] if facts.negatives == "queue" or "queue_size" in has else []
    rows = [upper, lower] if lower else [upper]
    width, high = 130 * (max(map(len, rows)) + 1), 64 * len(rows) + 8
    parts = [_boxes(row, 36 + 64 * index) for index, row in enumerate(rows)]
    middle = high / 2
    loss = _box(width - 110, middle, "loss", "#4f46e5")
    ends = [
        f'<path d="M{130 * len(row) - 20} {36 + 64 * i} L{width - 112} {middle}" stroke="currentColor" fill="none"/>'
        for i, row in enumerate(rows)
    ]
    look = 'role="img" aria-label="from views to the loss" style="max-width:46rem"'
    return f'<svg viewBox="-1 0 {width + 2} {high}" {look}>{"".join(ends)}{"".join(parts)}{loss}</svg>'


def _settings(recipe: str) -> str:
    """Its YAML: a file of `methods`, or its row in `methods.yaml`."""
    file = SCRIPTS / "methods" / f"{recipe}.yaml"
    if file.is_file():
        return file.read_text(encoding="utf-8").strip()
    rows = (SCRIPTS / "methods.yaml").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^{recipe}:\n((?:  .*\n|\n)+)", rows, re.MULTILINE)
    return textwrap.dedent(row).strip()


def _recipe(facts: MethodFacts) -> str:
    return next(name for name, other in CATALOGUE.items() if other is facts)


def _boxes(row: list[str], y: float) -> str:
    arrows = "".join(f'<path d="M{130 * i + 110} {y} h20" stroke="currentColor"/>' for i in range(len(row) - 1))
    return arrows + "".join(_box(130 * i, y, text, "#6b7280") for i, text in enumerate(row))


def _box(x: float, y: float, text: str, colour: str) -> str:
    look = f'rx="6" fill="{colour}" fill-opacity=".15" stroke="{colour}"'
    return (
        f'<rect x="{x}" y="{y - 18}" width="110" height="36" {look}/>'
        f'<text x="{x + 55}" y="{y + 5}" text-anchor="middle" font-size="13" fill="currentColor">{text}</text>'
    )
