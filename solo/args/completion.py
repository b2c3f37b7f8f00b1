"""Completion of `solo ...` in bash, zsh and fish: what may stand where the cursor is, and the lines that ask for it."""

import os
import shlex
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from solo.args.eval_schema import BenchmarkCfg, EmbedCfg, ExperimentCfg, ExportCfg, PredictCfg, SearchCfg
from solo.args.fields import Section, walk
from solo.args.recipes import data_sets, recipes_of
from solo.compat.keys import MOVED
from solo.data.catalogue.registry import DATASETS
from solo.errors import ConfigError
from solo.files import write_text
from solo.hex.catalogue import POLICIES
from solo.methods.catalogue import CATALOGUE

_TAKE: dict[str, type] = {"embed": EmbedCfg, "search": SearchCfg, "predict": PredictCfg, "export": ExportCfg}
_TAKE |= {"experiment": ExperimentCfg, "benchmark": BenchmarkCfg}
_NAMES = {
    "method": tuple(CATALOGUE),
    "type": tuple(facts.shown for facts in POLICIES.values()),
    "data.dataset": tuple(DATASETS),
}
# Files are the shell's own to complete. bash replaces only what stands behind its last word break, `=` or `:`.
_BASH = r"""_solo() {
  local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n'
  local word="${line##* }"
  COMPREPLY=($(solo --complete "$line" 2>/dev/null))
  [[ $word == *[=:]* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[=:]}"}"}")
}
complete -o default -o nospace -F _solo solo
"""
_ZSH = r"""(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_solo() {
  local -a found
  found=("${(@f)$(solo --complete "${LBUFFER}" 2>/dev/null)}")
  compadd -Q -U -S '' -- ${found:#} || _files
}
compdef _solo solo
"""
# fish ends a word by itself.
_FISH = r"""complete -c solo -a '(solo --complete (commandline -cp | string collect) 2>/dev/null | string trim -r)'
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
    return sorted({word for word in _offered(words[1:], last, commands) if word.startswith(last)})


def _offered(words: list[str], last: str, commands: Mapping[str, type | None]) -> Iterator[str]:
    """What may follow some words: a command, a data set, a recipe, a key, or behind `=` what it may be set to."""
    options = ["--help", "--version", "--install-completion"]
    if words[:1] == ["recipe"]:  # a command's recipes, as behind the command itself
        words, options, commands = words[1:], [], {name: schema for name, schema in commands.items() if schema}
    if not words:
        yield from (f"{name} " for name in (*commands, *options))
        return
    command, places = words[0], [word for word in words[1:] if "=" not in word and not word.startswith("-")]
    schema = commands.get(command) or _TAKE.get(command)
    keys = dict(walk(schema)) if schema else {}
    keys |= dict(walk(getattr(schema, "EXTRA", Section)))
    if "method" in keys:
        methods = [*places[-1:], *(word[7:] for word in words if word.startswith("method="))]
        facts = CATALOGUE.get(methods[-1]) if methods else None
        keys |= dict(walk(facts.kwargs, "method_kwargs.")) if facts and facts.kwargs else {}
    name, equals, _ = last.partition("=")
    if equals:
        choices = _NAMES.get(name) or (_choices(keys[name].type) if name in keys else ())
        yield from (f"{name}={choice} " for choice in choices)
        return
    if command in commands and schema:
        named = (data_sets(command), recipes_of(places[0], command) if places else [], [])[min(len(places), 2)]
        yield from (f"{known} " for known in (*named, "--help", "--cfg resolved", "--multirun"))
    yield from (f"{known}=" for known in (*keys, *(MOVED if "hex.policy" in keys else ())))


def _choices(kind: Any) -> Iterator[Any]:
    if kind is bool:
        yield from ("true", "false")
    literal = typing.get_origin(kind) is Literal
    for part in typing.get_args(kind):
        yield from [part] if literal else _choices(part)
