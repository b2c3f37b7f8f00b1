"""What each process has to remember beside Lightning's checkpoint, so that a resumed run is the uninterrupted one.

Random streams, what differs from process to process (queues, statistics of a BatchNorm that is not synchronised), what
an epoch has gathered so far (means, the bank of the online k-NN). A module or callback with further state has
`process_state()`, plain values and tensors, and `load_process_state(state)`, called in the same process of a later run.
"""

from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection, _ResultMetric
from torch import Tensor, nn
from torchmetrics import Metric

from solo import distributed
from solo.errors import explained
from solo.rng import rng_state, set_rng_state

State = dict[str, Any]
_MISFIT = "the states of processes in the checkpoint don't fit this run", "start a new run"  # somebody else's


def capture(trainer: Trainer, module: LightningModule, inside: bool) -> State:
    """The state of this process; inside an epoch with its means, which go on. Every process has to call this."""
    metrics: State = {}
    for name, metric in _metrics(module).items():  # by default no checkpoint has these
        values = {key: getattr(metric, key) for key in metric._defaults}
        metrics[name] = {"count": metric._update_count, "states": on_cpu(values)}
    named = module.named_buffers() if distributed.is_distributed() else ()  # those that differ from the first process's
    state: State = {
        "rng": rng_state(),
        "buffers": {name: x.detach().cpu() for name, x in named if not torch.equal(x, distributed.of_first(x))},
        "metrics": metrics,
        "logged": {key: on_cpu(value) for key, value in trainer.callback_metrics.items()},
        "owners": {name: on_cpu(owner.process_state()) for name, owner in _owners(trainer, module).items()},
    }
    if inside:
        names = ("value", "cumulated_batch_size")
        state["means"] = {
            key: {name: on_cpu(getattr(mean, name)) for name in names if hasattr(mean, name)}
            for key, mean in trainer.fit_loop.epoch_loop._results.items()
            if mean.is_tensor and not mean.has_reset
        }
    return state


def restore(trainer: Trainer, module: LightningModule, state: State) -> None:
    """Take over a captured state, but for the random streams; when training starts, after everything else is set up."""
    state = move_data_to_device(state, module.device)
    buffers = dict(module.named_buffers())
    for name, value in state["buffers"].items():
        buffers[name].copy_(value)
    metrics = _metrics(module)
    for name, values in state["metrics"].items():
        metrics[name]._update_count = values["count"]
        for key, value in values["states"].items():
            setattr(metrics[name], key, value)
    for name, owner in _owners(trainer, module).items():
        if name in state["owners"]:
            owner.load_process_state(state["owners"][name])
    trainer._logger_connector._callback_metrics.update(state["logged"])
    if "means" in state:
        trainer.fit_loop.epoch_loop._results = _ContinuedMeans(state["means"])
        return
    for config in trainer.lr_scheduler_configs:  # after an epoch Lightning moves plateaus when the checkpoint is there
        value = state["logged"].get(config.monitor)
        if config.reduce_on_plateau and value is not None:
            module.lr_scheduler_step(config.scheduler, value)


class GoingOn(Callback):
    """The checkpointer's hand before all other callbacks: nothing of the next batch or epoch has happened yet."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self._state: State | None = None
        self._rng: State | None = None
        self._groups: list[dict[str, Any]] = []  # the optimizer's, as this run's settings make them
        self._steps_logged = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the random streams before a loader draws from them."""
        self._state = self.owner.loaded_state(trainer)
        if self._state is not None:
            with explained(*_MISFIT):
                set_rng_state(self._state["rng"])
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
        self._groups = [{key: value for key, value in group.items() if key != "params"} for group in groups]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the rest; what others draw at the start, which the uninterrupted run doesn't, shall not count."""
        if self._state is None:
            return
        self._rng = rng_state()
        if hasattr(pl_module, "keep_own_settings"):  # solo's own modules
            pl_module.keep_own_settings(self._groups)  # type: ignore[operator]
        with explained(*_MISFIT):
            restore(trainer, pl_module, self._state)
        self._steps_logged = trainer.fit_loop.epoch_loop._batches_that_stepped
        self._state = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first thing of a run that goes on after an epoch."""
        self._go_on(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The first thing of a run that goes on inside an epoch, and the place to save there."""
        resumed = self._go_on(trainer)
        if batch_idx > 0 and batch_idx % trainer.accumulate_grad_batches == 0 and not resumed:
            self.owner.on_step_boundary(trainer)

    def _go_on(self, trainer: Trainer) -> bool:
        if self._rng is None:
            return False
        set_rng_state(self._rng)
        self._rng = None
        # Lightning counts a step twice when a run goes on where a validation inside the epoch has just been.
        trainer.fit_loop.epoch_loop._batches_that_stepped = self._steps_logged
        return True


class _ContinuedMeans(_ResultCollection):
    """Lightning's running means of an epoch, each of which starts where the interrupted epoch left it."""

    def __init__(self, saved: State) -> None:
        super().__init__(training=True)
        self.saved = saved

    def __setitem__(self, key: str, mean: _ResultMetric) -> None:
        super().__setitem__(key, mean)
        for name, value in self.saved.pop(key, {}).items():
            setattr(mean, name, value)


def _metrics(module: nn.Module) -> dict[str, Metric]:
    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}


def _owners(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    named = [("module", module), *((callback.state_key, callback) for callback in trainer.callbacks)]  # type: ignore[attr-defined]
    return {name: owner for name, owner in named if hasattr(owner, "process_state")}


def on_cpu(value: Any) -> Any:
    """Detached copies on the CPU of all tensors in dictionaries, lists and tuples; the containers become plain ones."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: on_cpu(part) for key, part in value.items()}
    return [on_cpu(part) for part in value] if isinstance(value, (list, tuple)) else value
