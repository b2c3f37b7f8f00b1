"""Text for people: `--help`, `--cfg resolved`, `solo recipe`, what a run's numbers come to; and words for shells."""

import json
import os
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf

from solo.args.compose import SOURCES, compose
from solo.args.config import flat
from solo.args.eval_schema import BenchmarkCfg, EmbedCfg, ExperimentCfg, ExportCfg, PredictCfg, SearchCfg
from solo.args.fields import Section, describe_type, extra_keys_of, keys_of, walk
from solo.args.origins import Origins, lines_of
from solo.args.parse import BASE_BATCH, Parsed, exact_parts, global_batch
from solo.args.recipes import data_sets, find_recipe, recipes_of
from solo.compat.keys import MOVED
from solo.data.catalogue.registry import DATASETS
from solo.errors import ConfigError, did_you_mean
from solo.files import write_text
from solo.hex.catalogue import POLICIES, policy_facts
from solo.methods.catalogue import CATALOGUE, facts_of
from solo.screen import shown

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


def install_completion(shell: str | None) -> str:
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


def completions(line: str, commands: Mapping[str, type | None]) -> list[str]:
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
        words = words[1:]
        options = []
        commands = {name: schema for name, schema in commands.items() if schema}
    if not words:
        yield from (f"{name} " for name in (*commands, *options))
        return
    command = words[0]
    places = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
    schema = commands.get(command) or _TAKE.get(command, Section)
    keys = dict(walk(schema)) | extra_keys_of(schema)
    if "method" in keys:
        methods = [*places[-1:], *(word[7:] for word in words if word.startswith("method="))]
        facts = CATALOGUE.get(methods[-1]) if methods else None
        keys |= dict(walk(facts.kwargs, "method_kwargs.")) if facts and facts.kwargs else {}
    name, equals, _ = last.partition("=")
    if equals:
        choices = _NAMES.get(name) or (_choices(keys[name].type) if name in keys else ())
        yield from (f"{name}={choice} " for choice in choices)
        return
    if commands.get(command):
        named = (data_sets(command), recipes_of(places[0], command) if places else [], [])[min(len(places), 2)]
        yield from (f"{known} " for known in (*named, "--help", "--cfg resolved", "--multirun"))
    yield from (f"{known}=" for known in (*keys, *(MOVED if "hex.policy" in keys else ())))


def _choices(kind: Any) -> Iterator[Any]:
    if kind is bool:
        yield from ("true", "false")
    literal = typing.get_origin(kind) is Literal
    for part in typing.get_args(kind):
        yield from [part] if literal else _choices(part)


def resolved_text(parsed: Parsed) -> str:
    """Every value of a config and where it came from, one key a line."""
    head = [f"# {shown(line)}" for line in [*describe(parsed.values), *parsed.notes]]
    rows = [(key, shown(f"{key}: {_as_yaml(value)}")) for key, value in flat(parsed.values)]
    return "\n".join([*head, *_with_places([(line, parsed.origins.get(key, "default")) for key, line in rows])])


def recipe_text(values: Mapping[str, Any], origins: Origins) -> str:
    """A composed config as YAML, each value with the place where it was written; it can be read again."""
    plain = json.loads(json.dumps(values).replace("${", "\\\\${"))  # when it is read again nothing is filled in
    text = OmegaConf.to_yaml(OmegaConf.create(plain))
    keys = {line: key for key, line, _ in lines_of(yaml.compose(text, Loader=yaml.SafeLoader))}
    lines, rows = text.splitlines(), []
    for number, line in enumerate(lines, start=1):
        whole = number in keys and (number + 1 in keys or number == len(lines))  # not a part of a long text
        rows.append((line, origins.place(keys[number]) if whole and not line.endswith(":") else ""))
    return "\n".join(_with_places(rows))


