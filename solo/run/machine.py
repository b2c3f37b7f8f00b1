"""What the settings leave to the machine: on what a command computes, how exactly, in how many processes, how fast."""

import copy
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.layer_sync import LayerSync
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from omegaconf import OmegaConf
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from solo import distributed
from solo.args.eval_schema import FeatureCfg
from solo.args.parse import count_devices
from solo.args.schema import LinearCfg, PretrainCfg, RunCfg
from solo.callbacks.meter import Meter
from solo.callbacks.recorder import Work
from solo.cores import usable_cores
from solo.errors import UserError, explained
from solo.losses.fused import check_device
from solo.methods.base import BaseMethod
from solo.methods.module import SoloModule
from solo.nn.networks import synchronise
from solo.precision import best_precision
from solo.run.report import say


def decide_precision(
    cfg: PretrainCfg | LinearCfg, model: LightningModule, device: torch.device, stored: Mapping[str, Any] | None = None
) -> PretrainCfg | LinearCfg:
    """The config with `precision` decided, or that of a run that is resumed, if it is `auto`; the model keeps it."""
    if cfg.trainer.get("precision") != "auto":
        return cfg
    if stored:
        decided = stored.get("precision")
    else:
        entries = cfg.augmentations if isinstance(cfg, PretrainCfg) else ()
        sides = [entry.crop_size for entry in entries if entry.crop_size] or [cfg.data.image_size or cfg.data.spec.size]
        smallest = cfg.data.channels or cfg.data.spec.channels, min(sides)
        decided, reason = best_precision(device, getattr(model, "backbone", model), smallest)
        say(f"precision=auto: {decided} ({reason})")
    decided_cfg = replace(cfg, trainer={**cfg.trainer, "precision": decided})
    if isinstance(model, SoloModule):
        model.config = decided_cfg
        OmegaConf.update(model.cfg, "precision", decided, force_add=True)
    return decided_cfg


_WORTH_COMPILING = 5_000  # steps: compiling takes a minute or more


def tune(model: LightningModule, cfg: PretrainCfg | LinearCfg, device: torch.device, steps: int) -> None:
    """What `performance.*` and a GPU allow in so many steps: channels_last, TF32 beside half precision, compiling."""
    on_gpu = device.type == "cuda"
    if on_gpu and not cfg.performance.disable_channel_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if on_gpu and "mixed" in str(cfg.trainer.get("precision")):
        torch.set_float32_matmul_precision("high")  # what is left in float32 comes of half precision
    if cfg.performance.grad_checkpointing:
        save_memory(model.backbone)  # type: ignore[arg-type]
    wanted = cfg.performance.compile
    if wanted == "auto":
        wanted = on_gpu and steps >= _WORTH_COMPILING and "fsdp" not in str(cfg.strategy)
    if wanted:
        names = compile_networks(model)
        say(f"performance.compile: {', '.join(names)}; the first step takes a minute or more")


def save_memory(backbone: nn.Module) -> None:
    """Let a backbone, if it can, compute its blocks' activations again in the backward pass."""
    what = "performance.grad_checkpointing=true is for timm's networks (vit_small, swin_tiny, ...), and "
    what += f"{type(backbone).__name__} can't do it"
    with explained(what, "leave it out", AttributeError, AssertionError, TypeError):
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]


def compile_networks(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> list[str]:
    """Compile backbones and heads in place, each with a way back; their names. `backend` is `torch.compile`'s."""
    names = []
    for name, part in model.named_children():
        if name in ("backbone", "momentum_backbone") or isinstance(part, nn.Sequential):
            part.compile(backend=backend)
            compiled: Any = part._compiled_call_impl
            part._compiled_call_impl = functools.partial(_or_as_it_is, name, part, compiled)
            names.append(name)
    return names


def _or_as_it_is(name: str, module: nn.Module, compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return compiled(*args, **kwargs)
    except Exception as error:  # compilers raise anything; what the network itself raises goes on
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "torch._functorch")):
            raise
        reason = " ".join(str(error).strip().partition("\n\n")[0].split())
        say(f"performance.compile: {name} runs as it is ({type(error).__name__}: {reason})")
        module._compiled_call_impl = None
        return module(*args, **kwargs)


# Products and sums a second in 16 bits, dense, as published; the first that the device's name contains.
_PEAKS = {
    **{"B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12},
    **{"A10G": 70e12, "A10": 125e12, "L4": 121e12, "V100": 125e12, "T4": 65e12, "4090": 165e12, "3090": 71e12},
}


def work_of(model: BaseMethod, cfg: PretrainCfg, device: torch.device, processes: int) -> Work:
    """Operations of one image with all its views: forward and twice as much backward, forward of a slow network."""
    channels = cfg.data.channels or cfg.data.spec.channels
    sides = [entry.crop_size or cfg.data.image_size or cfg.data.spec.size for entry in cfg.augmentations]
    views = [side for side, entry in zip(sides, cfg.augmentations, strict=True) for _ in range(entry.num_crops)]
    network = copy.deepcopy(model).eval()
    slow = getattr(network, "momentum_forward", None) if getattr(network, "has_teacher", True) else None
    trained = 3 if any(parameter.requires_grad for parameter in network.backbone.parameters()) else 1
    flops = 0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for number, side in enumerate(views):
            large = number < network.num_large_crops
            passes = [(network if large else network.multicrop_forward, trained)]
            passes += [(slow, 1)] if large and slow is not None else []
            for forward, times in passes:
                with FlopCounterMode(display=False) as counted:
                    forward(torch.zeros(1, channels, side, side))
                flops += times * counted.get_total_flops()
    half = device.type == "cuda" and "16" in str(cfg.trainer.get("precision"))
    name = torch.cuda.get_device_name(device) if half else ""
    peak = next((peak * processes for known, peak in _PEAKS.items() if known in name), None)
    return Work(len(views), flops, peak)


def ddp_strategy(exact: bool = False, ours: bool = True) -> DDPStrategy:
    """DDP without copies of gradients (but for `exact`), and without sending buffers (which `ours` do themselves)."""
    return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=not exact, broadcast_buffers=not ours)


