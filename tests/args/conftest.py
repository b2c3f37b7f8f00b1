"""A small config that is valid, and a folder of recipes in solo-learn's form."""

from __future__ import annotations

import copy

import pytest

PRETRAIN = {
    "name": "test",
    "method": "simclr",
    "method_kwargs": {"proj_hidden_dim": 8, "proj_output_dim": 4, "temperature": 0.2},
    "backbone": {"name": "resnet18"},
    "data": {"dataset": "cifar100", "train_path": ".", "val_path": ".", "num_workers": 2},
    "augmentations": [{"num_crops": 2, "crop_size": 32, "rrc": {"enabled": True}}],
    "optimizer": {"name": "lars", "batch_size": 64, "lr": 0.4, "classifier_lr": 0.1, "weight_decay": 1e-4},
    "scheduler": {"name": "warmup_cosine"},
    "devices": [0],
    "accelerator": "gpu",
    "max_epochs": 20,
}
LINEAR = {
    "name": "test",
    "pretrained_feature_extractor": "some.ckpt",
    "data": {"dataset": "cifar10", "train_path": ".", "val_path": ".", "num_workers": 2},
    "optimizer": {"name": "sgd", "batch_size": 512, "lr": 0.3, "weight_decay": 0},
    "scheduler": {"name": "step", "lr_decay_steps": [60, 80]},
    "devices": [0],
    "max_epochs": 2,
}
SOLO_LEARN_YAML = """\
defaults:
  - _self_
  - augmentations: symmetric.yaml
  - wandb: private.yaml
  - override hydra/hydra_logging: disabled
  - override hydra/job_logging: disabled

# disable hydra outputs
hydra:
  output_subdir: null
  run:
    dir: .

name: "simclr-cifar10"
method: "simclr"
backbone:
  name: "resnet18"
method_kwargs:
  proj_hidden_dim: 2048
  proj_output_dim: 256
  temperature: 0.2
data:
  dataset: cifar10
  train_path: "./datasets"
  val_path: "./datasets"
  format: "image_folder"
  num_workers: 4
optimizer:
  name: "lars"
  batch_size: 256
  lr: 0.4
  classifier_lr: 0.1
  weight_decay: 1e-4
  kwargs:
    clip_lr: True
    eta: 0.02
    exclude_bias_n_norm: True
scheduler:
  name: "warmup_cosine"
checkpoint:
  enabled: True
  dir: "trained_models"
  frequency: 1
auto_resume:
  enabled: True
max_epochs: 1000
devices: [0]
sync_batchnorm: True
accelerator: "gpu"
strategy: "ddp"
precision: 16-mixed
"""
SYMMETRIC_YAML = """\
- rrc:
    enabled: True
    crop_min_scale: 0.08
    crop_max_scale: 1.0
  color_jitter:
    prob: 0.8
    brightness: 0.8
    contrast: 0.8
    saturation: 0.8
    hue: 0.2
  grayscale:
    enabled: True
    prob: 0.2
  gaussian_blur:
    prob: 0.5
  solarization:
    prob: 0
  equalization:
    prob: 0
  horizontal_flip:
    prob: 0.5
  crop_size: 32
  num_crops: 2
"""
PRIVATE_YAML = "enabled: True\nentity: None\nproject: 'solo-learn'\n"


@pytest.fixture
def pretrain_values():
    return copy.deepcopy(PRETRAIN)


@pytest.fixture
def linear_values():
    return copy.deepcopy(LINEAR)


@pytest.fixture
def recipes(tmp_path):
    """`cifar/simclr.yaml` with its groups, as solo-learn ships it."""
    folder = tmp_path / "recipes" / "cifar"
    for name, text in (
        ("simclr.yaml", SOLO_LEARN_YAML),
        ("augmentations/symmetric.yaml", SYMMETRIC_YAML),
        ("wandb/private.yaml", PRIVATE_YAML),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
