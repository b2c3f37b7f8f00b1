"""The command table. A command's heavy modules are imported when it runs, after its config has been checked."""

import argparse
import errno
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

import solo
from solo.args import compose, eval_schema, show
from solo.args.config import freeze
from solo.args.fields import Section, check, keys_of
from solo.args.parse import Parsed, parse
from solo.args.recipes import find_folders, find_recipe
from solo.args.schema import LinearCfg, PretrainCfg
from solo.compat import twin
from solo.compat.args import has_flags, read_flags
from solo.cores import fitting_workers
from solo.errors import ConfigError, UserError, did_you_mean, refusal
from solo.plugin import permit
from solo.screen import PIPE_CLOSED, guarded_output, reader_is_gone, say_error, shown

Cfg = TypeVar("Cfg", bound=Section)


@dataclass(frozen=True)
class Command:
    """One row of the table: a function, `module:name` below `solo`, and the schema of the resolved config that it gets.

    Without a schema it gets the words, and reads its own command line; or its settings need no recipe, `own` has them.
    """

    call: str
    schema: type | None
    help: str
    own: type | None = None


COMMANDS: dict[str, Command] = {
    "pretrain": Command("run.pretrain:run", PretrainCfg, "learn from images without labels"),
    "linear": Command("run.measure:linear", LinearCfg, "evaluate a backbone with a linear classifier, or finetune it"),
    "evaluate": Command(
        "run.measure:evaluate", eval_schema.EvaluateCfg, "measure features at every level of the label tree"
    ),
    "analyze": Command(
        "run.analyze:run", eval_schema.AnalyzeCfg, "look at embeddings: emergence, collapse, the tree; a report"
    ),
    "knn": Command("run.measure:knn", eval_schema.KnnCfg, "evaluate features by their nearest neighbours"),
    "umap": Command("run.measure:umap", eval_schema.UmapCfg, "draw features as points in the plane"),
    "embed": Command("run.take:embed", None, "features of a folder of images", eval_schema.EmbedCfg),
    "search": Command("run.take:search", None, "find the images most alike to one", eval_schema.SearchCfg),
    "predict": Command(
        "run.take:predict", None, "best classes of a folder of images, at every level", eval_schema.PredictCfg
    ),
    "export": Command(
        "run.take:export", None, "the backbone for timm, torchvision, Hugging Face, ONNX, ...", eval_schema.ExportCfg
    ),
    "experiment": Command("experiment.main:main", None, "compare arms over paired seeds, with intervals"),
    "benchmark": Command("experiment.benchmark:main", None, "runs on many data sets and protocols, in one table"),
    "recipe": Command("", None, "print a recipe whole, to save and edit; list what there is"),
    "inspect": Command("run.inspect:main", None, "say what is in a folder or table of images"),
    "doctor": Command("doctor.main:main", None, "check this installation on this machine"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `solo COMMAND ...`; the exit code is 1 for what the user has to solve, 2 for a wrong config or command."""
    with guarded_output():
        code = 1
        try:
            code = _exit_code(list(sys.argv[1:] if argv is None else argv))
        finally:
            if code in (1, 2) and (other := twin()):
                say_error(f"note: {other}")
    return PIPE_CLOSED if reader_is_gone() and code == 0 else code


def _exit_code(words: list[str]) -> int:
    try:
        os.getcwd()
        return _dispatch(words)
    except ConfigError as error:
        problems = str(error).splitlines()
        several = f"error: {len(problems)} problems\n  " + "\n  ".join(problems)
        say_error(several if len(problems) > 1 else f"error: {error}")
        return 2
    except UserError as error:
        say_error(f"error: {error}")
        return 1
    except OSError as error:
        line = refusal(error)
        if line is None:
            raise
        say_error(f"error: {line}")
        return 2 if error.errno == errno.ENAMETOOLONG else 1
    except RuntimeError as error:
        if "home directory" not in str(error):
            raise
        say_error("error: a path begins with ~, and there is no such user or home; write ./~NAME for such a file")
        return 2
    except KeyboardInterrupt:
        say_error("stopped by the keyboard")
        return 130


def _dispatch(words: list[str]) -> int:
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name not in (*COMMANDS, "--help", "-h", "help", "--version", "--complete", "--install-completion"):
        raise ConfigError(f"{name!r} is no command; {did_you_mean(name, COMMANDS)}choose {', '.join(COMMANDS)}")
    if name in COMMANDS and name != "recipe":
        command = COMMANDS[name]
        if command.schema is not None:
            return _run(name, command, command.schema, rest)
        if command.own is None:
            return int(resolve_name(f"solo.{command.call}")(rest))
        settings = read_words(name, command.own, rest)
        if settings is not None:
            resolve_name(f"solo.{command.call}")(settings)
        return 0
    schemas = {row: command.schema for row, command in COMMANDS.items()}
    if name == "recipe":
        overrides = [word for word in rest if _is_override(word)]
        places = [word for word in rest if word not in overrides]
        text = show.recipe_page(places, overrides, {row: schema for row, schema in schemas.items() if schema})
    elif name == "--complete":
        text = "".join(f"{line}\n" for line in show.completions(rest[0] if rest else "", schemas))
    elif name == "--install-completion":
        text = f"{show.install_completion(rest[0] if rest else None)}\n"
    elif name == "--version":
        text = f"{solo.__version__}\n"
    else:
        rows = "\n".join(f"  {row:<10} {command.help}" for row, command in COMMANDS.items())
        text = f"usage: solo COMMAND ...\n\n{rows}\n\n`solo COMMAND --help` lists the keys of a command.\n"
        text += "`solo --install-completion` lets bash, zsh or fish complete commands, recipes and keys.\n"
    sys.stdout.write(text)
    return 0


def read_words(command: str, schema: type[Cfg], words: Sequence[str]) -> Cfg | None:
    """The settings of a command, or a `ConfigError` with all problems, one a line; None after printing `--help`."""
    if {"-h", "--help"} & set(words):
        places = " ".join(map(str.upper, schema.POSITIONAL))
        about = str(schema.__doc__).strip()
        sys.stdout.write(f"usage: solo {command} {places} [KEY=VALUE ...]\n\n{about}\n\n{show.help_text(schema)}\n")
        return None
    keys = keys_of(schema)
    values: dict[str, Any] = {}
    free = [name for name in schema.POSITIONAL if not any(word.startswith(f"{name}=") for word in words)]
    for word in words:
        if word.split("=", 1)[0].lstrip("+") in keys and "=" in word or not free:
            found = compose.read_word(word, schema)
            if values.get(found.key, found.value) != found.value:
                raise ConfigError(f"{found.key} is given twice, {values[found.key]!r} and {found.value!r}; drop one")
            values[found.key] = found.value
        else:
            values[free.pop(0)] = word
    return settings_of(schema, values)


def settings_of(schema: type[Cfg], values: Mapping[str, Any], where: str = "") -> Cfg:
    """The settings, or a `ConfigError` with all problems, one a line that begins with `where`."""
    checked, problems = check(values, schema)
    if problems:
        raise ConfigError("\n".join(f"{where}{key}{text}" for key, text in problems))
    return freeze(checked, schema)


def _run(name: str, command: Command, schema: type, words: list[str]) -> int:
    flags = has_flags(name, words)
    parser = compose.LineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--cfg", choices=["resolved"])
    for option in (("--preview",), ("--multirun", "-m"), ("--help", "-h")):
        parser.add_argument(*option, action="store_true")
    given = parser.parse_intermixed_args([] if flags else words)
    if given.help:
        method = next((word.partition("=")[2] for word in given.words if word.startswith("method=")), None)
        permit([method] if method else [])
        sys.stdout.write(f"{show.usage(name, command.help, schema)}\n{show.help_text(schema, method)}\n")
        return 0
    if given.preview and name != "pretrain":
        raise ConfigError("--preview shows augmented views, which only `solo pretrain` makes")
    if flags:
        values, origins = read_flags(name, words)
        parsed = parse(values, schema, origins, for_run=True)
    elif given.multirun:
        return _sweep(name, command, given)
    else:
        parsed = read_config(name, *_split(given), for_run=not given.cfg)
    if given.cfg:
        sys.stdout.write(f"{show.resolved_text(parsed)}\n")
    else:
        execute("run.pretrain:preview" if given.preview else command.call, parsed)
    return 0


def execute(call: str, parsed: Parsed, **more: Any) -> Any:
    """Say what is going to be run, and run it with its config; what the command's function returns."""
    if is_first_process():
        for note in parsed.notes:
            say_error(f"note: {note}")
        asked = parsed.values["data"]["num_workers"] or 0  # none where no images are read
        if fitting_workers(asked) < asked:
            say_error(f"note: data.num_workers={asked}: {fitting_workers(asked)} are started, one for each core")
        sys.stdout.write("".join(f"{shown(line)}\n" for line in show.describe(parsed.values)))
    function = resolve_name(f"solo.{call}")
    with resolve_name("solo.run.report:explained")():
        if parsed.fetch is not None:
            parsed = parsed.fetch()
        return function(parsed.config, **more)


def is_first_process() -> bool:
    """Whether this is the process that speaks, also where torchrun or SLURM has started several."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def _sweep(name: str, command: Command, given: argparse.Namespace) -> int:
    """All configs are read before the first run starts."""
    places, overrides = _split(given)
    sweep = compose.expand(overrides)
    parsed = [read_config(name, places, words, for_run=not given.cfg) for words in sweep.jobs]
    if not given.cfg and not given.preview:  # each is a program of its own; one that fails doesn't stop the others
        report, rows = importlib.import_module("solo.run.report"), []
        for number, (words, differing) in enumerate(zip(*sweep, strict=True), start=1):
            report.say(f"\nrun {number} of {len(sweep.jobs)}: {' '.join(differing)}")
            sys.stdout.flush()
            code = subprocess.call([sys.executable, "-m", "solo", name, *places, *words])
            rows.append({"run": number, "with": " ".join(differing), "exit code": code})
        report.show_table("runs", rows)
        return 1 if any(row["exit code"] for row in rows) else 0
    for number, (job, words) in enumerate(zip(parsed, sweep.differing, strict=True), start=1):
        sys.stdout.write(f"# run {number} of {len(parsed)}: {shown(' '.join(words))}\n")
        if given.cfg:
            sys.stdout.write(f"{show.resolved_text(job)}\n\n")
        else:
            execute("run.pretrain:preview", job, number=number)
    return 0


def _split(given: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The words that name the recipe, and the overrides."""
    named = [place for place in (given.config_path, given.config_name) if place is not None]
    if len(named) == 1:
        raise ConfigError("--config-path FOLDER and --config-name FILE go together; one of them is missing")
    places = named or [word for word in given.words if not _is_override(word)]
    return places, [word for word in given.words if named or _is_override(word)]


def read_config(name: str, places: Sequence[str], overrides: Sequence[str], for_run: bool) -> Parsed:
    """The config of a command, by the words that name a recipe or a run, and the others.

    With `for_run` also looks whether folders and files are there. Raises a `ConfigError` with all problems, one a line.
    """
    schema = COMMANDS[name].schema
    assert schema is not None
    overrides, places, saved = list(overrides), list(places), dict[str, Any]()
    features = issubclass(schema, eval_schema.FeatureCfg)
    if compose.SOURCES[0] in keys_of(schema):
        # `checkpoint.dir` is another key.
        overrides = [re.sub(r"^checkpoint=", f"{compose.SOURCES[0]}=", word) for word in overrides]
        if source := compose.source_word(places, schema):
            places, overrides = [], [source, *overrides]
        if len(places) == 1 and not find_folders(places[0], name) and not os.path.exists(os.path.expanduser(places[0])):
            raise ConfigError(f"{places[0]!r} doesn't exist; give a checkpoint, the folder of a run, or a recipe")
        source = next((word for word in overrides if word.startswith(f"{compose.SOURCES[0]}=")), None)
        if source and not places and not features:  # the recipe for the run's data set
            saved = saved_data(str(compose.read_word(source).value))
            if not saved.get("dataset"):
                raise ConfigError(f"the checkpoint doesn't say its data set; name a recipe: solo {name} DATASET {name}")
            places = [str(saved["dataset"]), name]
    if len(places) > 2:
        raise ConfigError(f"command line: {places[2]!r} is not key=value; see --help")
    recipe = None if features and overrides and not places else find_recipe(places, name)
    values, origins = compose.compose(recipe, overrides, schema)
    compose.take_over(values, origins, saved)
    told = compose.complete(values, origins, schema, saved_data) if features else []
    parsed = parse(values, schema, origins, for_run=for_run)
    parsed.notes[:0] = [*origins.notes, *told]
    return parsed


def saved_data(path: str) -> dict[str, Any]:
    """Section `data` of the run that made a checkpoint; empty if it has none."""
    return dict(resolve_name("solo.run.source:saved_data")(path))


def _is_override(word: str) -> bool:
    before, equals, _ = word.partition("=")
    # A file or a run's folder may have = in its name; `seed=1` is the key, whatever lies there.
    keys = {key for command in COMMANDS.values() if command.schema for key in keys_of(command.schema)}
    path = os.path.exists(word) and ("/" in before or Path(word).suffix in compose.CHECKPOINTS or before not in keys)
    path |= word.endswith(".yaml") and before not in keys and not {".", "/"} & set(before)
    return (bool(equals) and not path) or bool(re.fullmatch(r"~\w[\w.@/]*", word))
