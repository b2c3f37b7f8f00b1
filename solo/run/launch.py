"""Who started the processes of a run, and whether they are as many as its settings say."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer

from solo.args.schema import RunCfg
from solo.args.trainer import count_devices
from solo.errors import UserError


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