class Starving(Callback):
    """After the second epoch (the first one fills caches) says what would end the wait for images, if that is long."""

    def __init__(self, meter: Meter, workers: int) -> None:
        self.meter, self.workers, self.epochs = meter, workers, 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs += 1
        if self.epochs == 2 and self.meter.data_wait > 0.3:  # of the time of an epoch
            cores = usable_cores() // trainer.world_size
            more = f"; {cores} cores for each device, data.num_workers={self.workers}" if cores > self.workers else ""
            images = getattr(trainer.train_dataloader, "dataset", None)
            cure = getattr(images, "cure", f"{self.workers} processes make the views{more}")
            say(f"data wait {100 * self.meter.data_wait:.0f} %: {cure}")


def compute_device(cfg: RunCfg | FeatureCfg) -> torch.device:
    """What `accelerator` says, the best there is for `auto`; a `UserError` where a GPU is missing."""
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
    """`devices` as Lightning wants it: on a CPU a list of n means n processes, too many are a `UserError`."""
    devices: Any = list(cfg.devices) if isinstance(cfg.devices, tuple) else cfg.devices
    if compute_device(cfg).type != "cpu":
        return devices
    count, cores = count_devices(cfg.devices, "cpu"), usable_cores()
    if count > max(4, 2 * cores):
        what = f"devices={devices}: there is no GPU in use, and {count} processes are too many for {cores} cores"
        raise UserError(f"{what}; give devices={cores} or less")
    return count


def check_launch(cfg: RunCfg, trainer: Trainer) -> None:
    """Refuse another number of processes than `devices` and `num_nodes` say: rate and schedules follow from these."""
    nodes = cfg.num_nodes
    shown = list(cfg.devices) if isinstance(cfg.devices, tuple) else cfg.devices
    environment = trainer._accelerator_connector.cluster_environment
    if nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        cure = "set MASTER_ADDR, MASTER_PORT and NODE_RANK on each machine (docs/launching.md)"
        what = f"num_nodes={nodes}, but nobody has started the other machines' processes"
        raise UserError(f"{what}; start the command with srun or torchrun, or {cure}")
    started, said = environment.world_size(), count_devices(cfg.devices, cfg.accelerator) * nodes
    if environment.creates_processes_externally and started != said:
        what = f"{started} processes were started, but devices={shown} and num_nodes={nodes} mean {said}"
        raise UserError(f"{what}; set devices to the number on each machine, so that learning rate and schedules fit")


class SyncedNorms(LayerSync):
    """Stands in for Lightning's, whose converter drops the activation inside of timm's `BatchNormAct2d`."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu

    def apply(self, model: nn.Module) -> nn.Module:
        if not self.gpu:
            return synchronise(model)
        from timm.layers.norm_act import convert_sync_batchnorm

        return convert_sync_batchnorm(model)  # type: ignore[no-untyped-call, no-any-return]

    def revert(self, model: nn.Module) -> nn.Module:
        return model  # outside of training these are BatchNorms


UNIT = 1_000_000  # parameters: smaller layers than this are gathered together with the rest of the network


class Sharded(ModelParallelStrategy):
    """Lightning's FSDP2, backbones layer by layer; checkpoints are those of any other run, whole tensors, one file."""

    restore_checkpoint_after_setup = False  # weights are loaded while they are whole
    lightning_restore_optimizer = True

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Give all processes the first one's weights, share them out, and make the optimizers of the shares."""
        module = self.lightning_module
        assert module is not None and self.accelerator is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(module)
        self.model_to_device()
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)
        mesh = self.device_mesh["data_parallel"]
        for name, part in module.named_children():  # the layers of its backbones one by one, the rest together
            for stack in reversed(list(part.modules())) if name.endswith("backbone") else ():  # inner ones first
                for layer in stack if isinstance(stack, (nn.Sequential, nn.ModuleList)) else ():
                    if sum(p.numel() for p in layer.parameters()) >= UNIT:
                        fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh, reshard_after_forward=False)
        for step in ("training_step", "validation_step"):
            register_fsdp_forward_method(module, step)
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return {name: _whole(value) for name, value in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state = getattr(optimizer, "_optimizer", optimizer).state_dict()
        whole = {i: {key: _whole(value) for key, value in own.items()} for i, own in state["state"].items()}
        return {**state, "state": whole}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(saved)
            for p, own in optimizer.state.items():
                for key, value in own.items():
                    if isinstance(p, DTensor) and value is not None and getattr(value, "shape", None) == p.shape:
                        own[key] = distribute_tensor(value, p.device_mesh, p.placements)


def _whole(value: Any) -> Any:
    """On the CPU in the first process; all have to call it."""
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if distributed.rank() == 0 else None
