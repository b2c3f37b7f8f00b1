"""Text for people: `--help`, `--cfg resolved`, `solo recipe`, and what a run's numbers come to."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from omegaconf import OmegaConf

from solo.args.compose import compose
from solo.args.config import flat
from solo.args.fields import describe_type, keys_of, walk
from solo.args.origins import Origins, lines_of
from solo.args.parse import Parsed
from solo.args.recipes import data_sets, find_recipe, recipes_of
from solo.args.resolve import BASE_BATCH, exact_parts, global_batch
from solo.args.source import takes_source
from solo.errors import ConfigError
from solo.hex.catalogue import policy_facts
from solo.methods.catalogue import CATALOGUE, facts_of
from solo.screen import shown
from solo.suggest import did_you_mean


def resolved_text(parsed: Parsed) -> str:
    """Every value of a config and where it came from, one key a line."""
    rows = [(key, _as_yaml(value), parsed.origins.get(key, "default")) for key, value in flat(parsed.values)]
    left = [shown(f"{key}: {value}") for key, value, _ in rows]
    width = min(56, max(map(len, left)))
    head = [f"# {shown(line)}" for line in [*describe(parsed.values), *parsed.notes]]
    return "\n".join([*head, *(f"{text:<{width}}  # {shown(row[2])}" for text, row in zip(left, rows, strict=True))])


def recipe_text(values: Mapping[str, Any], origins: Origins) -> str:
    """A composed config as YAML, each value with the place where it was written; it can be read again."""
    plain = json.loads(json.dumps(values).replace("${", "\\\\${"))  # when it is read again nothing is filled in
    text = OmegaConf.to_yaml(OmegaConf.create(plain))
    keys = {line: key for key, line, _ in lines_of(yaml.compose(text, Loader=yaml.SafeLoader))}
    lines = text.splitlines()
    width = min(56, max(map(len, lines), default=0))
    for number, line in enumerate(lines, start=1):
        whole = number in keys and (number + 1 in keys or number == len(lines))  # not a part of a long text
        if whole and not line.endswith(":") and (place := origins.place(keys[number])):
            lines[number - 1] = f"{line:<{width}}  # {shown(place)}"
    return "\n".join(lines)


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
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return "''" if value == "" else f"{value:.6g}" if isinstance(value, float) else str(value)


def describe(cfg: Mapping[str, Any]) -> list[str]:
    """Global batch, learning rate and negatives of a config that trains, one line each."""
    if "optimizer" not in cfg:
        return []
    batch, lr, steps = cfg["optimizer"]["batch_size"], cfg["optimizer"]["lr"], cfg["accumulate_grad_batches"]
    total = global_batch(cfg)
    lines = [
        f"global batch {total} = {batch} for each process x {total // batch} process{'es' * (total > batch)}",
        f"learning rate {lr:g} (scaled by {total} / {BASE_BATCH})",
    ]
    if steps > 1:
        lines[1] += f", x {steps} for {steps} accumulated batches"
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
    if against == "rows":
        row, text = views * total, f"{views * total - views} = {views} views x {total} - {views}"
    elif against == "view":
        row, text = total, f"{total - 1} = {total} - 1"
    else:
        row = cfg["method_kwargs"]["queue_size"]
        text = f"{row}, the queue"
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
    if policy == "adaptive" and against == "rows" and round(quantile * (row - 1)) == row - 1:
        lines.append(
            f"HEX_adaptive selects nothing here: among {row} rows the {quantile:g} quantile of an anchor's cosines is "
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
NO_PREVIEW = "--preview shows augmented views, which only `solo pretrain` makes"
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
        more=_SOURCE_USAGE.format(name=name) if takes_source(schema) else "",
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
