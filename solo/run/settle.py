"""What the settings leave to the machine, decided once, when the device, the network and the run's length are known."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import OmegaConf
from torch import nn

from solo.args.schema import LinearCfg, PretrainCfg
from solo.callbacks.meter import Meter
from solo.cores import usable_cores
from solo.errors import UserError
from solo.methods.module import SoloModule
from solo.precision import best_precision
from solo.run.report import say


def settle(
    cfg: PretrainCfg | LinearCfg, model: LightningModule, device: torch.device, stored: Mapping[str, Any] | None = None
) -> PretrainCfg | LinearCfg:
    """The config with `precision` decided, or that of a run that is resumed, if it is `auto`; the model keeps it."""
    if cfg.trainer.get("precision") != "auto":
        return cfg
    if stored:
        decided = stored.get("precision")
    else:
        decided, reason = best_precision(device, getattr(model, "backbone", model), _smallest(cfg))
        say(f"precision=auto: {decided} ({reason})")
    settled = dataclasses.replace(cfg, trainer={**cfg.trainer, "precision": decided})
    if isinstance(model, SoloModule):
        model.config = settled
        OmegaConf.update(model.cfg, "precision", decided, force_add=True)
    return settled


def _smallest(cfg: PretrainCfg | LinearCfg) -> tuple[int, int]:
    """Channels and side of the smallest image that the network is trained on."""
    entries = cfg.augmentations if isinstance(cfg, PretrainCfg) else ()
    known = [entry.crop_size for entry in entries if entry.crop_size] or [cfg.data.image_size or cfg.data.spec.size]
    return (cfg.data.channels or cfg.data.spec.channels, min(known))


_HUNGRY = 0.3  # of the time of an epoch
_WORTH_COMPILING = 5_000  # steps: compiling takes a minute or more


def tune(model: LightningModule, cfg: PretrainCfg | LinearCfg, device: torch.device, steps: int) -> None:
    """What `performance.*` and a GPU allow: weights in channels_last, TF32 beside half precision, compiled networks.

    The networks stay where they are; the config is settled, and `steps` are those of the whole run.
    """
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
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, TypeError) as error:
        raise UserError(
            "performance.grad_checkpointing=true is for timm's networks (vit_small, swin_tiny, ...), and "
            f"{type(backbone).__name__} can't do it; leave it out"
        ) from error


def compile_networks(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> list[str]:
    """Compile backbones and heads in place, each with a way back: what can't be compiled runs as it is, and says why.

    These are `backbone`, `momentum_backbone` and all that is a `nn.Sequential`; returns their names. `backend`: of
    `torch.compile`.
    """
    backbones = ("backbone", "momentum_backbone")
    parts = {
        name: part for name, part in model.named_children() if name in backbones or isinstance(part, nn.Sequential)
    }
    for name, part in parts.items():
        part.compile(backend=backend)
        compiled: Any = part._compiled_call_impl
        part._compiled_call_impl = functools.partial(_or_as_it_is, name, part, compiled)
    return list(parts)


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


def ddp_strategy(exact: bool = False, ours: bool = True) -> DDPStrategy:
    """DDP without what a step doesn't need: copies of the gradients, and sending all buffers (queues are large).

    With `exact` (`accumulate=exact`) first parts go backward on their own; for the buffers of `ours`, the library's own
    methods, see `SoloModule.on_validation_start`.
    """
    return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=not exact, broadcast_buffers=not ours)


class Starving(Callback):
    """After the second epoch (the first one fills caches) says what would end the wait for images, if that is long."""

    def __init__(self, meter: Meter, workers: int) -> None:
        self.meter, self.workers, self.epochs = meter, workers, 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the share of waiting."""
        self.epochs += 1
        if self.epochs == 2 and self.meter.data_wait > _HUNGRY:
            cores = usable_cores() // trainer.world_size
            more = f"; {cores} cores for each device, data.num_workers={self.workers}" if cores > self.workers else ""
            images = getattr(trainer.train_dataloader, "dataset", None)
            cure = getattr(images, "cure", f"{self.workers} processes make the views{more}")
            say(f"data wait {100 * self.meter.data_wait:.0f} %: {cure}")
