"""The command table. A command's heavy modules are imported when it runs, after its config has been checked."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import solo
from solo.args.compose import compose, compose_words, find_recipe
from solo.args.describe import describe
from solo.args.eval_schema import AnalyzeCfg, EvaluateCfg, KnnCfg, UmapCfg
from solo.args.parse import Parsed, parse
from solo.args.schema import LinearCfg, PretrainCfg
from solo.args.show import help_text, resolved_text
from solo.args.source import complete, long_names, reads_features
from solo.args.words import LineParser
from solo.compat.flags import has_flags, read_flags
from solo.errors import ConfigError, UserError, did_you_mean, no_access


@dataclass(frozen=True)
class Command:
    """One row of the table: `module.run(cfg)` gets the resolved config that `schema` describes.

    Without a schema, `module.main(words)` reads its own command line.
    """

    module: str
    schema: type | None
    help: str


COMMANDS: dict[str, Command] = {
    "pretrain": Command("solo.run.pretrain", PretrainCfg, "learn from images without labels"),
    "linear": Command("solo.run.linear", LinearCfg, "evaluate a backbone with a linear classifier, or finetune it"),
    "evaluate": Command("solo.run.evaluate", EvaluateCfg, "measure features at every level of the label tree"),
    "analyze": Command("solo.run.analyze", AnalyzeCfg, "look at embeddings: emergence, collapse, the tree; a report"),
    "knn": Command("solo.run.knn", KnnCfg, "evaluate features by their nearest neighbours"),
    "umap": Command("solo.run.umap", UmapCfg, "draw features as points in the plane"),
    "embed": Command("solo.run.embed", None, "features of a folder of images"),
    "search": Command("solo.run.search", None, "find the images most alike to one"),
    "predict": Command("solo.run.predict", None, "best classes of a folder of images, at every level"),
    "export": Command("solo.run.export", None, "the backbone for timm, torchvision, Hugging Face, ONNX, ..."),
    "inspect": Command("solo.run.inspect", None, "say what is in a folder or table of images"),
    "doctor": Command("solo.doctor.main", None, "check this installation on this machine"),
}

_USAGE = """\
usage: solo {name} FOLDER FILE [KEY=VALUE ...]
       solo {name} --config-path FOLDER --config-name FILE [KEY=VALUE ...]

{help}.

  --cfg resolved   print every value and where it comes from, and stop
  --preview        pretrain: write a picture of what the model will see, and stop
  --help           print this text

Example: {example}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `solo COMMAND ...`.

    Returns:
        The exit code: 0, 1 if the run met something that the user has to solve, 2 for a wrong config or command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except ConfigError as error:
        problems = str(error).splitlines()
        _say(f"error: {len(problems)} problems\n  " + "\n  ".join(problems) if len(problems) > 1 else f"error: {error}")
        return 2
    except UserError as error:
        _say(f"error: {error}")
        return 1
    except PermissionError as error:
        _say(f"error: {no_access(error)}")
        return 1
    except KeyboardInterrupt:
        _say("stopped by the keyboard")
        return 130


def _dispatch(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("--help", "-h", "help"):
        rows = "\n".join(f"  {row:<10} {command.help}" for row, command in COMMANDS.items())
        sys.stdout.write(f"usage: solo COMMAND ...\n\n{rows}\n\n`solo COMMAND --help` lists the keys of a command.\n")
        return 0
    if name == "--version":
        sys.stdout.write(f"{solo.__version__}\n")
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"{name!r} is no command; {did_you_mean(name, COMMANDS)}choose {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    if command.schema is None:
        return int(importlib.import_module(command.module).main(words[1:]))
    return _run(name, command, command.schema, words[1:])


def _run(name: str, command: Command, schema: type, words: list[str]) -> int:
    flags = has_flags(name, words)
    given = _parser().parse_intermixed_args([] if flags else words)
    if given.help:
        example = f"solo {name} scripts/{name}/digits {'hex' if name == 'pretrain' else name}.yaml seed=7"
        if name in ("evaluate", "analyze"):
            example = f"solo {name} checkpoint=PATH"
        usage = _USAGE.format(name=name, help=command.help.capitalize(), example=example)
        sys.stdout.write(f"{usage}\n{help_text(schema)}\n")
        return 0
    if flags:
        values, origins = read_flags(name, words)
        parsed = parse(values, schema, origins, for_run=True)
    elif given.multirun:
        return _sweep(name, schema, given)
    else:
        parsed = read_config(schema, *_split(given), for_run=not given.cfg)
    if given.cfg:
        sys.stdout.write(f"{resolved_text(parsed)}\n")
        return 0
    if given.preview and name != "pretrain":
        raise ConfigError("--preview shows augmented views, which only `solo pretrain` makes")
    execute("solo.run.preview" if given.preview else command.module, parsed)
    return 0


def execute(module: str, parsed: Parsed) -> Any:
    """Say what is going to be run, and run it.

    Args:
        module: of a command.
        parsed: its config.

    Returns:
        What the command's `run` returns.

    Raises:
        UserError: something that the user has to solve.
    """
    if is_first_process():
        for note in parsed.notes:
            _say(f"note: {note}")
        sys.stdout.write("".join(f"{line}\n" for line in describe(parsed.values)))
    from omegaconf import OmegaConf

    command = importlib.import_module(module)
    with importlib.import_module("solo.run.failures").explained():
        return command.run(OmegaConf.create(parsed.values))


def is_first_process() -> bool:
    """Whether this is the process that speaks, also where torchrun or SLURM has started several."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def _sweep(name: str, schema: type, given: argparse.Namespace) -> int:
    """All configs are read before the first run starts."""
    from solo.args.sweep import expand

    places, overrides = _split(given)
    sweep = expand(overrides)
    for words in sweep.jobs:
        read_config(schema, places, words, for_run=True)
    recipe = [str(find_recipe(places).folder), find_recipe(places).name] if places else []
    return int(importlib.import_module("solo.run.multirun").multirun(name, recipe, sweep))


def _split(given: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The words that name the recipe, and the overrides."""
    named = [place for place in (given.config_path, given.config_name) if place is not None]
    if len(named) == 1:
        raise ConfigError("--config-path FOLDER and --config-name FILE go together; one of them is missing")
    places = [] if named else [word for word in given.words if not _is_override(word)][:2]
    return named or places, [word for word in given.words if word not in places]


def read_config(schema: type, places: Sequence[str], overrides: list[str], for_run: bool) -> Parsed:
    """The config of a command.

    Args:
        schema: of the command.
        places: the words that name the recipe; none for a command whose source of features says the rest.
        overrides: words `key=value`.
        for_run: also look whether folders and files are there.

    Raises:
        ConfigError: all problems, one a line.
    """
    features = reads_features(schema)
    if features:
        overrides = long_names(overrides)
    if features and overrides and not places:  # the source says the rest
        values, origins = compose_words(overrides)
    else:
        values, origins = compose(find_recipe(places), overrides)
    if features:
        complete(values, origins, schema, _saved_data)
    return parse(values, schema, origins, for_run=for_run)


def _saved_data(path: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = importlib.import_module("solo.run.source").saved_data(path)
    return found


def _is_override(word: str) -> bool:
    return "=" in word or word.startswith("~")


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--cfg", choices=["resolved"])
    parser.add_argument("--preview", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--help", "-h", action="store_true")
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
