"""Everything a run learned, on disk while it runs: its numbers, and how they came about."""

import csv
import hashlib
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

import solo
from solo.analysis.plots import plot_curves
from solo.args.config import flat, may_change, never_matters, to_yaml
from solo.callbacks.meter import Meter, peak_memory_mb
from solo.callbacks.run_directory import RunDirectory
from solo.errors import explained
from solo.files import csv_text, write_text
from solo.hex.catalogue import POLICIES

Row = dict[str, float]


class Work(NamedTuple):
    """What an image costs: its `views`, `flops` for all of them, and what all devices together do a second (`peak`)."""

    views: int
    flops: int
    peak: float | None = None

    def rates(self, speed: float | None) -> dict[str, float | None]:
        """Of images a second: views a second, FLOPs an image, model FLOPs utilisation in % (Chowdhery et al., 2022)."""
        found = {"views_per_second": speed and speed * self.views, "model_flops_per_image": self.flops}
        return found | ({"mfu": 100 * speed * self.flops / self.peak} if speed and self.peak else {})


@dataclass(frozen=True)
class Facts:
    """What a summary says besides the measured numbers."""

    kind: str  # "pretrain" or "linear"
    cfg: Mapping[str, Any]  # the resolved configuration, plain values
    levels: Sequence[str] = ()  # names of the label tree's levels, the coarsest first; empty without labels
    protocol: Mapping[str, str] = field(default_factory=dict)  # for each number, in words, how it came about
    extra: Mapping[str, Any] = field(default_factory=dict)  # further entries of the file
    work: Work | None = None  # of an image, if that is known


