"""Completion of `solo ...` in bash, zsh and fish: what may stand where the cursor is, and the lines that ask for it."""

import os
import re
import shlex
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from solo.args.experiment_schema import BenchmarkCfg, ExperimentCfg
from solo.args.fields import Key, keys_of
from solo.args.recipes import data_sets, find_folders, recipes_of
from solo.args.take_schema import EmbedCfg, ExportCfg, PredictCfg, SearchCfg
from solo.compat.keys import MOVED
from solo.data.catalogue.registry import DATASETS
from solo.errors import ConfigError
from solo.files import write_text
from solo.hex.catalogue import POLICIES
from solo.methods.catalogue import CATALOGUE

_TAKE: dict[str, type] = {"embed": EmbedCfg, "search": SearchCfg, "predict": PredictCfg, "export": ExportCfg}
_TAKE |= {"experiment": ExperimentCfg, "benchmark": BenchmarkCfg}
_OPTIONS = ("--help", "--cfg resolved", "--multirun")
_NAMES = {
    "method": tuple(CATALOGUE),
    "type": tuple(facts.shown for facts in POLICIES.values()),
    "data.dataset": tuple(DATASETS),
}
# bash replaces only what stands behind its last word break, `=` or `:`.
_BASH = r"""_solo() {
  local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n'
  local word="${line##* }"
  COMPREPLY=($(solo --complete "$line" 2>/dev/null))
  [[ $word == *[=:]* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[=:]}"}"}")
}
complete -o nospace -F _solo solo
"""
_ZSH = r"""(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_solo() {
  local -a found
  found=("${(@f)$(solo --complete "${LBUFFER}" 2>/dev/null)}")
  compadd -Q -U -S '' -- ${found:#}
}
compdef _solo solo
"""
# fish quotes what it inserts, and ends a word by itself.
_FISH = r"""function __solo_complete
    solo --complete (commandline -cp | string collect) 2>/dev/null | string trim -r | string replace -ra '\\\\(.)' '$1'
end
complete -c solo -f -a '(__solo_complete)'
"""
# shell -> its script, and the file that it reads when it starts
_SHELLS = {"bash": (_BASH, ".bashrc"), "zsh": (_ZSH, ".zshrc"), "fish": (_FISH, ".config/fish/config.fish")}


def install(shell: str | None) -> str:
    """Write the script of a shell (default: the user's own) and let the shell read it; says what was written."""
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in _SHELLS:
        raise ConfigError(f"--install-completion {name}: choose {', '.join(_SHELLS)}")
    script, start = _SHELLS[name]
    file, rc = Path.home() / f".local/share/solo/completion.{name}", Path.home() / start
    for folder in (file.parent, rc.parent):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(file, script)
    line = f"source {shlex.quote(str(file))}"
    if not rc.is_file() or line not in rc.read_text(encoding="utf-8").splitlines():
        with rc.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")
    return f"{file}, named in {rc}; open a new {name}"


def complete(line: str, commands: Mapping[str, type | None]) -> list[str]:
    """What may stand at the end of a line typed so far, `solo pretrain di`; a word that is whole ends in a space."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that isn't closed yet
        words = line.split()
    last = "" if line[-1:].isspace() else words.pop()
    found = [*commands, "--help", "--version", "--install-completion"] if len(words) < 2 else []
    found = [f"{name} " for name in found] or list(_behind(words[1], words[2:], last, commands))
    return sorted({word for word in found if word.startswith(last)})


def _behind(command: str, words: list[str], last: str, commands: Mapping[str, type | None]) -> Iterator[str]:
    """Words of a command."""
    name, equals, value = last.partition("=")
    schema = commands.get(command) or _TAKE.get(command)
    places = [word for word in words if "=" not in word and not word.startswith("-")]
    if command == "recipe" and not places:
        yield from (f"{other} " for other, known in commands.items() if known)
    if command == "recipe" and places:
        command, *places = places
        schema = commands.get(command)
    above, _, last_part = name.rpartition(".")
    known = _known(schema, above, words, places) if schema else {}
    if schema is not None and equals:
        named = _NAMES.get(name) or tuple(_choices(known[last_part].type) if last_part in known else ())
        yield from (f"{name}={one}" for one in [f"{one} " for one in named] or _files(value))
        return
    if schema is not None and command in commands and commands[command]:
        if not places:
            yield from (f"{data} " for data in data_sets(command))
        elif len(places) == 1 and find_folders(places[0], command):
            yield from (f"{recipe} " for recipe in recipes_of(places[0], command))
        yield from (f"{option} " for option in _OPTIONS)
    yield from _files(last)
    yield from _keys(known, above)


def _known(schema: type, above: str, words: list[str], places: list[str]) -> dict[str, Key]:
    """The keys of a section by its dotted name; `method_kwargs` has those of the method."""
    section: Any = schema
    if above == "method_kwargs":
        named = [*places[-1:], *(word[7:] for word in words if word.startswith("method="))]
        facts = CATALOGUE.get(named[-1]) if named else None
        section = facts.kwargs if facts else None
    for part in above.split(".") if above and above != "method_kwargs" else ():
        known = keys_of(section).get(part) if section else None
        section = known.section if known else None
    extra = getattr(schema, "EXTRA", None) if section is schema else None
    return {**(keys_of(extra) if extra else {}), **(keys_of(section) if section else {})}


def _keys(known: Mapping[str, Key], above: str) -> Iterator[str]:
    for found in known.values():
        deeper = found.section or found.name == "method_kwargs"
        yield f"{above}.{found.name}".lstrip(".") + ("." if deeper else "=")
    if not above and "hex" in known:
        yield from (f"{name}=" for name in MOVED)


def _choices(kind: Any) -> Iterator[Any]:
    if kind is bool:
        yield from ("true", "false")
    literal = typing.get_origin(kind) is Literal
    for part in typing.get_args(kind):
        yield from [part] if literal else _choices(part)


def _files(start: str) -> Iterator[str]:
    """Files and folders that begin so, as the shell wants them."""
    folder, slash, name = start.rpartition("/")
    place = Path(os.path.expanduser(folder + slash) or ".")
    try:
        entries = sorted(place.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(name) and (name.startswith(".") or not entry.name.startswith(".")):
            shown = re.sub(r"([^\w@%+=:,./~-])", r"\\\1", folder + slash + entry.name)
            yield f"{shown}/" if entry.is_dir() else f"{shown} "
