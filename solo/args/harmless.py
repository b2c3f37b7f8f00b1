"""Reading recipes from elsewhere: none may take minutes or all memory to read, or read the environment."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo.args.check import short
from solo.args.differences import flat
from solo.args.origins import display
from solo.errors import ConfigError, reason
from solo.untrusted import regular

# Far more than any recipe has; what is larger is refused before it is built.
MOST_VALUES, DEEPEST, MOST_BYTES = 5_000, 30, 1_000_000
# The environment variables that `${oc.env:NAME}` may name; whoever shares a recipe can read no other.
ENVIRONMENT = ("HOME", "USER", "TMPDIR", "SCRATCH", "SLURM_JOB_ID", "SLURM_TMPDIR")
_NODE = r"\$\{\s*[\w.\[\]/-]+\s*\}"
_VARIABLE = rf"\$\{{\s*oc\.env\s*:\s*(?:{'|'.join(ENVIRONMENT)}|SOLO_\w*)\s*(?:,[^${{}}]*)?\}}"
_ALLOWED = re.compile(f"{_NODE}|{_VARIABLE}")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_files(defaults: Sequence[Any], folders: Sequence[Path], chosen: Mapping[str, str]) -> None:
    """Look at a recipe and all files that its `defaults` name, before Hydra builds anything of them.

    `defaults` is the recipe, or what it is composed of; `chosen` are the files that the command line chooses for
    groups. Raises a `ConfigError` for one that is too large, nested too deeply, refers to itself, or reads the
    environment.
    """
    waiting, seen = [*_found([*named_in(defaults), *chosen.items()], folders)], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        content = read_yaml(current, strict=False)
        if not isinstance(content, (dict, list, type(None))):
            raise ConfigError(f"{display(current)}: it is no recipe; give lines of the form key: value")
        named = content.get("defaults") if isinstance(content, dict) else None
        if isinstance(named, list):
            _refuse_resolvers(str(named), f"{display(current)}: defaults")
            waiting += _found(named_in(named), [current.parent, *folders])


def refuse_resolvers(values: DictConfig, shown: str) -> None:
    """Refuse interpolations that do more than naming another value or an allowed environment variable.

    The values are not resolved yet. Raises a `ConfigError` that names the file and the key.
    """
    for key, value in flat(OmegaConf.to_container(values, resolve=False)):
        _refuse_resolvers(str(value), f"{shown}: {key}")


def _refuse_resolvers(text: str, where: str) -> None:
    if "${" in _ALLOWED.sub("", text):
        raise ConfigError(
            f"{where}: {short(text)} is refused: a value may name other values, ${{data.dataset}}, and of the "
            f"environment {', '.join(ENVIRONMENT)} and names that begin with SOLO_, ${{oc.env:SOLO_DATA}}"
        )


def read_yaml(file: Path, strict: bool = True) -> Any:
    """The content of a YAML file of plain values; unless `strict`, nothing for what is none, which Hydra says better.

    Raises a `ConfigError`: it can't be read, is none, or is too large, too deep or endless.
    """
    shown = display(file)
    try:
        size = regular(file).stat().st_size
        if size > MOST_BYTES:
            raise ConfigError(f"{shown}: {size:,} bytes are too many for a recipe; at most {MOST_BYTES:,} are read")
        text = file.read_text(encoding="utf-8")
        _measure(text, shown)
        return yaml.load(text, Loader=_LOADER)  # noqa: S506 (a safe one)
    except ConfigError:
        raise
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        if "nesting depth" in str(error):  # libyaml's own limit, which looks ahead
            raise _too_deep(shown, getattr(error, "problem_mark", None)) from error
        if not strict:
            return None
        raise ConfigError(f"{shown} can't be read: {reason(error)}") from error
    except ValueError as error:  # a date that there isn't, or Python's limit of digits
        raise ConfigError(f"{shown}: a value can't be read ({reason(error)})") from error


def _too_deep(shown: str, mark: Any) -> ConfigError:
    line = mark.line + 1 if mark else 1
    return ConfigError(f"{shown}:{line}: values lie more than {DEEPEST} levels deep; no key is that deep")


def _measure(text: str, shown: str) -> None:
    """Count values as if every alias were written out, without doing so."""
    open_: list[tuple[str | None, int]] = [(None, 0)]
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, Loader=_LOADER):
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((anchor, 1))
            if len(open_) > DEEPEST:
                raise _too_deep(shown, event.start_mark)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes and any(anchor == name for name, _ in open_):
                raise ConfigError(f"{shown}:{event.start_mark.line + 1}: *{anchor} refers to itself; write it out")
            size = sizes.get(str(anchor), 1)
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            sizes[anchor] = size
        outer, inside = open_[-1]
        open_[-1] = (outer, inside + size)
        if inside + size > MOST_VALUES:
            raise ConfigError(f"{shown}: more than {MOST_VALUES:,} values are no recipe; take out most of them")


def named_in(defaults: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Read a defaults list: (group or nothing, file) of its entries."""
    for entry in defaults:
        if isinstance(entry, str):
            yield "", entry
        elif isinstance(entry, dict):
            for group, names in entry.items():
                for name in names if isinstance(names, list) else [names]:
                    yield str(group).split()[-1].partition("@")[0], str(name)


def _found(names: Any, folders: Sequence[Path]) -> Iterator[Path]:
    for group, name in names:
        if not name.strip("/"):
            continue
        place = Path(group.lstrip("/")) / name.partition("@")[0].lstrip("/")
        files = (folder / place.with_name(f"{place.name.removesuffix('.yaml')}.yaml") for folder in folders)
        yield from (file for file in files if file.is_file())


def read_table(path: Path) -> dict[str, Any]:
    """Of a file; empty if there is none, a `ConfigError` if it is no table or can't be read."""
    return _table_once(path, path.stat().st_mtime_ns) if path.is_file() else {}


@functools.lru_cache(maxsize=256)
def _table_once(path: Path, changed: int) -> dict[str, Any]:
    read_yaml(path, strict=False)  # OmegaConf writes every alias out
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{display(path)}: {reason(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{display(path)}: a table from names to settings is needed here")
    return content


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Tables in both are merged, other values replaced."""
    tables = [k for k in values.keys() & more.keys() if isinstance(values[k], dict) and isinstance(more[k], dict)]
    both = {k: merged(values[k], more[k]) for k in tables}
    return {**values, **more, **both}