def summarize(rows: Sequence[Row], facts: Facts, run_id: str, status: str) -> dict[str, Any]:
    """Flat numbers of the last epoch, if measured, null if not finite; means over the run for the speed."""
    last = rows[-1] if rows else {}
    policy = (facts.cfg.get("hex") or {}).get("policy")  # None where there is none, as in linear evaluation
    keys = ["val_acc1", "val_acc5", "val_knn_acc1", "val_knn_acc5", "loss", "train_class_loss", "val_loss"]
    keys += ["hex/threshold", "hex/hierarchy_negatives", "hex/superclass_share"]
    numbers = {key.removeprefix("hex/").replace("val_knn", "knn"): _number(last[key]) for key in keys if key in last}
    numbers |= {key: _number(value) for key, value in last.items() if key.startswith("online/")}
    for name in ("images_per_second", "data_wait"):  # without the first epoch, which pays for the start
        values = [row[name] for row in rows if name in row]
        numbers[name] = _number(fmean(values[1:] or values)) if values else None
    if facts.work is not None:
        numbers |= facts.work.rates(numbers["images_per_second"])
    numbers["peak_memory_mb"] = _number(max((row.get("peak_memory_mb", math.nan) for row in rows), default=math.nan))
    measured = {name.partition("/")[0] for name in numbers}
    return {
        "status": status,
        "kind": facts.kind,
        "name": facts.cfg.get("name"),
        "method": facts.cfg.get("method"),
        "type": POLICIES[policy].shown if policy in POLICIES else policy,
        "run_id": run_id,
        "dataset": str((facts.cfg.get("data") or {}).get("dataset", "")),
        **numbers,
        **({"hex": did} if (did := _hex_did(last)) else {}),
        "levels": _levels(last, facts.levels),
        "protocol": {name: text for name, text in facts.protocol.items() if name in measured},
        "epochs": int(last["epoch"]) + 1 if rows else 0,
        "max_epochs": facts.cfg.get("max_epochs"),
        "run_seconds": _number(sum(row.get("seconds", 0.0) for row in rows)),
        "seed": facts.cfg.get("seed"),
        "config_hash": config_hash(facts.cfg),
        "versions": versions(),
        **facts.extra,
    }


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Twelve hex digits of the settings that decide about the result; names and folders don't count."""
    idle = never_matters()
    kept = {key: value for key, value in flat(cfg) if not may_change(key, idle)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def versions(*more: str) -> dict[str, str]:
    """Versions of what computed the numbers, and of more packages."""
    found = {"python": platform.python_version(), "solo": solo.__version__}
    for name in ("torch", "lightning", "timm", *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a build of its own, under another name
            found[name] = "unknown"
    return found


def _levels(last: Row, levels: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Accuracies of every level; the finest is the plain number where it isn't logged on its own."""
    found: dict[str, dict[str, float | None]] = {}
    for level in levels:
        for name, key in (("val_acc1", "val_acc1"), ("knn_acc1", "val_knn_acc1")):
            value = last.get(f"{key}/{level}", last.get(key) if level == levels[-1] else None)
            if value is not None:
                found.setdefault(level, {})[name] = _number(value)
    return found


def _hex_did(last: Row) -> dict[str, Any]:
    """What HEX did in the last epoch: numbers and a line of text, see `solo.hex.objective`; empty if it did nothing."""
    bands = {"": "relatives", "kin_": "kin that is weighed", "shown_": "relatives that are shown"}
    names = ("with_relatives", "mass", "own_class", "siblings", "strangers")
    keys = ("gradient_cosine", *(f"{band}{name}" for band in bands for name in names))
    if not (found := {key: last[f"hex/{key}"] for key in keys if f"hex/{key}" in last}):
        return {}
    said = []
    for band, whom in bands.items():
        share = {name: f"{found[band + name]:.1%}" for name in names if band + name in found}
        if "with_relatives" in share:
            said.append(f"{share['with_relatives']} of the anchors have {whom}")
        if "mass" in share:
            said.append(f"holding {share['mass']} of the denominator")
        if "own_class" in share:
            said.append("{own_class} own class, {siblings} siblings, {strangers} strangers".format(**share))
    if "gradient_cosine" in found:
        said.append(f"cosine of the gradient to InfoNCE's {found['gradient_cosine']:.4f}")
    return {**{name: _number(value) for name, value in found.items()}, "text": ", ".join(said)}


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


@dataclass(eq=False)
class Recorder(Callback):
    """Writes `config.yaml`, `metrics.csv`, `summary.json` and `curves.png` into the run's folder.

    The first three are renewed every epoch, so that a killed run keeps what it had. Place it last.
    """

    cfg: Any  # of the run, typed or a `DictConfig`
    run: RunDirectory  # the run's folder
    meter: Meter  # measures speed and loss; placed before this callback
    facts: Facts  # what the summary says besides the numbers
    history: Path | None = None  # `metrics.csv` of the run that is resumed; its epochs before this run's are kept
    tensorboard: bool = False  # also write the metrics as TensorBoard events into the run's folder
    rows: list[Row] = field(default_factory=list, init=False)
    summary: dict[str, Any] = field(default_factory=dict, init=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the folder, keep the configuration, attach TensorBoard (its folder is known only now)."""
        folder = self.run.open(trainer)
        if self.tensorboard:
            events = TensorBoardLogger(self.run.root, name="", version=self.run.run_id)
            events.NAME_HPARAMS_FILE = "config.yaml"  # is there, so that it writes no `hparams.yaml`
            trainer.loggers = [*trainer.loggers, events]
        if trainer.is_global_zero:
            write_text(folder / "config.yaml", to_yaml(self.cfg))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]) -> None:
        if self.history is not None:
            finished = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            self.rows = [row for row in read_rows(self.history) if row["epoch"] < finished]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = {key: float(value) for key, value in trainer.callback_metrics.items() if value.numel() == 1}
        # A metric logged per step too appears once, with its epoch value.
        doubled = {key for key in logged if key.endswith("_step") and f"{key[:-5]}_epoch" in logged}
        doubled |= {key for key in logged if key.endswith("_epoch") and key[:-6] in logged}
        row = {
            "epoch": float(trainer.current_epoch),
            "step": float(trainer.global_step),
            "loss": self.meter.loss,
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "images_per_second": self.meter.images_per_second,
            "data_wait": self.meter.data_wait,
            "peak_memory_mb": peak_memory_mb(trainer.strategy.root_device),
            "seconds": time.perf_counter() - self.meter.epoch_started,
            **{key: value for key, value in sorted(logged.items()) if key not in doubled},
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            whole = ("epoch", "step")
            rows = [{k: int(x) if k in whole else f"{x:.8g}" for k, x in row.items()} for row in self.rows]
            write_text(self.run.path / "metrics.csv", csv_text(rows))
            self._summarize("running")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._finish("finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what there is: a user or the machine stopped the run, or it failed."""
        if trainer.is_global_zero and self.run.is_open:
            stopped = isinstance(exception, (KeyboardInterrupt, SystemExit))  # SIGTERM raises a SystemExit
            self._finish("interrupted" if stopped else "failed")

    def add(self, name: str, value: Any) -> None:
        """Put a further entry into the summary of a finished run; None is none."""
        if value is not None:
            self.facts = replace(self.facts, extra={**self.facts.extra, name: value})
            self._summarize("finished")

    def _summarize(self, status: str) -> None:
        self.summary = summarize(self.rows, self.facts, run_id=self.run.run_id or "", status=status)
        write_text(self.run.path / "summary.json", json.dumps(self.summary, indent=2, allow_nan=False) + "\n")

    def _finish(self, status: str) -> None:
        self._summarize(status)
        title = f"{self.facts.cfg.get('name', '')} · {self.facts.kind} · {self.summary['dataset']}"
        plot_curves(self.rows, self.run.path / "curves.png", title)


def read_rows(path: Path) -> list[Row]:
    """Read `metrics.csv` back, no rows without the file; a `UserError` if it is damaged."""
    if not path.is_file():
        return []
    cure = "remove it, and the run goes on without it"
    with explained(f"{path} is damaged", cure, ValueError, TypeError, csv.Error):
        with path.open(encoding="utf-8", newline="") as stream:  # a name may hold what `splitlines` takes for an end
            table = csv.DictReader(stream)
            rows = [{key: float(value) for key, value in row.items() if key and value} for row in table]
        if any("epoch" not in row for row in rows):
            raise ValueError("a row has no epoch")
    return rows
