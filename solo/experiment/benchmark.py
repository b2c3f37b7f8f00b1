"""`solo benchmark RUN ...`: runs on many data sets and protocols: what it costs, what is missing, one table."""

import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from solo import api
from solo.analysis.comparison import packed, write_runs
from solo.args.compose import as_word
from solo.args.eval_schema import BenchmarkCfg, EvaluateCfg
from solo.args.fields import keys_of
from solo.args.origins import read_yaml
from solo.callbacks import run_directory
from solo.callbacks.recorder import versions
from solo.checkpoint import checkpoint_file
from solo.cli import read_config, read_words
from solo.errors import ConfigError, UserError
from solo.eval.features import Features
from solo.eval.intervals import coin, of_independent, of_mean
from solo.eval.linear import FEW, Settings, probe
from solo.experiment.runs import NAME, Row, add_row, read_rows
from solo.files import output_file, told_apart
from solo.run.features import load_features
from solo.run.machine import compute_device
from solo.run.report import explained, say


@dataclass(frozen=True)
class Cell:
    """One protocol on one data set for one run; the id is the same as long as nothing that matters has changed."""

    run: str  # its name in the table
    source: str  # the word of solo evaluate that names it
    data: str
    words: tuple[str, ...]  # of solo evaluate
    protocol: str
    id: str


def main(words: Sequence[str]) -> int:
    """Run the command; 0, or 1 if some features can't be had, which stops no other cell; or a `UserError`."""
    keys, of_features = keys_of(BenchmarkCfg), keys_of(EvaluateCfg)
    named = [word for word in words if "=" not in word and not word.startswith("-")]
    others = [word for word in words if "=" in word and word.partition("=")[0] not in keys]
    named += [word for word in others if os.path.exists(word)]
    given = [word for word in others if word not in named and word.split("=")[0].split(".")[0] in of_features]
    own = [word for word in words if word not in (*named, *given)]
    cfg = read_words("benchmark", BenchmarkCfg, [*([as_word("runs", named)] if named else []), *own])
    if cfg is None:
        return 0
    settings = Settings(**{item.name: getattr(cfg, item.name) for item in fields(Settings)})
    cells = plan(cfg, given, settings)
    folder = Path(cfg.out).expanduser()
    output_file(folder / NAME)
    with run_directory.held(folder):
        rows = read_rows(folder, ("protocol", "draws", "labels", "levels"))
        missing = [cell for cell in cells if cell.id not in rows]
        say(f"{len(cells)} cells, {len(cells) - len(missing)} are there, {len(missing)} to measure")
        needed: dict[str, dict[str, list[str]]] = {}
        for cell in missing:
            needed.setdefault(cell.data, {}).setdefault(cell.run, []).append(cell.protocol)
        for data, runs in needed.items():
            todo = "; ".join(f"{run}: {', '.join(protocols)}" for run, protocols in runs.items())
            say(f"  {data}, features of {len(runs)} run{'s' if len(runs) > 1 else ''}; {todo}")
        failed = _measure_all(missing, settings, folder, rows) if cfg.do == "run" else []
        there = [{**rows[cell.id], "run": cell.run, "data": cell.data} for cell in cells if cell.id in rows]
        if cfg.do != "cost" and there:
            left = len(cells) - len(there)
            said = [f"{left} of {len(cells)} cells are not measured: {'; '.join(failed) or 'not run'}."] if left else []
            files = write_runs(there, folder, f"solo benchmark {' '.join(words)}", [*said, _protocols(cfg)])
            say(f"files in {folder}: {NAME}, {', '.join(files)}")
        return 1 if failed else 0


def plan(cfg: BenchmarkCfg, given: Sequence[str], settings: Settings) -> list[Cell]:
    """All cells, the runs of one data set behind each other."""
    names = cfg.names or told_apart(cfg.runs)
    if len(names) != len(cfg.runs) or len(set(names)) != len(names):
        raise ConfigError(f"names={list(names)} must be {len(cfg.runs)} different names, one for each run")
    states = [_state(run) for run in cfg.runs]
    cells = []
    for data, own in data_sets(cfg.data).items():
        for protocol in cfg.protocols:
            for name, run, state in zip(names, cfg.runs, states, strict=True):
                words = (*own, *given)
                key = json.dumps([state, sorted(words), protocol, vars(settings)])
                digest = hashlib.sha256(key.encode()).hexdigest()[:12]
                cells.append(Cell(name, as_word(api._kind(run), run), data, words, protocol, digest))
    return cells


