"""What `accumulate=exact` costs and saves: a large batch in one piece, in parts with one loss, or with a loss each.

    python benchmarks/accumulate.py [scripts/pretrain/fashion_mnist simclr.yaml] [key=value ...]
                                    [--batch 256] [--parts 8] [--steps 3] [--threads 1]

Each form is the recipe (default: SimCLR on Fashion-MNIST with a ResNet-18, in float32), run through the command line in
a process of its own for some optimizer steps, data path and optimizer included. Memory is the most that the process
occupies during the steps above what it occupied before them: resident memory on a CPU, allocated memory on a GPU. Time
is that of the fastest step after the first; on a CPU processor time, so that other programs don't count. Negatives are
counted in the masks of the loss. Then the gradients of all forms on one batch and the same weights, as the relative
distance to those of the batch in one piece: with BatchNorm's statistics held fixed, where those of `exact` must agree,
and with the statistics of each part, as in training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from online import clock  # type: ignore[import-not-found]
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from solo import cli
from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.callbacks import Meter
from solo.callbacks.meter import peak_memory_mb
from solo.losses import Pairs
from solo.methods import METHODS
from solo.methods.exact import split
from solo.run.pretrain import train_loader

FORMS = {"whole": "in one piece", "exact": "in parts, accumulate=exact", "plain": "in parts, accumulate=plain"}
RECIPE = ["scripts/pretrain/fashion_mnist", "simclr.yaml"]
NETWORK = ["backbone.name=resnet18", "~backbone.kwargs", "precision=32-true"]
QUIET = ["max_epochs=1", "progress=off", "tensorboard.enabled=False", "checkpoint.enabled=False"]


def settings(form: str, given: argparse.Namespace) -> list[str]:
    """The words that make one form of the recipe."""
    parts = 1 if form == "whole" else given.parts
    words = [f"optimizer.batch_size={given.batch // parts}", f"accumulate_grad_batches={parts}"]
    return [*given.words, *words, *([f"accumulate={form}"] if parts > 1 else [])]


def cost(form: str, given: argparse.Namespace) -> dict[str, float]:
    """Peak memory in MiB, seconds a step and negatives an anchor of one form, in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = given.parts if form == "plain" else 1
    before, ends, negatives = [0.0], [], set()
    start, step, masks = Meter.on_train_epoch_start, Meter.on_train_batch_end, Pairs.masks

    def on_start(self: Meter, *args: Any) -> None:
        forget_peak(device)
        before[0] = peak_memory_mb(device)
        start(self, *args)

    def on_step(self: Meter, *args: Any) -> None:
        step(self, *args)
        if device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(clock())

    def counted(self: Pairs, rows: slice) -> tuple[Tensor, Tensor]:
        found = masks(self, rows)
        negatives.add(found[1].sum(dim=1).float().mean().item())
        return found

    Meter.on_train_epoch_start, Meter.on_train_batch_end = on_start, on_step  # type: ignore[method-assign]
    Pairs.masks = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        where = [f"checkpoint.dir={folder}", f"limit_train_batches={given.steps * batches}", "limit_val_batches=1"]
        if cli.main(["pretrain", *given.recipe, *settings(form, given), *QUIET, *where]):
            raise SystemExit(1)
    steps = ends[batches - 1 :: batches]
    seconds = min(later - earlier for earlier, later in zip(steps, steps[1:], strict=False))
    count = sum(negatives) / max(len(negatives), 1)
    return {"memory": peak_memory_mb(device) - before[0], "seconds": seconds, "negatives": count}


def forget_peak(device: torch.device) -> None:
    """Let peaks count from here; a CPU's only on Linux, elsewhere the start of the program counts as well."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def distances(given: argparse.Namespace) -> dict[str, list[float]]:
    """Relative distance of each form's gradient to that of the whole batch: fixed statistics, statistics of a part."""
    found: dict[str, list[float]] = {form: [] for form in FORMS}
    batch = next(iter(train_loader(config("whole", given))))
    for fixed in (True, False):
        gradients = {form: gradient(form, config(form, given), batch, fixed) for form in FORMS}
        for form, value in gradients.items():
            found[form].append(float((value - gradients["whole"]).norm() / gradients["whole"].norm()))
    return found


def config(form: str, given: argparse.Namespace) -> PretrainCfg:
    """The resolved settings of one form."""
    values, origins = compose(find_recipe(given.recipe), settings(form, given))
    parsed: PretrainCfg = parse(values, PretrainCfg, origins).config
    return parsed


def gradient(form: str, cfg: PretrainCfg, batch: Any, fixed: bool) -> Tensor:
    """The gradients of a batch, one after the other, without the online classifier's; at the weights of a fixed seed.

    Args:
        form: whole, exact or plain.
        cfg: its settings.
        batch: all images.
        fixed: BatchNorm uses the statistics of the batch's first view for all parts and views.
    """
    seed_everything(0, verbose=False)
    model = METHODS[cfg.method](cfg).train()
    if fixed:
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0  # the next statistics are the running ones
        with torch.no_grad():
            model(batch[1][0])
        for norm in norms:
            norm.eval()
    parts = split(batch, model.batch_size) if form == "plain" else [batch]
    for part in parts:
        (model.training_step(part, 0) / len(parts)).backward()
    found = [p.grad for name, p in model.named_parameters() if p.grad is not None and not name.startswith("classifier")]
    return torch.cat([grad.flatten() for grad in found])


def child(job: str) -> Any:
    """What one job prints, run by this program in a process of its own."""
    found = subprocess.run([sys.executable, *sys.argv, "--job", job], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(found.stdout + found.stderr)
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    """Measure each form in a process of its own, so that peaks do not mix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--batch", type=int, default=256, help="images that one loss should see")
    parser.add_argument("--parts", type=int, default=8, help="in which they go through the network")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps of each form, at least 2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--job", choices=[*FORMS, "gradients"], help=argparse.SUPPRESS)
    given = parser.parse_intermixed_args()
    if given.batch % given.parts or given.parts < 2 or given.steps < 2:
        raise SystemExit("give --steps of 2 or more, and --parts of 2 or more that divide --batch")
    torch.set_num_threads(given.threads)
    own = given.words[:2] if given.words and "=" not in given.words[0] else []
    given.recipe, given.words = own or RECIPE, given.words[len(own) :] if own else [*NETWORK, *given.words]
    if given.job:
        print(json.dumps(distances(given) if given.job == "gradients" else cost(given.job, given)))
        return
    costs, far = {form: child(form) for form in FORMS}, child("gradients")
    cfg = config("whole", given)
    sizes = f"{given.batch} images in {given.parts} parts of {given.batch // given.parts}"
    title = f"{' '.join(given.recipe)}, {cfg.backbone.name}: {sizes}"
    table = Table("batch", *("negatives", "memory", "ratio", "time", "ratio"), "gradient", "own BatchNorm", title=title)
    for form, name in FORMS.items():
        row, base = costs[form], costs["whole"]
        numbers = [f"{row['negatives']:g}"] if row["negatives"] else ["-"]
        for key, unit in (("memory", "MiB"), ("seconds", "s")):
            numbers += [f"{row[key]:.4g} {unit}", f"{row[key] / base[key]:.2f}"]
        table.add_row(name, *numbers, *(f"{distance:.0e}" if distance else "0" for distance in far[form]))
    Console(width=140 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    main()
