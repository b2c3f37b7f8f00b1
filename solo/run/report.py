"""What the screen says before and after a run, and in one line when something goes wrong on a machine."""

import errno
import logging
import re
import shlex
import textwrap
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from rich.text import Text

from solo.args.compose import as_word, compose
from solo.args.config import to_plain
from solo.args.origins import display
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.callbacks.meter import clock
from solo.data.catalogue.registry import DATASETS
from solo.errors import ConfigError, UserError, no_access
from solo.screen import say_error, shown

_FILES = ("last.ckpt", "metrics.csv", "summary.json", "curves.png", "config.yaml")
_PERCENT = {"val_acc1": "linear top-1", "val_acc5": "linear top-5", "knn_acc1": "kNN top-1", "knn_acc5": "kNN top-5"}
_PLAIN = {
    "loss": "training loss of the method",
    "train_class_loss": "training loss of the online classifier",
    "threshold": "HEX threshold",
    "hierarchy_negatives": "hierarchy negatives per anchor",
}


def _screen() -> Console:
    # Long lines stay whole, to be copied; names with [brackets] are no markup.
    return Console(soft_wrap=True, highlight=False, markup=False)


@rank_zero_only
def say(text: str) -> None:
    """Print a line, on the first process only."""
    _screen().print(shown(text))


def announce(trainer: Trainer, model: LightningModule) -> None:
    """Say on what the run computes, and how large the model is."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    device = trainer.strategy.root_device.type
    where = f"{trainer.world_size} x {device}" if trainer.world_size > 1 else device
    parameters = f"{total:,} parameters" + (f", {trained:,} of them trained" if trained < total else "")
    say(f"device {where}, precision {trainer.precision}, {parameters}")


def show_result(summary: Mapping[str, Any], folder: Path, next_command: str | None) -> None:
    """The final table: numbers, files and the command to type next."""
    screen = _screen()
    title = shown(summary["name"]) + ("" if summary["status"] == "finished" else f" ({summary['status']})")
    screen.print()
    screen.print(grid(title, (), ((shown(name), value) for name, value in _numbers(summary))))
    if "hex" in summary:
        screen.print(f"HEX: {summary['hex']['text']}")
    if "verdict" in summary:
        screen.print(f"against the weights it started from: {summary['verdict']['text']}", style="bold")
    screen.print(f"files in {shown(folder)}: {', '.join(name for name in _FILES if (folder / name).exists())}")
    if next_command:
        screen.print(f"next: {shown(next_command)}", style="bold")


def _numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(text, f"{summary[key]:.2f} %") for key, text in _PERCENT.items() if summary.get(key) is not None]
    if len(summary["levels"]) > 1:
        for level, numbers in summary["levels"].items():
            shown = [f"{_PERCENT[key].split()[0]} {value:.2f} %" for key, value in numbers.items() if value is not None]
            rows.append((f"level '{level}', top-1", ", ".join(shown)))
    rows += [(text, f"{summary[key]:.4f}") for key, text in _PLAIN.items() if summary.get(key) is not None]
    if summary["images_per_second"] is not None:
        speed, wait = summary["images_per_second"], 100 * (summary["data_wait"] or 0)
        views = f", {summary['views_per_second']:,.0f} views/s" if summary.get("views_per_second") else ""
        rows.append(("speed", f"{speed:,.0f} images/s{views} ({wait:.0f} % waiting for data)"))
        if summary.get("model_flops_per_image"):
            flops, share = summary["model_flops_per_image"], summary.get("mfu")
            used = f", {share:.0f} % of what the device can (MFU)" if share else ""
            rows.append(("network", f"{flops / 1e9:,.2f} GFLOP an image, {flops * speed / 1e12:,.3f} TFLOP/s{used}"))
    if summary["peak_memory_mb"] is not None:
        rows.append(("peak memory", f"{summary['peak_memory_mb']:,.0f} MiB"))
    rows.append(("time", f"{clock(summary['run_seconds'] or 0)} for {summary['epochs']} epochs"))
    return rows


def grid(title: str, headings: Sequence[str], rows: Iterable[Sequence[str | Text]], numbers: bool = False) -> Table:
    """A table of the terminal, with `numbers` after the first column; without headings one of names and values."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=bool(headings))
    for place, heading in enumerate(headings or ("", "")):
        table.add_column(heading, overflow="fold", justify="right" if numbers and place else "left")
    for row in rows:
        table.add_row(*row)
    return table


