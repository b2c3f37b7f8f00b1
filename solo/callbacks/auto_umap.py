"""Pictures of the embedding while training, and of a model at hand."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn

from solo.analysis.plots import Embedding, draw_embedding
from solo.callbacks.run_directory import RunDirectory, defaults_of
from solo.distributed import gather_no_grad


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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run_id = self.run.open(trainer).name if self.run else None
        directory = RunDirectory(self.logdir, run_id, locked=False)
        self.path = directory.open(trainer)
        self.umap_placeholder = f"{self.name}-{directory.run_id}-ep={{}}.pdf"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.path is not None and not trainer.sanity_checking and trainer.current_epoch % self.frequency == 0:
            self.plot(trainer, pl_module)

    def plot(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the features of the validation images. Every process has to call this."""
        assert self.path is not None
        loaders: Any = trainer.val_dataloaders
        loader, limit = loaders[0] if isinstance(loaders, (list, tuple)) else loaders, trainer.num_val_batches[0]
        with torch.random.fork_rng(devices=[]):  # a loader without a generator of its own draws its seed from torch
            batches = loader if limit == float("inf") else islice(loader, int(limit))
            features, targets = _features(lambda X: pl_module(X)["feats"], batches, pl_module.device)
        features, targets = gather_no_grad(features).cpu(), gather_no_grad(targets)
        if not trainer.is_global_zero or len(features) < 2:
            return
        module: Any = pl_module
        if (label_paths := getattr(module, "label_paths", None)) is not None:
            targets = label_paths(targets)
        pdf = self.path / self.umap_placeholder.format(trainer.current_epoch)
        files = [pdf, pdf.with_suffix(".png")]
        title = f"{self.name}, epoch {trainer.current_epoch}, validation"
        how = {"palette": self.color_palette, "embedding": self.embedding}
        _draw(features, targets, files, title, getattr(module, "taxonomy", None), **how)
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
        files = list(dict.fromkeys([path, path.with_suffix(".png")]))
        _draw(features.cpu(), targets, files, path.stem, None, palette=self.color_palette, embedding=self.embedding)


@torch.no_grad()
def _features(forward: Callable[[Tensor], Tensor], batches: Iterable[Any], device: torch.device) -> tuple[Tensor, ...]:
    """Features (n, D) and targets (n,) or (n, L) of batches whose first two entries are images and targets."""
    found = [(forward(X.to(device)).float(), targets.to(device)) for X, targets, *_ in batches]
    return torch.cat([row for row, _ in found]), torch.cat([row for _, row in found])


def _draw(features: Tensor, targets: Tensor, files: list[Path], title: str, taxonomy: Any, **how: Any) -> None:
    labels = np.asarray(targets.cpu()).reshape(len(targets), -1)
    fits = taxonomy is not None and len(taxonomy.levels) == labels.shape[1]
    names = list(zip(taxonomy.levels, taxonomy.names, strict=True)) if fits else None
    draw_embedding(features.numpy(), labels, files, names=names, title=title, max_points=2000, **how)
