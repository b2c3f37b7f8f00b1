"""What `--help` says before it lists the keys."""

from __future__ import annotations

from collections.abc import Mapping

from solo.args.compose import compose
from solo.args.recipes import data_sets, find_recipe, recipes_of
from solo.args.show import recipe_text
from solo.args.source import takes_source
from solo.errors import ConfigError
from solo.screen import shown
from solo.suggest import did_you_mean

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
    """What `solo recipe COMMAND DATASET RECIPE [KEY=VALUE ...]` prints: a whole recipe, or what there is.

    Raises a `ConfigError`: there is no such command, or no such recipe.
    """
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
    head = [f"solo recipe {said}: saved as FILE.yaml, `solo {name} . FILE.yaml` runs it.", *recipe.notes]
    return "".join(f"# {shown(line)}\n" for line in head) + f"{recipe_text(values, origins)}\n"
