"""Small configs and batches for the methods' tests."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

HEADS = {"proj_hidden_dim": 16, "proj_output_dim": 8}
PREDICTOR = {**HEADS, "pred_hidden_dim": 16}
TINY_VIT = {
    "name": "vit_tiny",
    "kwargs": {"patch_size": 4, "img_size": 12, "embed_dim": 24, "num_heads": 2, "depth": 1},
}
METHOD_KWARGS = {
    "simclr": {**HEADS, "temperature": 0.2},
    "vicreg": HEADS,
    "barlow_twins": HEADS,
    "byol": PREDICTOR,
    "simsiam": PREDICTOR,
    "nnclr": {**PREDICTOR, "temperature": 0.2, "queue_size": 64},
    "mocov2plus": {**HEADS, "temperature": 0.2, "queue_size": 64},
    "all4one": {**PREDICTOR, "temperature": 0.2, "queue_size": 64},
    "supcon": {**HEADS, "temperature": 0.2},
    "vibcreg": {**HEADS, "iternorm": True},
    "mocov3": {**PREDICTOR, "temperature": 0.2},
    "nnsiam": {**PREDICTOR, "queue_size": 64},
    "nnbyol": {**PREDICTOR, "queue_size": 64},
    "ressl": {**HEADS, "temperature_q": 0.1, "temperature_k": 0.01, "queue_size": 64},
    "wmse": {**HEADS, "proj_output_dim": 4, "whitening_size": 8},
    "swav": {**HEADS, "temperature": 0.1, "queue_size": 16, "num_prototypes": 10, "epoch_queue_starts": 1},
    "deepclusterv2": {**HEADS, "num_prototypes": [6, 6], "kmeans_iters": 3},
    "dino": {**HEADS, "num_prototypes": 10, "warmup_teacher_temperature_epochs": 1},
    "dinov2": {**HEADS, "num_prototypes": 10, "warmup_teacher_temperature_epochs": 1},
    "ijepa": {"predictor_embed_dim": 16, "predictor_depth": 1, "predictor_num_heads": 2},
    "himulcon": {**HEADS, "temperature": 0.2},
    "hicone": {**HEADS, "temperature": 0.2},
    "himulcone": {**HEADS, "temperature": 0.2},
    "guided": HEADS,
    "lejepa": {**HEADS, "num_slices": 16},
    "frossl": HEADS,
    "lightly": {**HEADS, "loss": "TiCoLoss"},
    "siglip": {**HEADS, "bias": -2.0},
    "crossentropy": {},
    "haframe": {"proj_hidden_dim": 16},
    "hiercos": {"proj_hidden_dim": 16},
    "happier": HEADS,
    "levelcontrast": HEADS,
    "lorentz": HEADS,
    "mae": {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2},
}


def make_cfg(method: str = "simclr", **changes: Any) -> DictConfig:
    """A minimal config that nobody parsed; `changes` are dotted keys with `__` for the dot."""
    cfg = OmegaConf.create(
        {
            "method": method,
            "max_epochs": 2,
            "backbone": TINY_VIT
            if method in ("mae", "dinov2", "ijepa")
            else {"name": "resnet10", "kwargs": {"width": 8}},
            "data": {"dataset": "fashion_mnist"},
            "optimizer": {"name": "sgd", "batch_size": 8, "lr": 0.1, "classifier_lr": 0.2, "weight_decay": 1e-4},
            "scheduler": {"name": "none"},
            "method_kwargs": METHOD_KWARGS.get(method, {}),
        }
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, merge=False, force_add=True)
    return cfg


def make_batch(batch: int = 8, views: int = 2, small: int = 0, size: int = 12, seed: int = 0) -> list[Any]:
    """A pretraining batch of noise with fine labels."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [size] * views + [size // 2] * small
    crops = [torch.randn(batch, 1, side, side, generator=generator) for side in sizes]
    return [torch.arange(batch), crops, torch.randint(0, 10, (batch,), generator=generator)]


class ToyViews(Dataset[Any]):
    """Ten blurry patterns, their labels, and noisy views of them; without views it is a validation set."""

    def __init__(self, length: int = 32, views: int = 2, levels: bool = False, labelled: bool = True) -> None:
        generator = torch.Generator().manual_seed(1)
        self.views, self.length = views, length
        self.labels = torch.arange(length) % 10 if labelled else torch.full((length,), -1)
        patterns = torch.randn(10, 1, 12, 12, generator=generator)
        self.images = patterns[torch.arange(length) % 10]
        self.paths = torch.stack([self.labels % 4, self.labels], dim=1) if levels else self.labels

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        image: Tensor = self.images[index]
        if not self.views:
            return image, self.paths[index]
        noise = torch.Generator().manual_seed(index)
        crops = [image + 0.1 * torch.randn(image.shape, generator=noise) for _ in range(self.views)]
        return index, crops, self.paths[index]


def fit(
    model: LightningModule,
    dataset: Dataset[Any],
    val: Dataset[Any] | None = None,
    ckpt_path: Path | None = None,
    **kwargs: Any,
) -> Trainer:
    """Train on the CPU for the model's epochs, from the checkpoint if one is given."""
    trainer = Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            **kwargs,
        }
    )
    loaders = [DataLoader(part, batch_size=8, drop_last=part is dataset) for part in (dataset, val) if part is not None]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")  # a frozen backbone
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used")
        warnings.filterwarnings("ignore", "You defined a `validation_step` but have no `val_dataloader`")
        trainer.fit(model, *loaders, ckpt_path=ckpt_path)
    return trainer


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# The tests import nothing from each other: they get these helpers as fixtures.


@pytest.fixture(name="make_cfg")
def _make_cfg() -> Any:
    return make_cfg


@pytest.fixture(name="make_batch")
def _make_batch() -> Any:
    return make_batch


@pytest.fixture(name="ToyViews")
def _toy_views() -> Any:
    return ToyViews


@pytest.fixture(name="fit")
def _fit() -> Any:
    return fit
