"""Writes docs/api.md from the docstrings of everything that an `__all__` names: `python docs/make_api.py`.

Nothing is imported: names are followed through the sources, so that the page is the same with every version of Python.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("api.md")
# In this order; the second ones stand in no `__all__` and belong to it: what functions return, what a method is.
MODULES = {
    "solo": ("solo.run.pretrain.PretrainResult", "solo.run.pretrained.PretrainedModel"),
    "solo.hex": (),
    "solo.losses": ("solo.losses.pairs.Pairs",),
    "solo.methods": (
        *("solo.methods.base.BaseMethod", "solo.methods.base.TrainStep", "solo.methods.momentum.BaseMomentumMethod"),
        "solo.methods.catalogue.MethodFacts",
    ),
    "solo.backbones": (),
    "solo.nn": (),
    "solo.callbacks": (),
}
_PARAGRAPH = "\n\n"
_HEADER = re.compile(r"(Args|Arguments|Attributes|Returns|Yields|Raises|Example):$")
_ITEM = re.compile(r"([\w*., ]+?)(?: \([^)]*\))?: (.*)")


def page() -> str:
    """The whole page."""
    parts = [
        "# API",
        "What `__all__` names, made from the docstrings by `python docs/make_api.py`. Other public names "
        "may be used too, and may move between versions.",
    ]
    seen: set[str] = set()
    for module, more in MODULES.items():
        tree = source(module)
        parts += [f"## {module}", flow(ast.get_docstring(tree) or "")]
        elsewhere = []
        for name in public(tree):
            home, node = find(module, name)
            if (place := f"{home}.{name}") in seen:
                elsewhere.append(f"`{name}`")
            elif node is not None:
                seen.add(place)
                parts += entry(name, home, node)
        for path in more:
            home, _, name = path.rpartition(".")
            if path not in seen:
                seen.add(path)
                parts += entry(name, *find(home, name))
        if elsewhere:
            parts.append(f"Also here, and described above: {', '.join(elsewhere)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def source(module: str) -> ast.Module:
    """The parsed file of a module."""
    return ast.parse(file_of(module).read_text(encoding="utf-8"))


def file_of(module: str) -> Path:
    """Where a module's text is."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public(tree: ast.Module) -> list[str]:
    """What `__all__` lists, apart from names with underscores."""
    names = set()
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if getattr(target, "id", "") == "__all__" and isinstance(node, ast.Assign | ast.AugAssign):
            names |= {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
    return sorted(name for name in names if not name.startswith("_"))


def find(module: str, name: str) -> tuple[str, ast.AST | None]:
    """The module that defines a name, and the definition; None for what is made by a call."""
    tree = source(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("solo"):
            if any((alias.asname or alias.name) == name for alias in node.names):
                return find(node.module, name)
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return module, node
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if getattr(target, "id", "") == name:
                made_by = getattr(getattr(node.value, "func", None), "id", None)
                return module, (find(module, made_by)[1] if made_by else None)
    return module, None


def entry(name: str, home: str, node: ast.AST | None) -> Iterator[str]:
    """Heading, signature and docstring of a name, and of a class its public methods."""
    if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return
    yield f"### {name}"
    if isinstance(node, ast.FunctionDef):
        yield f"```python\n{signature(node, name)}\n```\n\nFrom `{home}`."
        yield flow(ast.get_docstring(node) or "")
        return
    made = f"```python\n{constructor(node, name)}\n```\n\n" if node.name == name else ""  # else an object of the class
    yield f"{made}From `{home}`."
    yield flow(ast.get_docstring(node) or "")
    yield commented(node, home)
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method):
            decorators = {getattr(decorator, "id", "") for decorator in method.decorator_list}
            call = (
                method.name if decorators & {"property", "cached_property"} else signature(method, method.name, 10_000)
            )
            yield f"- `{call}`: {flow(ast.get_docstring(method) or '').partition(_PARAGRAPH)[0]}"


def commented(node: ast.ClassDef, home: str) -> str:
    """What comments say of a dataclass's fields, behind them or above."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return ""
    lines, found = file_of(home).read_text(encoding="utf-8").splitlines(), []
    for field in (part for part in node.body if isinstance(part, ast.AnnAssign)):
        above, words = field.lineno - 2, list[str]()
        while lines[above].strip().startswith("# "):
            words.insert(0, lines[above].strip()[2:])
            above -= 1
        _, mark, behind = lines[(field.end_lineno or field.lineno) - 1].partition("  # ")
        words += [behind] if mark and not behind.startswith("type:") else []
        found += [f"- `{ast.unparse(field.target)}`: {' '.join(words).rstrip('.')}."] if words else []
    return "\n".join(["**Attributes**", "", *found]) if found else ""


def signature(node: ast.FunctionDef, name: str, width: int = 100) -> str:
    """`name(arguments) -> result`, in several lines if it is longer than `width`."""
    arguments = list(parameters(node.args))
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return spread(name, arguments, result, width)


def spread(name: str, arguments: list[str], result: str = "", width: int = 100) -> str:
    """A call in one line, or in several if it is longer than `width`."""
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) <= width:
        return line
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), f"){result}"])


def parameters(args: ast.arguments) -> Iterator[str]:
    """The parameters without `self`, with annotations and defaults."""
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    for index, (arg, default) in enumerate(zip(positional, defaults, strict=True)):
        if index == 0 and arg.arg in ("self", "cls"):
            continue
        yield shown(arg, default)
    if args.vararg:
        yield f"*{shown(args.vararg, None)}"
    elif args.kwonlyargs:
        yield "*"
    yield from (shown(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True))
    if args.kwarg:
        yield f"**{shown(args.kwarg, None)}"


def shown(arg: ast.arg, default: ast.expr | None) -> str:
    """`name: type = default`."""
    kind = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
    value = "" if default is None else f" = {ast.unparse(default)}" if kind else f"={ast.unparse(default)}"
    return f"{arg.arg}{kind}{value}"


def constructor(node: ast.ClassDef, name: str) -> str:
    """The call that makes an object: of `__init__`, or of a dataclass's fields."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            inner.returns = None
            return signature(inner, name)
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [ast.unparse(part) for part in node.body if isinstance(part, ast.AnnAssign)]
        fields = [field for field in fields if "init=False" not in field and ": ClassVar" not in field]
        if fields or not node.bases:  # else they are those of its base
            return spread(name, fields)
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    return f"class {name}({bases})" if bases else f"class {name}"


def flow(text: str) -> str:
    """A Google-style docstring as Markdown: its sections become lists."""
    blocks: list[str] = []
    section = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            section = header[1]
            blocks += ["", f"**{section}**", ""]
        elif section and line.startswith("    "):
            item = _ITEM.match(line[4:]) if section not in ("Returns", "Yields", "Example") else None
            if section == "Example":
                blocks.append(line)
            elif item and not line.startswith("     "):
                blocks.append(f"- `{item[1]}`: {item[2]}")
            elif line.startswith("     "):
                blocks[-1] += f" {line.strip()}"
            else:
                blocks.append(line.strip())
        else:
            section = section if not line else ""
            blocks.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(blocks)).strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
