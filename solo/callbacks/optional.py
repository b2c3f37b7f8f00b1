"""What a run has only if it is asked for: cheaper training, pictures of the embedding, a profile.

Li et al.: Accelerating augmentation invariance pretraining, https://arxiv.org/abs/2410.22364, among others: a network
learns most of what it learns from fewer pixels. Polyak, Juditsky: Acceleration of stochastic approximation by
averaging, SIAM Journal on Control and Optimization 1992: the mean is often better than the last weights.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile, schedule

from solo.analysis.plots import Embedding, draw_embedding
from solo.callbacks.run_directory import RunDirectory, defaults_of
from solo.checkpoint import misfit
from solo.distributed import gather_no_grad
from solo.errors import UserError
from solo.files import replacing, write_text

PROFILED = 5  # steps


@dataclass(eq=False)
class WeightAverage(Callback):
    """After each optimizer step mean <- share * mean + (1 - share) * weights; each epoch `ema.pth`, a checkpoint."""

    run: RunDirectory  # the run's folder
    share: float  # in (0, 1), what the mean keeps of itself in a step
    mean: dict[str, Tensor] = field(default_factory=dict, init=False)
    _step: int = field(default=0, init=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are, or go on with what the checkpoint had."""
        now = _weights(pl_module)
        if found := misfit(self.mean, now, "WeightAverage.mean"):
            raise UserError(f"the mean of the weights in the checkpoint is not of this network: {found}")
        self.mean = {name: self.mean.get(name, value).to(value.device, copy=True) for name, value in now.items()}
        self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        for name, value in _weights(pl_module).items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, 1 - self.share)
            else:
                self.mean[name].copy_(value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            mean = {f"backbone.{name}": value.cpu() for name, value in self.mean.items()}
            checkpoint: dict[str, Any] = {"state_dict": mean}
            pl_module.on_save_checkpoint(checkpoint)
            with replacing(self.run.path / "ema.pth") as temporary:
                torch.save(checkpoint, temporary)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mean = dict(state_dict["mean"])


def _weights(model: LightningModule) -> dict[str, Tensor]:
    """Of the backbone, by its own names; adapters are in them."""
    named = model.state_dict().items()
    return {name.removeprefix("backbone."): value.detach() for name, value in named if name.startswith("backbone.")}


@dataclass(eq=False)
class ResolutionSchedule(Callback):
    """Shrinks the views of a batch, once they are on the device, to a share of their side."""

    shares: Sequence[float]  # in (0, 1], one for each of as many equal parts of the run
    patch: int  # of the network, in pixels; sides are multiples of it

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        epochs, part = max(trainer.max_epochs or 1, 1), len(self.shares)
        share = self.shares[min(trainer.current_epoch * part // epochs, part - 1)]
        if share < 1:
            views = [batch[1]] if isinstance(batch[1], Tensor) else batch[1]
            batch[1] = [shrunk(view, share, self.patch) for view in views]


def shrunk_side(side: int, share: float, patch: int) -> int:
    """The multiple of the patch that is nearest to a share of a side, one patch at least."""
    return max(1, round(side * share / patch)) * patch


def shrunk(views: Tensor, share: float, patch: int) -> Tensor:
    """Views (B, C, H, H) -> (B, C, h, h), by averaging what comes together."""
    side = shrunk_side(views.shape[-1], share, patch)
    return F.interpolate(views, (side, side), mode="bilinear", antialias=True, align_corners=False)


@dataclass(eq=False)
class AutoUMAP(Callback):
    """After each validation in an epoch divisible by `frequency`, UMAP of the validation features as PDF and PNG.

    The files are `logdir/<run id>/<name>-<run id>-ep=<epoch>.pdf`; W&B gets the picture as `validation_umap`. At most
    2,000 images, drawn at random, the same ones each time; the title says so.
    """

    name: str  # start of the file names
    logdir: str | Path = Path("auto_umap")  # parent folder of all runs' pictures
    frequency: int = 1  # epochs between two pictures
    keep_previous: bool = False  # keep the earlier epochs' pictures
    color_palette: str = "hls"  # or a colour map of matplotlib
    run: RunDirectory | None = None  # whose id the pictures share; None: the logger's version, or a random id
    embedding: Embedding = "umap"
    path: Path | None = field(default=None, init=False)
    umap_placeholder: str = field(default="", init=False)
    _files: list[Path] = field(default_factory=list, init=False)

    add_and_assert_specific_cfg = staticmethod(defaults_of("auto_umap"))

    def initial_setup(self, trainer: Trainer) -> None:
        """Open the folder of the pictures and name them."""
        run_id = self.run.open(trainer).name if self.run else None
        directory = RunDirectory(self.logdir, run_id, locked=False)
        self.path = directory.open(trainer)
        self.umap_placeholder = f"{self.name}-{directory.run_id}-ep={{}}.pdf"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.initial_setup(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.path is not None and not trainer.sanity_checking and trainer.current_epoch % self.frequency == 0:
            self.plot(trainer, pl_module)

    def plot(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the features of the validation images. Every process has to call this."""
        assert self.path is not None
        loaders: Any = trainer.val_dataloaders
        loader = loaders[0] if isinstance(loaders, (list, tuple)) else loaders
        limit = trainer.num_val_batches[0]
        with torch.random.fork_rng(devices=[]):  # a loader without a generator of its own draws its seed from torch
            batches = loader if limit == float("inf") else islice(loader, int(limit))
            features, targets = _features(lambda X: pl_module(X)["feats"], batches, pl_module.device)
        features, targets = gather_no_grad(features).cpu(), gather_no_grad(targets)
        if not trainer.is_global_zero or len(features) < 2:
            return
        if label_paths := getattr(pl_module, "label_paths", None):
            targets = label_paths(targets)
        pdf = self.path / self.umap_placeholder.format(trainer.current_epoch)
        files = [pdf, pdf.with_suffix(".png")]
        title = f"{self.name}, epoch {trainer.current_epoch}, validation"
        _draw(self, features, targets, files, title, getattr(pl_module, "taxonomy", None))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("validation_umap", [str(files[1])])
        if not self.keep_previous:
            for old in {*self._files} - {*files}:
                old.unlink(missing_ok=True)
        self._files = files


@dataclass
class OfflineUMAP:
    """UMAP (or t-SNE, PCA) of the features of a model, without a trainer; arguments as of `AutoUMAP`."""

    color_palette: str = "hls"
    embedding: Embedding = "umap"

    def plot(
        self, device: str | torch.device, model: nn.Module, dataloader: Iterable[Any], plot_path: str | Path
    ) -> None:
        """Draw features (B, D) of batches `(X, targets)`, in eval mode, as PNG and PDF, or what `plot_path` ends in."""
        features, targets = _features(model.to(device).eval(), dataloader, torch.device(device))
        path = Path(plot_path)
        _draw(self, features.cpu(), targets, [*dict.fromkeys([path, path.with_suffix(".png")])], path.stem, None)


@torch.no_grad()
def _features(forward: Callable[[Tensor], Tensor], batches: Iterable[Any], device: torch.device) -> tuple[Tensor, ...]:
    """Features (n, D) and targets (n,) or (n, L) of batches whose first two entries are images and targets."""
    found = [(forward(X.to(device)).float(), targets.to(device)) for X, targets, *_ in batches]
    return torch.cat([row for row, _ in found]), torch.cat([row for _, row in found])


def _draw(
    look: AutoUMAP | OfflineUMAP, features: Tensor, targets: Tensor, files: list[Path], title: str, taxonomy: Any
) -> None:
    labels = targets.cpu().numpy().reshape(len(targets), -1)
    fits = taxonomy is not None and len(taxonomy.levels) == labels.shape[1]
    names = list(zip(taxonomy.levels, taxonomy.names, strict=True)) if fits else None
    how: Any = {"palette": look.color_palette, "embedding": look.embedding, "max_points": 2000}
    draw_embedding(features.numpy(), labels, files, names=names, title=title, **how)


@dataclass(eq=False)
class StepProfile(Callback):
    """Writes `profile.json` (for Perfetto) and `profile.txt`: steps of the first epoch, after as many for the start."""

    run: RunDirectory
    _profile: profile | None = field(default=None, init=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        gpu = trainer.strategy.root_device.type == "cuda"
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
        order = f"self_{'device' if gpu else 'cpu'}_time_total"
        warm = min(PROFILED, max(1, int(trainer.num_training_batches) - PROFILED))

        def write(found: Any) -> None:
            found.export_chrome_trace(str(self.run.path / "profile.json"))
            table = found.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=60)
            write_text(self.run.path / "profile.txt", f"{PROFILED} steps, the longest operations first\n{table}\n")

        turns = schedule(wait=0, warmup=warm, active=PROFILED, repeat=1)
        self._profile = profile(activities=kinds, schedule=turns, on_trace_ready=write)
        self._profile.start()

    def on_train_batch_end(self, *_: Any) -> None:
        if self._profile is not None:
            with torch.no_grad():
                self._profile.step()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None
