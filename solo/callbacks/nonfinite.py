"""Stops a run whose loss is not finite before the weights are lost, says where it began, and keeps what replays it."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from solo.callbacks.process_state import on_cpu
from solo.callbacks.run_directory import RunDirectory
from solo.errors import NonFiniteError
from solo.files import replacing, write_text
from solo.rng import rng_state, set_rng_state


@dataclass(frozen=True)
class Finding:
    """Where a value that is not finite came from."""

    value: str = ""  # "nan" or "inf"; "" where the step gave finite values
    module: str = ""  # dotted name of the innermost module that made it, "" outside of all (in a loss)
    kind: str = ""  # its class, "" likewise
    parameters: tuple[str, ...] = ()  # names of parameters that were not finite before the step

    def __str__(self) -> str:
        if self.parameters:
            others = f" and {len(self.parameters) - 1} more" if len(self.parameters) > 1 else ""
            return f"the weights were broken before this step: {self.parameters[0]}{others}"
        if not self.value:
            return "the step gave finite values when it was run once more"
        where = f"module {self.module} ({self.kind})" if self.module else "the loss"
        return f"the first {self.value} is made in {where}"


def find_culprit(module: nn.Module, step: Callable[[], Any]) -> Finding:
    """Run `step`, which uses `module`, without gradient, and report which module made a NaN or an infinity first.

    That is the first whose inputs are finite and whose outputs aren't; nothing, if the result of `step` is finite.
    """
    found: list[Finding] = []

    def look(name: str, part: nn.Module, inputs: Any, out: Any) -> None:
        if not found and not _broken_value(inputs) and (value := _broken_value(out)):
            found.append(Finding(value, name, type(part).__name__))

    parameters = _broken_parameters(module)
    with contextlib.ExitStack() as stack, torch.no_grad():
        for name, part in module.named_modules():
            if name:
                stack.callback(part.register_forward_hook(functools.partial(look, name)).remove)
        value = _broken_value(step())
    return dataclasses.replace(found[0] if found and value else Finding(value), parameters=parameters)


def _broken_parameters(module: nn.Module) -> tuple[str, ...]:
    """Names; of buffers, the failing step itself may have written to."""
    return tuple(name for name, value in module.named_parameters() if not bool(value.isfinite().all()))


def _broken_value(item: Any) -> str:
    """`nan` or `inf` if one is in a tensor of nested lists and dictionaries, else nothing; minus infinity is a mask."""
    if isinstance(item, Tensor) and item.is_floating_point():
        return "nan" if bool(item.isnan().any()) else "inf" if bool((item == float("inf")).any()) else ""
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
    return next(filter(None, map(_broken_value, parts)), "")


class NonFiniteGuard(Callback):
    """Refuses to train on a loss that is NaN or infinite; then writes `replay/` into the run's folder.

    `state.ckpt`: a checkpoint as any other (`state_dict`, `solo`, `optimizer_states`) of the moment before the
    optimizer's step, with `replay`: step, random streams before the step, precision. `batch.pt`: the batch as the
    method got it. `finding.json`: the terms that are not finite, and the module where it began.
    With several processes each that fails writes `replay/rank<r>/`. All of it loads with `weights_only=True`.

    While all is well it costs one look at the loss a step, right after the one that the methods take themselves.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._batch: Any = None
        self._batch_idx = 0
        self._rng: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch, self._batch_idx, self._rng = batch, batch_idx, rng_state()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Refuse the loss of a method that doesn't look at it itself.

        Raises:
            NonFiniteError: with epoch and step.
        """
        look: Any = getattr(pl_module, "require_finite", None)  # which doesn't wait for a device
        if look is not None:
            look({"loss": loss})
            return
        value = loss.detach()
        if not bool(value.isfinite().all()):
            where = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
            raise NonFiniteError(f"the loss is not finite in {where}: {float(value)}", {"loss": float(value)})

    def on_train_batch_end(self, *_: Any) -> None:
        self._batch = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Find the culprit, save, and add both to the error's line."""
        if not isinstance(exception, NonFiniteError) or self._batch is None:
            return
        weights = on_cpu(pl_module.state_dict())  # before the step is run again
        finding = self._look_again(trainer, pl_module)
        text = f"{exception}; {finding}"
        if self.run.is_open:
            try:
                text += f"; batch and state are in {self._save(trainer, pl_module, weights, exception, finding)}"
            except OSError as error:
                text += f"; batch and state could not be saved ({error.strerror or error})"
        exception.args = (text, *exception.args[1:])
        self._batch = None

    def _look_again(self, trainer: Trainer, module: LightningModule) -> Finding:
        if trainer.world_size > 1:  # the step gathers, and the other processes may not have failed
            parameters = _broken_parameters(module)
            if parameters or any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
                return Finding("nan" if parameters else "", parameters=parameters)
            views = self._batch[1] if len(self._batch) == 3 else self._batch[0]
            return find_culprit(module, lambda: module(views[0] if isinstance(views, (list, tuple)) else views))
        with contextlib.ExitStack() as stack:
            for name in ("log", "log_dict", "require_finite"):  # they do nothing, so that a bad step runs to its end
                object.__setattr__(module, name, lambda *_, **__: None)
                stack.callback(object.__delattr__, module, name)
            stack.enter_context(trainer.precision_plugin.train_step_context())
            set_rng_state(self._rng)
            return find_culprit(module, lambda: module.training_step(self._batch, self._batch_idx))

    def _save(
        self, trainer: Trainer, module: LightningModule, weights: Any, error: NonFiniteError, finding: Finding
    ) -> Path:
        folder = self.run.path / "replay"
        folder = folder / f"rank{trainer.global_rank}" if trainer.world_size > 1 else folder
        folder.mkdir(parents=True, exist_ok=True)
        where = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
        moment = {"format": 1, "batch_idx": self._batch_idx, "rng": self._rng}
        checkpoint: dict[str, Any] = {
            **where,
            "state_dict": weights,
            "optimizer_states": [on_cpu(optimizer.state_dict()) for optimizer in trainer.optimizers],
            "replay": {**moment, "precision": str(trainer.precision)},
        }
        module.on_save_checkpoint(checkpoint)
        for name, content in {"state.ckpt": checkpoint, "batch.pt": on_cpu(self._batch)}.items():
            with replacing(folder / name) as temporary:
                torch.save(content, temporary)
        terms = {name: str(value) for name, value in error.terms.items()}
        report = {"message": str(error), **where, "terms": terms, "finding": dataclasses.asdict(finding)}
        write_text(folder / "finding.json", json.dumps({**report, "text": str(finding)}, indent=2) + "\n")
        return folder