def _state(run: str) -> list[str | int]:
    """What tells a run from another one at the same place."""
    kind = api._kind(run)
    if kind == "features":
        raise ConfigError(f"{run} holds features of one data set; give a checkpoint, the folder of a run or timm/NAME")
    if kind == "model":
        return [run]
    file = checkpoint_file(run)
    return [str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns]


def data_sets(given: str | tuple[str, ...]) -> dict[str, list[str]]:
    """Names in the table -> words of solo evaluate: of `NAME`, `NAME=PATH`, or a YAML file; else a `ConfigError`."""
    found: dict[str, list[str]] = {}
    if not isinstance(given, str) or not given.endswith((".yaml", ".yml")):
        for name, _, path in (item.partition("=") for item in ([given] if isinstance(given, str) else given)):
            found[name] = [f"data.dataset={name}", *([as_word("data.train_path", path)] if path else [])]
        return found
    read = read_yaml(Path(given).expanduser())
    if not isinstance(read, Mapping) or not read or not all(isinstance(own, list | None) for own in read.values()):
        raise ConfigError(f"data={given} must be lines of NAME: [words of solo evaluate], such as digits: []")
    for name, own in read.items():
        words = [str(word) for word in own or ()]
        named = any(word.startswith("data.dataset=") for word in words)
        found[str(name)] = words if named else [f"data.dataset={name}", *words]
    return found


def _measure_all(missing: Sequence[Cell], settings: Settings, folder: Path, rows: dict[str, Row]) -> list[str]:
    """Measure, features of each run on each data set once; what failed, a line each."""
    failed, waiting = list[str](), dict[tuple[str, tuple[str, ...]], list[Cell]]()
    for cell in missing:
        waiting.setdefault((cell.source, cell.words), []).append(cell)
    for (source, words), cells in waiting.items():
        name = f"{cells[0].run} on {cells[0].data}"
        try:
            with explained():
                parsed = read_config("evaluate", [], [source, *words], for_run=True)
                parsed = parsed.fetch() if parsed.fetch is not None else parsed
                device = compute_device(parsed.config)
                loaded, _ = load_features(parsed.config, parsed.config.feature_type[:1], device)
                features = next(iter(loaded.values()))
                for cell in {cell.id: cell for cell in cells}.values():
                    row = _measure(cell, features, settings, device)
                    add_row(folder, row)
                    rows[cell.id] = row
                    found = ", ".join(f"{level} {one['accuracy']:.2f}" for level, one in row["levels"].items())
                    say(f"{name}, {cell.protocol}: {found} ({row['seconds']:.1f} s)")
        except UserError as error:
            failed.append(f"{name}: {error}")
            say(f"FAILED {failed[-1]}")
    return failed


def _measure(cell: Cell, features: Features, settings: Settings, device: torch.device) -> Row:
    started, draws = time.perf_counter(), settings.draws if cell.protocol in FEW else 1
    levels: dict[str, Row] = {}
    for level, hits in zip(features.levels, probe(features, cell.protocol, settings, device).numpy(), strict=True):
        known = hits[~np.isnan(hits)]
        if not len(known):
            continue
        if draws > 1:
            ends = of_mean(torch.from_numpy(known))
        else:
            ends = of_independent(float(known.mean()), len(known), coin(features.val.features))
        ci = None if np.isnan(ends).any() else [round(100 * end, 4) for end in ends]
        accuracy = round(100 * float(known.mean()), 4)
        levels[level] = {"images": len(known), "accuracy": accuracy, "ci": ci, "hits": packed(hits, draws)}
    row: Row = {"id": cell.id, "run": cell.run, "source": cell.source, "data": cell.data, "protocol": cell.protocol}
    labels = zlib.crc32(features.val.labels.numpy().tobytes())
    row |= {"words": cell.words, "draws": draws, "labels": labels, "levels": levels, "versions": versions()}
    return {**row, "seconds": round(time.perf_counter() - started, 2)}


def _protocols(cfg: BenchmarkCfg) -> str:
    texts = {
        "knn": f"{cfg.k} nearest training images by cosine, weights exp(cosine / {cfg.temperature:g})",
        "linear": "logistic regression, L2 penalty of 45 from 1e-6 to 1e5 chosen on a fifth of the training images",
        "shots1": f"the same from 1 image of each class, L2 penalty {cfg.l2:g}",
        "shots10": "from 10 images of each class",
        "labels1": "from 1 % of each class, at least one image",
        "labels10": "from 10 %",
    }
    few = f" Few images are drawn {cfg.draws} times, the same for every run, and results averaged."
    return "; ".join(f"{name}: {texts[name]}" for name in cfg.protocols) + "." + few