def show_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a column for each key; floats with two digits, the best of each accuracy (`.._acc1`) in bold."""
    best = {name: max(row[name] for row in rows) for name in rows[0] if name.endswith("_acc1")}
    lines = []
    for row in rows:
        cells = {name: Text(f"{x:.2f}" if "_acc" in name else "" if x is None else shown(x)) for name, x in row.items()}
        for name, most in best.items():
            cells[name].stylize("bold" if row[name] == most else "")
        lines.append(list(cells.values()))
    headings = [shown(name.replace("_acc", " acc@").replace("_", " ")) for name in rows[0]]
    _screen().print(grid(shown(title), headings, lines))


def show_levels(title: str, levels: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    """A table: a column for each of `levels` (`level`, `classes`, numbers), a row for each measured one of `names`."""
    counts = [f" ({level['classes']:,})" if "classes" in level else "" for level in levels]
    headings = ["", *(shown(f"{level['level']}{count}") for level, count in zip(levels, counts, strict=True))]
    told = [(name, words) for name, words in names.items() if any(name in level for level in levels)]
    rows = [[words, *(_with_interval(level, name) for level in levels)] for name, words in told]
    _screen().print(grid(shown(title), headings, rows, numbers=True))


def _with_interval(level: Mapping[str, Any], name: str) -> str:
    if name not in level:
        return "-"
    value, ends = level[name], level.get(f"{name}_ci")
    if value is None:
        return "not defined"
    return f"{value:.2f} [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else f"{value:.3f}"


def next_command(cfg: PretrainCfg, checkpoint: Path, images: int) -> str:
    """What evaluates `checkpoint`, trained on so many images, to be pasted; without labels what looks at its run."""
    look = shlex.join(["solo", "analyze", as_word("checkpoint", display(checkpoint.parent))])
    data = to_plain(cfg)["data"]
    spec = DATASETS.get(data["dataset"])
    own = spec is None or spec.folders or data["format"] != "image_folder"
    if data["no_labels"] or data["num_classes"] in (None, 1) or (own and not data["val_path"]):
        return look
    try:
        recipe = find_recipe([data["dataset"], "linear"], "linear")
    except ConfigError:
        return look
    small = own and images < compose(recipe, [])[0]["optimizer"]["batch_size"]
    words = [f"optimizer.batch_size={images}"] if small else []
    return shlex.join(["solo", "linear", as_word("pretrained_feature_extractor", display(checkpoint)), *words])


_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|Cannot allocate memory|CUDNN_STATUS_ALLOC_FAILED", re.I)
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\) (exited unexpectedly|is killed by signal: \w+)")
_SOURCE_LINE = re.compile(r"\[\S+\.(cc|cpp|h):\d+\] ")
# gloo, NCCL and the store say in many ways that the other side of a connection is gone.
_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|Socket (closed|Timeout)|NCCL.*(remote|timeout|aborted)"
    r"|Timed out waiting \d+ms for (recv|send)|gloo.*(peer|timeout)|Watchdog caught collective operation timeout",
    re.I | re.S,
)
# Functions of Lightning and of this library that read the state of a run, but not its weights.
_RESTORING = {"restore_training_state", "restore_callbacks", "on_load_checkpoint", "loaded_state", "set_rng_state"}
_RESTORING |= {"restore", "_of_other_optimizers"}


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the user's machine is the cause of into a `UserError`; everything else stays as it is."""
    try:
        yield
    except Exception as error:
        text = explain(error)
        if text is None or isinstance(error, UserError):
            raise
        raise UserError(text) from error


def hush(workers: bool) -> None:
    """Silence Lightning's advertisements and advice that doesn't apply; its warnings stay.

    It ends the first process by SIGKILL when another one is lost, and says so where nobody looks; here a line says it.
    """

    def say_lost(record: logging.LogRecord) -> bool:
        if ended := re.search(r"PID (\d+) terminated with code (-?\d+)", record.getMessage()):
            what = f"process {ended[1]} of this run has ended with code {ended[2]}; all are stopped"
            say_error(f"error: {what}, and resume_from_checkpoint=FOLDER_OF_THE_RUN goes on from what was saved last")
        return False

    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not workers:  # asked for, and right for small images
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    for message in (
        ".*LeafSpec.*is deprecated.*",  # between Lightning and newer versions of torch; nothing a user could do
        "Grad strides do not match bucket view strides.*",  # of channels_last under DDP: turning it off costs more
        ".*is smaller than the logging interval.*",  # epochs may be short; metrics.csv has every one
        ".*checkpoint that ended before the epoch ended and your dataloader.*",  # the sampler continues their order
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # all processes have the same numbers
        "`broadcast_buffers` is deprecated.*",  # between Lightning and newer versions of torch
        "FSDP2-wrapped module .* returned a view tensor.*",  # nobody here writes into what a network returns
        ".*You defined a `validation_step` but have no `val_dataloader`.*",  # as was asked for
        r".*module\(s\) in eval mode at the start of training.*",  # a frozen backbone
    ):
        warnings.filterwarnings("ignore", message=message)
    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    launcher.setLevel(logging.INFO)
    launcher.filters = [say_lost]


def explain(error: BaseException) -> str | None:
    """The line for the user, or None if the error is none of a user's machine."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return str(error)
    full = isinstance(error, RuntimeError) and _NO_MEMORY.search(text)
    if full or isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        cure = "lower optimizer.batch_size, data.image_size or the network's width"
        return f"there is not enough memory ({text[:160] or type(error).__name__}); {cure}"
    if worker := _WORKER.search(text):
        how = worker[2].replace("exited unexpectedly", "has ended")
        how = how.replace("is killed by signal: ", "was killed by the signal ")
        what = f"a process that loads images (pid {worker[1].strip()}) {how}"
        return f"{what}, mostly for want of memory; lower data.num_workers or optimizer.batch_size"
    if isinstance(error, RuntimeError) and _LOST.search(text):
        reason = textwrap.shorten(_SOURCE_LINE.sub("", text), 120, placeholder=" ...")
        return f"another process of this run has ended, and this one with it; see its message, if it had any ({reason})"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "a file of the run"
        return f"{where} can't be written: {error.strerror}; free the disk or choose another checkpoint.dir"
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and error.filename:
        return no_access(error)
    frames = traceback.extract_tb(error.__traceback__)
    if {frame.name for frame in frames} & _RESTORING and isinstance(
        error, (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError)
    ):
        return f"the state of the run in the checkpoint can't be taken over ({type(error).__name__}: {text[:160]})"
    if "loading state_dict" in text:
        return f"the checkpoint doesn't fit the network that the settings describe: {text[:300]}"
    by_lightning = bool(frames) and "lightning" in Path(frames[-1].filename).parts
    if isinstance(error, MisconfigurationException) or (isinstance(error, ValueError) and by_lightning):
        return f"Lightning refuses the settings: {text}"
    return None
