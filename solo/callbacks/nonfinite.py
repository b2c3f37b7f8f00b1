"""Stops a run whose loss is not finite before the weights are lost, says where it began, and keeps what replays it."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

# One of the few underscored modules that torch documents: the only way to see every operation.
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from solo.callbacks.process_state import on_cpu
from solo.callbacks.run_directory import RunDirectory
from solo.errors import NonFiniteError
from solo.files import replacing, write_text
from solo.rng import rng_state, set_rng_state

REPLAY_FORMAT = 1
_FOREIGN = (os.path.dirname(torch.__file__), os.path.dirname(lightning.__file__), __file__)


@dataclass(frozen=True)
class Finding:
    """Where a value that is not finite came from."""

    value: str = ""  # "nan" or "inf"
    module: str = ""  # dotted name of the innermost module at work, "" outside of all (in a loss)
    kind: str = ""  # its class, "" likewise
    operation: str = ""  # torch's name of the operation
    source: str = ""  # file, line and function of the code that called it
    parameters: tuple[str, ...] = ()  # names of parameters that were not finite before the step

    def __str__(self) -> str:
        if self.parameters:
            others = f" and {len(self.parameters) - 1} more" if len(self.parameters) > 1 else ""
            return f"the weights were broken before this step: {self.parameters[0]}{others}"
        if not self.operation:
            return "the step gave finite values when it was run once more"
        where = f"in module {self.module} ({self.kind})" if self.module else "in the loss"
        return f"the first {self.value} is made {where} by {self.operation}, {self.source}"


def find_culprit(module: nn.Module, step: Callable[[], Any]) -> Finding:
    """Run `step`, which uses `module`, without gradient, and report where the NaN, or else the infinity, began.

    Reported is what reached the result of `step`: losses in log space make infinities and NaNs that are masked later,
    and minus infinity is not looked for.
    """
    parameters = broken(module)
    with _modules_at_work(module) as stack, torch.no_grad(), _Lookout(stack) as lookout:
        result = step()
    found: Finding = lookout.origin_of(result)
    return replace(found, parameters=parameters)


def broken(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that are not finite; of buffers, the failing step itself may have written to."""
    return tuple(name for name, value in module.named_parameters() if not bool(value.isfinite().all()))


@contextmanager
def _modules_at_work(module: nn.Module) -> Iterator[list[tuple[str, str]]]:
    """(name, class) of the modules whose forward runs, the innermost last."""
    stack: list[tuple[str, str]] = []
    hooks: list[RemovableHandle] = []
    for name, part in module.named_modules():
        if name:
            entry = (name, type(part).__name__)
            hooks.append(part.register_forward_pre_hook(lambda *_, entry=entry: stack.append(entry)))
            hooks.append(part.register_forward_hook(lambda *_: stack.pop() and None, always_call=True))
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()


class _Lookout(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at what goes into every operation and what comes out, and follows what is not finite."""

    def __init__(self, stack: list[tuple[str, str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stack = stack
        self._origins: dict[str, dict[int, Finding]] = {"nan": {}, "inf": {}}  # value -> memory -> where it began
        self._kept: list[Tensor] = []  # so that no memory is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Before the call, which may write into its arguments.
        before = {value: [_memory(x) for x in _tensors((args, kwargs)) if _has(value, x)] for value in self._origins}
        out = func(*args, **kwargs)
        operation = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
        if "empty" in operation:  # whatever was in that memory
            return out
        for value, origins in self._origins.items():
            for tensor in _tensors(out):
                if not _has(value, tensor):
                    continue
                known = [origins[memory] for memory in before[value] if memory in origins]
                name, kind = self.stack[-1] if self.stack else ("", "")
                origins[_memory(tensor)] = known[0] if known else Finding(value, name, kind, operation, _source())
                self._kept.append(tensor)
        return out

    def origin_of(self, result: Any) -> Finding:
        """Where the first NaN, else the first infinity, of the result began; empty if it is finite."""
        for value, origins in self._origins.items():
            for tensor in _tensors(result):
                if _has(value, tensor) and _memory(tensor) in origins:
                    found: Finding = origins[_memory(tensor)]
                    return found
        return Finding()


def _tensors(item: Any) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, (list, tuple, dict)):
        for part in item.values() if isinstance(item, dict) else item:
            yield from _tensors(part)


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _has(value: str, x: Tensor) -> bool:
    if not x.is_floating_point():
        return False
    return bool((x.isnan() if value == "nan" else x == float("inf")).any())


def _source() -> str:
    """The innermost code that is neither torch's nor Lightning's nor this file's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOREIGN):
        frame = frame.f_back
    parts = frame.f_code.co_filename.split(os.sep)
    short = os.sep.join(parts[parts.index("solo") :] if "solo" in parts else parts[-2:])
    return f"{short}:{frame.f_lineno} ({frame.f_code.co_name})"


class NonFiniteGuard(Callback):
    """Refuses to train on a loss that is NaN or infinite; then writes `replay/` into the run's folder.

    `state.ckpt`: a checkpoint as any other (`state_dict`, `solo`, `optimizer_states`) of the moment before the
    optimizer's step, with `replay`: step, random streams before the step, precision. `batch.pt`: the batch as the
    method got it. `finding.json`: the terms that are not finite, the module and the operation where it began.
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

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
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
            parameters = broken(module)
            return Finding("nan", parameters=parameters) if parameters else self._forward_only(module)
        quiet = silent(module, "log", "log_dict", "require_finite")  # so that a bad step runs to its end
        with quiet, trainer.precision_plugin.train_step_context():
            set_rng_state(self._rng)
            return find_culprit(module, lambda: module.training_step(self._batch, self._batch_idx))

    def _forward_only(self, module: LightningModule) -> Finding:
        if any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
            return Finding()
        views = self._batch[1] if len(self._batch) == 3 else self._batch[0]
        view = views[0] if isinstance(views, (list, tuple)) else views
        return find_culprit(module, lambda: module(view))

    def _save(
        self, trainer: Trainer, module: LightningModule, weights: Any, error: NonFiniteError, finding: Finding
    ) -> Path:
        folder = self.run.path / "replay"
        folder = folder / f"rank{trainer.global_rank}" if trainer.world_size > 1 else folder
        folder.mkdir(parents=True, exist_ok=True)
        where = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
        moment = {"format": REPLAY_FORMAT, "batch_idx": self._batch_idx, "rng": self._rng}
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


@contextmanager
def silent(module: LightningModule, *names: str) -> Iterator[None]:
    """Methods of the module that do nothing meanwhile, such as `log`."""
    for name in names:
        object.__setattr__(module, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name in names:
            object.__delattr__(module, name)
