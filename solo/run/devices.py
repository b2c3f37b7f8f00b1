"""On what a command computes, and whether the processes of a run are as many as its settings say."""

import os
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.layer_sync import LayerSync
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from solo.args.eval_schema import FeatureCfg
from solo.args.schema import RunCfg
from solo.args.trainer import count_devices
from solo.errors import UserError
from solo.losses.fused import check_device
from solo.nn.sync_norm import synchronise


def compute_device(cfg: RunCfg | FeatureCfg) -> torch.device:
    """Where a command computes: what `accelerator` says, the best there is for `auto`.

    Raises a `UserError` where a GPU is asked for, or needed by `performance.fused_loss`, and there is none.
    """
    name, cuda, mps = cfg.accelerator, torch.cuda.is_available(), torch.backends.mps.is_available()
    if (name == "cuda" and not cuda) or (name == "gpu" and not (cuda or mps)):
        raise UserError(f"accelerator={name}, but no GPU is visible; use accelerator=auto or accelerator=cpu")
    if name in ("auto", "gpu"):
        name = "cuda" if cuda else "mps" if mps else "cpu"
    device = torch.device("xla" if name == "tpu" else name)
    if isinstance(cfg, RunCfg) and cfg.performance.fused_loss:
        check_device(device)
    return device


def trainer_devices(cfg: RunCfg) -> Any:
    """`devices` as Lightning wants it: on a CPU a list of n means n processes."""
    devices: Any = list(cfg.devices) if isinstance(cfg.devices, tuple) else cfg.devices
    if compute_device(cfg).type != "cpu":
        return devices
    devices = len(devices) if isinstance(devices, list) else devices
    return 1 if devices in ("auto", -1, "-1") else int(devices)


def check_launch(cfg: RunCfg, trainer: Trainer) -> None:
    """Compare the processes that torchrun, SLURM or Lightning start with `devices` and `num_nodes`.

    The learning rate and the length of the schedules were derived from these, so that other numbers would train
    something else. Raises a `UserError`: they differ, or nobody has started the other machines' processes.
    """
    said = count_devices(cfg.devices, cfg.accelerator)
    nodes = cfg.num_nodes
    shown = list(cfg.devices) if isinstance(cfg.devices, tuple) else cfg.devices
    environment = trainer._accelerator_connector.cluster_environment
    if nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"num_nodes={nodes}, but nobody has started the other machines' processes; start the command with srun or "
            "torchrun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each machine (docs/launching.md)"
        )
    if not environment.creates_processes_externally:
        return
    started = environment.world_size()
    if started != said * nodes:
        raise UserError(
            f"{started} processes were started, but devices={shown} and num_nodes={nodes} "
            f"mean {said * nodes}; set devices to the number on each machine, so that learning rate and schedules fit"
        )


class SyncedNorms(LayerSync):
    """Stands in for Lightning's, whose converter drops the activation inside of timm's `BatchNormAct2d`."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu

    def apply(self, model: nn.Module) -> nn.Module:
        """Let each BatchNorm use the batches of all processes."""
        if not self.gpu:
            return synchronise(model)
        converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing to do: outside of training these are BatchNorms."""
        return model
