"""A run's step against its network alone, and against the same network fed by other libraries' transforms.

    python benchmarks/step.py [--cases digits fashion_mnist resnet18 vit_tiny] [--seconds 40] [--threads 1] [key=value]
    python benchmarks/step.py --start 3  # what a run imports, and all of a run of one epoch

A run of the recipe (`solo.run.pretrain`, every default of it: online classifier, k-NN, vital signs, guard, logging,
checkpoints) is stopped before each batch, and the other programs make a step there: *alone*, the same network, loss
and optimizer in a bare loop on one batch of random tensors; *lightly*, the same with `SimCLRTransform` of the recipe's
probabilities and `NTXentLoss`; *torchvision*, with its v2 transforms on uint8 tensors. So all of them have the machine
in the same state, and what else runs there disturbs all alike. On a CPU processor time is counted, without loader
processes. Speeds are ratios of sums over all steps, with 95 % intervals by resampling them. ResNet-18 and ViT-tiny
learn from random pixels. `views` is the share of the run's step that makes them, `rest` what is neither views nor
network.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from data import clock  # type: ignore[import-not-found]
from lightly.loss import NTXentLoss
from lightly.transforms import SimCLRTransform
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.data.batches.loaders import BatchLoader
from solo.data.sources.images import ArrayDataset
from solo.losses import simclr_loss_func
from solo.methods import METHODS
from solo.run import pretrain

RGB = ["scripts/pretrain/cifar10", "simclr.yaml", "data.num_workers=0", "data.train_path=."]
CASES = {
    "digits": ["scripts/pretrain/digits", "simclr.yaml"],
    "fashion_mnist": ["scripts/pretrain/fashion_mnist", "simclr.yaml"],
    "resnet18": [*RGB, "optimizer.batch_size=32"],
    "vit_tiny": [*RGB, "optimizer.batch_size=32", "backbone.name=vit_tiny", "backbone.kwargs={patch_size: 4}"],
}
RARE = 4  # the slow ones make a step in every fourth
Work = Callable[[], Any]


class EnoughError(Exception):
    """The time of a case is over."""


def seconds(work: Work) -> float:
    """How long it takes."""
    start = clock()
    work()
    return clock() - start


class Program:
    """A bare training loop: the method's backbone, projector and optimizer, a loss, and where batches come from.

    Args:
        cfg: of the run.
        batches: pairs of views, without end.
        loss: of the projections of both views.
    """

    def __init__(
        self, cfg: PretrainCfg, batches: Iterator[list[Tensor]], loss: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self.model = METHODS[cfg.method](cfg).train()
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        made = self.model.configure_optimizers()
        self.optimizer = made[0][0] if isinstance(made, tuple) else made
        self.batches, self.loss, self.half = batches, loss, False

    def __call__(self) -> None:
        """One step."""
        views = [view.to(self.model.device) for view in next(self.batches)]
        with torch.autocast(views[0].device.type, torch.bfloat16, enabled=self.half):
            feats = [self.model.backbone(self.model.in_memory_format(view)) for view in views]
            loss = self.loss(*(self.model.heads(f)["z"] for f in feats))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def forever(loader: Any) -> Iterator[list[Tensor]]:
    """Views of `(views, ...)` batches, epoch after epoch."""
    while True:
        for views, *_ in loader:
            yield views


def programs(cfg: PretrainCfg, images: Any) -> dict[str, Program]:
    """The other programs on the images that the run learns from."""
    entry, data = cfg.augmentations[0], cfg.data
    side, channels, rows = int(entry.crop_size or 0), data.channels or data.spec.channels, cfg.optimizer.batch_size
    norm = {"mean": list(data.mean or ()), "std": list(data.std or ())}
    jitter, blur, crop = entry.color_jitter, entry.gaussian_blur.prob, entry.rrc.crop_min_scale
    strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    lightly = SimCLRTransform(
        side,
        jitter.prob,
        1.0,
        *strengths,
        crop,
        entry.grayscale.prob,
        blur,
        hf_prob=entry.horizontal_flip.prob,
        normalize=norm,
    )
    tensors = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(side, (crop, 1.0)),
            v2.RandomApply([v2.ColorJitter(*strengths)], jitter.prob),
            v2.RandomGrayscale(entry.grayscale.prob),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], blur),
            v2.RandomHorizontalFlip(entry.horizontal_flip.prob),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(**norm),
        ]
    )
    temperature = float(cfg.method_kwargs.temperature)
    ids = torch.arange(rows).repeat(2)

    def ours(a: Tensor, b: Tensor) -> Tensor:
        return simclr_loss_func(torch.cat([a, b]), ids.to(a.device), temperature)

    def fed(transform: Callable[[Any], Any]) -> Iterator[list[Tensor]]:
        images.transform = None
        made = [
            (lambda image=image: transform(image)) for image, _ in (images[i] for i in range(min(len(images), 4096)))
        ]
        loader: Any = DataLoader(_Called(made), rows, shuffle=True, drop_last=True)
        return forever(loader)

    noise = [torch.randn(rows, channels, side, side) for _ in range(2)]
    return {
        "alone": Program(cfg, forever([(noise,)]), ours),
        "lightly": Program(cfg, fed(lightly), NTXentLoss(temperature)),
        "torchvision": Program(cfg, fed(lambda image: [tensors(image), tensors(image)]), ours),
    }


class _Called:
    """A data set whose items are calls."""

    def __init__(self, items: list[Work]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any]:
        return (self.items[index](),)


def measure(words: list[str], limit: float) -> dict[str, list[float]]:
    """Seconds of the steps: of the run, its `views`, and of each program; NaN where one made none."""
    values, origins = compose(find_recipe(words[:2]), words[2:])
    cfg: PretrainCfg = parse(values, PretrainCfg, origins).config
    others = programs(cfg, pretrain._images(cfg))
    for program in others.values():
        program()
    found: dict[str, list[float]] = {name: [] for name in ("run", "views", *others)}
    original, started = BatchLoader.__iter__, clock()

    def compete(number: int) -> None:
        for name, program in others.items():
            due = name == "alone" or number % RARE == 0
            found[name].append(seconds(program) if due else float("nan"))
        if clock() - started > limit:
            raise EnoughError

    def stepped(self: BatchLoader) -> Iterator[list[Any]]:
        batches = original(self)
        for number in range(len(self)):
            mark = clock()
            batch = next(batches)
            views = clock() - mark
            yield batch
            found["run"].append(clock() - mark)
            found["views"].append(views)
            compete(number)

    BatchLoader.__iter__ = stepped  # type: ignore[method-assign]
    settled = pretrain.tune

    def tuned(model: Any, settings: Any, *rest: Any) -> None:
        for program in others.values():
            program.half = "bf16" in str(settings.trainer.get("precision"))
        settled(model, settings, *rest)

    pretrain.tune = tuned
    with contextlib.suppress(EnoughError), contextlib.redirect_stdout(io.StringIO()):
        pretrain.run(cfg)
    BatchLoader.__iter__, pretrain.tune = original, settled  # type: ignore[method-assign]
    return {name: values[1:] for name, values in found.items()}  # the first step warms up


def ratio(above: list[float], below: list[float]) -> tuple[float, float, float]:
    """Ratio of sums over the steps that both made, and its 95 % interval by resampling steps."""
    pairs = np.array([above, below])
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    drawn = np.random.default_rng(0).integers(pairs.shape[1], size=(2000, pairs.shape[1]))
    sums = pairs[:, drawn].sum(axis=2)
    low, high = np.quantile(sums[0] / sums[1], (0.025, 0.975))
    return float(pairs[0].sum() / pairs[1].sum()), float(low), float(high)


def start(rounds: int) -> None:
    """Print the processor time of a run's imports, and of all of it, and what it is of torch's and Lightning's."""
    words = [
        "pretrain",
        "digits",
        "hex",
        "max_epochs=1",
        "accelerator=cpu",
        "data.num_workers=0",
        "checkpoint.dir=FOLDER",
    ]
    run = f"from solo.cli import main; main({words})"
    what = {"lightning": "import torch, lightning.pytorch", "imports": "import solo.cli, solo.run.pretrain", "run": run}
    spent: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(rounds):
        for name, program in what.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-c", program.replace("FOLDER", folder)]
                subprocess.run(command, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    base, ours, whole = map(min, spent.values())
    print(f"imports: {ours:.2f} s, {ours / base:.2f} times `import torch, lightning.pytorch`")
    print(f"a run of digits over one epoch: {whole:.2f} s, {whole / base:.2f} times")


def noise(spec: Any, split: str, path: Any, download: Any, transform: Any = None, *_: Any, **__: Any) -> ArrayDataset:
    """As many images of 32 x 32 random pixels as an epoch needs."""
    pixels = np.random.default_rng(0).integers(0, 256, (2048, 32, 32, 3), dtype=np.uint8)
    return ArrayDataset(pixels, np.arange(len(pixels)) % 10, transform)


def main() -> None:
    """Measure case by case and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="settings of all cases")
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--seconds", type=float, default=40, help="of each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=int, metavar="ROUNDS", help="measure what a run imports instead")
    given = parser.parse_intermixed_args()
    torch.set_num_threads(given.threads)
    if given.start:
        start(given.start)
        return
    columns = ("steps", "ms", "run / alone", "views", "rest", "run / lightly", "run / torchvision")
    table = Table("case", *columns, title="speed of a run's step, with 95 % intervals")
    load = pretrain.load
    for case in given.cases:
        pretrain.load = noise if CASES[case][: len(RGB)] == RGB else load
        with tempfile.TemporaryDirectory() as folder:
            words = [*CASES[case], f"checkpoint.dir={folder}", "tensorboard.enabled=False", *given.words]
            found = measure(words, given.seconds)
        steps, whole = len(found["run"]), sum(found["run"])
        shares = [sum(found["views"]) / whole, 1 - (sum(found["views"]) + sum(found["alone"])) / whole]
        speeds = {name: "{:.3f} [{:.3f}, {:.3f}]".format(*ratio(found[name], found["run"])) for name in found}
        cells = [f"{steps}", f"{1000 * whole / steps:.1f}", speeds["alone"], *(f"{share:.1%}" for share in shares)]
        table.add_row(case, *cells, speeds["lightly"], speeds["torchvision"])
    Console(width=160 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    main()