def _with_places(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines, each with its place behind it where it has one."""
    width = min(56, max((len(line) for line, _ in rows), default=0))
    return [f"{line:<{width}}  # {shown(place)}" if place else line for line, place in rows]


def help_text(schema: type, method: str | None = None) -> str:
    """Every key with its type, default and sentence; the `method_kwargs` of one method, or of all."""
    lines = ["Keys:", *_key_lines(schema)]
    if "method_kwargs" in keys_of(schema):
        chosen = facts_of(method)
        for name, facts in {method: chosen}.items() if chosen else CATALOGUE.items():
            if facts.kwargs is not None:
                lines += ["", f"method_kwargs of method={name}:", *_key_lines(facts.kwargs, "method_kwargs.")]
                lines += facts.kwargs.notes() if chosen and hasattr(facts.kwargs, "notes") else ()
    if hasattr(schema, "EXTRA"):
        lines += ["", "Keys passed on to Lightning's Trainer:", *_key_lines(schema.EXTRA)]
    return "\n".join(lines)


def _key_lines(schema: type, prefix: str = "") -> Iterator[str]:
    for name, found in walk(schema, prefix):
        default = "required" if found.required else f"default {_as_yaml(found.default)}"
        yield f"  {name:<36} {found.help} ({describe_type(found.type)}; {default})"


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return "''" if value == "" else f"{value:.6g}" if isinstance(value, float) else str(value)


def describe(cfg: Mapping[str, Any]) -> list[str]:
    """Global batch, learning rate and negatives of a config that trains, one line each."""
    if "optimizer" not in cfg:
        return []
    batch = cfg["optimizer"]["batch_size"]
    lr = cfg["optimizer"]["lr"]
    steps = cfg["accumulate_grad_batches"]
    total = global_batch(cfg)
    processes = f"{total // batch} process{'es' * (total > batch)}"
    rate = f"learning rate {lr:g} (scaled by {total} / {BASE_BATCH})"
    if steps > 1:
        rate += f", x {steps} for {steps} accumulated batches"
    lines = [f"global batch {total} = {batch} for each process x {processes}", rate]
    return lines + (negatives(cfg) if "method" in cfg else [])


def negatives(cfg: Mapping[str, Any]) -> list[str]:
    """How many negatives an anchor of a pretraining config has; nothing for a loss without any."""
    parts = exact_parts(cfg["accumulate"], cfg["accumulate_grad_batches"])
    total = global_batch(cfg) * parts
    policy, quantile = cfg["hex"]["policy"], cfg["hex"]["quantile"]
    facts, changed = facts_of(cfg["method"]), policy_facts(policy).path
    against = (facts and facts.negatives) or ("rows" if changed else None)
    if against is None:
        return []
    views = cfg["data"]["num_large_crops"] + cfg["data"]["num_small_crops"]
    rows, text = views * total, f"{total - 1} = {total} - 1"
    if against == "rows":
        text = f"{rows - views} = {views} views x {total} - {views}"
    elif against == "queue":
        text = f"{cfg['method_kwargs']['queue_size']}, the queue"
    lines = [f"negatives per anchor {text}"]
    if parts > 1:
        lines[0] += f"; accumulate=exact: one loss sees {parts} batches, {total} images"
    elif cfg["accumulate_grad_batches"] > 1 and against != "queue":
        lines[0] += "; accumulating batches adds none (accumulate=exact would)"
    classes = cfg["data"]["num_classes"] or 1
    if policy == "adaptive" and quantile - 1 + 1 / classes > 1e-9 and classes > 1:
        lines.append(
            f"HEX_adaptive finds mostly the anchor's own class: the nearest {1 - quantile:.2%} are fewer than the "
            f"{1 / classes:.2%} of one of {classes} classes; hex.quantile below {1 - 1 / classes:g} reaches siblings"
        )
    elif against == "rows" and changed and 2 * (total - 1) < classes:
        own = 2 * (total - 1) / classes
        lines.append(f"a batch has {own:.2g} other views of an anchor's class: most anchors find none of it there")
    if policy == "adaptive" and against == "rows" and round(quantile * (rows - 1)) == rows - 1:
        lines.append(
            f"HEX_adaptive selects nothing here: among {rows} rows the {quantile:g} quantile of an anchor's cosines is "
            "its own, 1; use a larger batch or a smaller hex.quantile"
        )
    return lines


_USAGE = """\
usage: solo {name} DATASET RECIPE [KEY=VALUE ...]
       solo {name} FOLDER FILE.yaml [KEY=VALUE ...]
{more}
{help}.

  DATASET RECIPE   a recipe of this library, from any folder; `solo recipe {name}` lists them
  KEY=VALUE        a key of the list below; behind = a number, a list [a,b], a section {{a: 1}} or text
  ~KEY             take a key out of the recipe
  -m               several runs, one after the other: seed=1,2,3
  --cfg resolved   print every value and where it comes from, and stop
{preview}  --help           print this text; with method=NAME its own keys only

Example: {example}
Data sets: {data_sets}
"""
_SOURCE_USAGE = """\
       solo {name} RUN [KEY=VALUE ...]

  RUN              a checkpoint, or the folder of a run; what it was trained on is what it is measured on
"""
_RECIPE_USAGE = """\
usage: solo recipe COMMAND DATASET RECIPE [KEY=VALUE ...] > FILE.yaml
       solo recipe COMMAND [DATASET]

Print a recipe whole, each value with the place that it comes from, to save and edit; `solo COMMAND . FILE.yaml`
runs it. Without a recipe: list what there is.

Example: solo recipe pretrain food101 byol > byol.yaml
Commands: {commands}
"""


def usage(name: str, help: str, schema: type) -> str:
    """The head of a command's `--help`."""
    pretrains = name == "pretrain"
    return _USAGE.format(
        name=name,
        help=help.capitalize(),
        more=_SOURCE_USAGE.format(name=name) if SOURCES[0] in keys_of(schema) else "",
        preview="  --preview        write a picture of what the model will see, and stop\n" if pretrains else "",
        example="solo pretrain digits hex seed=7" if pretrains else f"solo {name} trained_models/simclr/RUN",
        data_sets=", ".join(data_sets(name)),
    )


def recipe_page(places: list[str], overrides: list[str], commands: Mapping[str, type]) -> str:
    """What `solo recipe COMMAND DATASET RECIPE [KEY=VALUE ...]` prints: a whole recipe, or what there is."""
    if not places or {"--help", "-h"} & {*places}:
        return _RECIPE_USAGE.format(commands=", ".join(commands))
    name, *places = places
    if name not in commands:
        hint = did_you_mean(name, commands)
        raise ConfigError(f"{name!r} is no command with recipes; {hint}choose {', '.join(commands)}")
    if not places:
        return "".join(f"{data}\n" for data in data_sets(name))
    if len(places) == 1 and (names := recipes_of(places[0], name)):
        return "".join(f"{recipe}\n" for recipe in names)
    recipe = find_recipe(places[:2], name)
    values, origins = compose(recipe, overrides, commands[name])
    said = " ".join([name, *places[:2]])
    head = [f"solo recipe {said}: saved as FILE.yaml, `solo {name} . FILE.yaml` runs it.", *origins.notes]
    return "".join(f"# {shown(line)}\n" for line in head) + f"{recipe_text(values, origins)}\n"
