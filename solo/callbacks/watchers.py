"""Who watches a run: vital signs of the embedding, who judges them, and a guard of what is not finite."""

import contextlib
import copy
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from torch import Tensor, nn

from solo.callbacks.meter import Meter
from solo.callbacks.process_state import on_cpu
from solo.callbacks.run_directory import RunDirectory
from solo.distributed import gather_no_grad
from solo.errors import NonFiniteError
from solo.eval.embedding import geometry, neighbours_agree, vital_signs
from solo.files import replacing, write_text
from solo.rng import rng_state, set_rng_state

Rows = dict[str, Tensor]
_SPACES = ("projection", "features")
# Unit rows with a mean cosine c have a std (times sqrt(D)) of about sqrt(1 - c): below 0.05 the mean cosine is above
# 0.9975. Runs that learn lie above 0.3; SimSiam without its stop-gradient reaches 0 (Chen, He, 2021, figure 2).
_ONE_POINT = 0.05
# The centred effective rank of rows on a line is 1; of two classes that are all there is, too.
_ONE_LINE = 1.5
_CAUSES = {  # of a collapse, by what keeps the method from it
    "prediction": "the slow network too fast (momentum.base_tau too low); a predictor or projector without batch "
    "normalisation; weight decay too high",
    "decorrelation": "the terms for variance and covariance too weak against the one that pulls views together",
    "contrast": "the temperature too high; too few negatives (optimizer.batch_size); images or views that are all "
    "alike (look at them with --preview)",
}


@dataclass(eq=False)
class TrainingDiagnosis:
    """Sees one row an epoch; remembers what it needs and what it said."""

    kept_by: str = "contrast"  # what keeps the method from collapsing (`MethodFacts.collapse`), for the likely causes
    max_epochs: int = 100  # length of the run; a plateau is `max(5, max_epochs / 10)` epochs
    messages: list[str] = field(default_factory=list, init=False)  # everything it said, in order
    collapsed: bool = field(default=False, init=False)  # whether it raised the alarm
    flat: bool = field(default=False, init=False)  # whether it told of a plateau
    _suspect: bool = field(default=False, init=False)
    _losses: list[float] = field(default_factory=list, init=False)
    _peak_lr: float = field(default=0.0, init=False)

    def judge(self, row: Mapping[str, float], is_last: bool = False) -> list[str]:
        """What is to be said of an epoch's `epoch` (0-based), `online/...`, and, if known, `loss` and `lr`."""
        new = [text for text in (self._collapse(row, is_last), self._plateau(row)) if text]
        self.messages += new
        return new

    def _collapse(self, row: Mapping[str, float], is_last: bool) -> str | None:
        """Twice in a row: an untrained network maps all images close together, too."""
        space = "projection" if "online/std/projection" in row else "features"
        std, rank = (row.get(f"online/{name}/{space}", math.nan) for name in ("std", "effective_rank"))
        what = None
        if std < _ONE_POINT:
            what = f"all images have nearly the same {space} (spread {std:.2g}; 0 is one point, 1 is even)"
        elif rank < _ONE_LINE:
            what = f"the {space} of all images lie on a line (effective rank {rank:.2g})"
        confirmed = what is not None and (self._suspect or is_last)  # nothing follows that could confirm it
        self._suspect = what is not None
        if not confirmed or self.collapsed:
            return None
        self.collapsed = True
        causes = f"optimizer.lr too high or its warm-up too short; {_CAUSES.get(self.kept_by, _CAUSES['contrast'])}"
        return f"COLLAPSE, epoch {int(row['epoch']) + 1}: {what}. Likely causes: {causes}"

    def _plateau(self, row: Mapping[str, float]) -> str | None:
        loss, rate = row.get("loss", math.nan), row.get("lr", math.nan)
        self._peak_lr = max(self._peak_lr, rate if math.isfinite(rate) else 0.0)
        if not math.isfinite(loss):
            return None
        self._losses.append(loss)
        patience = max(5, self.max_epochs // 10)
        before, recent = self._losses[:-patience], self._losses[-patience:]
        if self.flat or self.collapsed or not before or min(recent) < min(before) - 1e-3 * abs(min(before)):
            return None
        if rate < 0.5 * self._peak_lr:  # at the end of a schedule a loss comes to rest, as it should
            return None
        self.flat = True
        alignment = row.get("online/alignment/projection", math.nan)
        why = "optimizer.lr too low, or this network can do no better here (a larger one, a lower temperature)"
        if max(recent) - min(recent) > 0.02 * abs(sum(recent) / len(recent)):
            why = "it goes up and down, so optimizer.lr is too high or the batch too small"
        elif alignment < 0.1:
            why = "the views of an image nearly coincide, so the augmentations are too weak"
        elif alignment > 1:
            why = "the views of an image stay far apart, so the augmentations are too strong or optimizer.lr too low"
        what = f"the training loss ({loss:.4g}) has not improved for {patience} epochs"
        return f"plateau, epoch {int(row['epoch']) + 1}: {what}. Likely: {why}"

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, in plain values."""
        return {one.name: copy.copy(getattr(self, one.name)) for one in dataclasses.fields(self) if not one.init}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; lists in place, so that whoever holds them sees it."""
        for name, own in self.state().items():
            value = state.get(name, own)
            if not (type(value) is type(own) or {type(value), type(own)} <= {int, float}):
                raise TypeError(f"{name} is {value!r:.60}")
            if isinstance(value, list):
                getattr(self, name)[:] = value
            else:
                setattr(self, name, value)


@dataclass(eq=False)
class FeatureQueue:
    """Keeps references to the last batches of an epoch, whole ones of at least `rows` images, until it is read."""

    rows: int
    batches: list[Rows] = field(default_factory=list, init=False)

    def is_due(self, done: int, batches: float, batch_size: int, processes: int) -> bool:
        """Whether the batch after `done` of `batches` (inf: nobody knows) will still be there when the epoch ends."""
        return batches == math.inf or done >= batches - self._kept(batch_size, processes)

    def add(self, batch: Rows, processes: int) -> None:
        """Keep a batch: name -> (B, ...), detached; forget the oldest ones."""
        self.batches.append(batch)
        del self.batches[: -self._kept(len(next(iter(batch.values()))), processes)]

    def read(self) -> Rows:
        """Take all rows of all processes, which have to call it: name -> (N, ...), of names that every batch has."""
        batches, self.batches = self.batches, []
        names = [name for name in batches[0] if all(name in batch for batch in batches)] if batches else []
        return {name: gather_no_grad(torch.cat([batch[name] for batch in batches])) for name in names}

    def _kept(self, batch_size: int, processes: int) -> int:
        return max(1, -(-self.rows // (batch_size * processes)))


@dataclass(eq=False)
class EmbeddingMonitor(Callback):
    """Measures the training features at the end of an epoch and logs them as `online/<measure>/<space>`.

    The rows are those of the last training batches, as the network saw them: augmented views, the weights of that
    step. Rank measures and spread are taken in `projection` (what the loss compares, where the method has one) and
    `features` (the backbone's), the kNN accuracy (`online/knn_acc1/<level>`, where there are labels) in the features,
    the rest in the projection. A run trains the same with and without it. Place it before what shows the metrics.
    """

    rows: int = 2048  # images that are measured
    every: int = 1  # epochs between two measurements; the last epoch is always measured
    quantile: float = 0.99  # of HEX's adaptive threshold
    diagnosis: TrainingDiagnosis | None = None  # judges the numbers; None: nobody does
    stop_on_collapse: bool = False  # end the run when it raises the alarm
    meter: Meter | None = None  # measures the loss; placed before this callback

    def __post_init__(self) -> None:
        self.queue = FeatureQueue(self.rows)
        self._warned = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        seen: Mapping[str, Any] | None = getattr(pl_module, "last_views", None)
        if seen is None or not self._is_measured(trainer):
            return
        size = len(seen["features"][0])
        if self.queue.is_due(batch_idx, trainer.num_training_batches, size, trainer.world_size):
            rows = {f"{space}/{v}": z for space in _SPACES for v, z in enumerate(seen.get(space, ())[:2])}
            rows |= {name: seen[name] for name in ("groups", "labels") if seen.get(name) is not None}
            self.queue.add(rows, trainer.world_size)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_measured(trainer):
            return
        rows = self.queue.read()
        if not rows or len(rows["features/0"]) < 2:
            if not self._warned:
                missing = "the method keeps no features of its views (`last_views`), so nothing can be measured"
                rank_zero_warn(f"online: {missing}")
            self._warned = True
            return
        found = measure(rows, self.quantile, getattr(pl_module, "levels", ())) if trainer.is_global_zero else {}
        found = trainer.strategy.broadcast(found)
        pl_module.log_dict(found)
        if self.diagnosis is not None:
            seen = {"epoch": float(trainer.current_epoch), "lr": float(trainer.optimizers[0].param_groups[0]["lr"])}
            seen |= trainer.strategy.broadcast({} if self.meter is None else {"loss": self.meter.loss})  # one verdict
            if len(rows["features/0"]) >= 8:  # a handful of rows always lies on a line, or in a plane
                seen |= found
            messages = self.diagnosis.judge(seen, trainer.current_epoch + 1 == trainer.max_epochs)
            screen = trainer.progress_bar_callback or Console(soft_wrap=True, highlight=False, markup=False)
            for message in messages if trainer.is_global_zero else []:
                screen.print(message)
            trainer.should_stop |= self.stop_on_collapse and self.diagnosis.collapsed

    def process_state(self) -> dict[str, Any]:
        return {"batches": self.queue.batches}

    def load_process_state(self, state: dict[str, Any]) -> None:
        self.queue.batches = [dict(batch) for batch in state["batches"]]

    @property
    def state_key(self) -> str:
        return "Online"

    def state_dict(self) -> dict[str, Any]:
        return {} if self.diagnosis is None else self.diagnosis.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.diagnosis is not None and state_dict:  # what was said isn't said again
            self.diagnosis.load(state_dict)

    def _is_measured(self, trainer: Trainer) -> bool:
        return trainer.current_epoch % self.every == 0 or trainer.current_epoch + 1 == trainer.max_epochs


def measure(rows: Rows, quantile: float = 0.99, levels: Sequence[str] = ()) -> dict[str, float]:
    """All vital signs of rows, `online/<measure>/<space>` and `online/knn_acc1/<level>` of labelled levels.

    Rows are `<space>/<view>` -> (N, D) of `features` and maybe `projection`, `groups` -> (N,), `labels` -> (N, L).
    """
    spaces = [space for space in _SPACES if f"{space}/0" in rows]
    found: dict[str, float] = {}
    for space in spaces:
        views = [rows[f"{space}/{view}"].float() for view in range(2) if f"{space}/{view}" in rows]
        numbers = vital_signs(views[0])
        if space == spaces[0]:
            numbers |= geometry(views, rows.get("groups"), quantile)
        found |= {f"online/{name}/{space}": value for name, value in numbers.items()}
    if levels and "labels" in rows:
        accuracies = zip(levels, neighbours_agree(rows["features/0"].float(), rows["labels"]), strict=True)
        found |= {f"online/knn_acc1/{level}": value for level, value in accuracies if math.isfinite(value)}
    return found


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
    """Run `step` without gradient: which part of `module` is the first with finite inputs and other outputs, if any."""
    found: list[Finding] = []

    def look(name: str, part: nn.Module, inputs: Any, out: Any) -> None:
        if not found and not _broken_value(inputs) and (value := _broken_value(out)):
            found.append(Finding(value, name, type(part).__name__))

    parameters = _broken_parameters(module)
    with contextlib.ExitStack() as stack, torch.no_grad():
        for name, part in module.named_modules():
            if name:
                stack.enter_context(part.register_forward_hook(functools.partial(look, name)))
        value = _broken_value(step())
    return dataclasses.replace(found[0] if found and value else Finding(value), parameters=parameters)


def _broken_parameters(module: nn.Module) -> tuple[str, ...]:
    """Names; of buffers, the failing step itself may have written to."""
    return tuple(name for name, value in module.named_parameters() if not bool(value.isfinite().all()))


def _broken_value(item: Any) -> str:
    """`nan` or `inf` if one is in a tensor of nested lists and dictionaries, else nothing; minus infinity is a mask."""
    if isinstance(item, Tensor) and item.is_floating_point():
        return "nan" if bool(item.isnan().any()) else "inf" if bool((item == math.inf).any()) else ""
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
    return next(filter(None, map(_broken_value, parts)), "")


@dataclass(eq=False, repr=False)
class NonFiniteGuard(Callback):
    """Refuses to train on a loss that is NaN or infinite; then writes `replay/` into the run's folder.

    `state.ckpt`: a checkpoint as any other, of the moment before the optimizer's step, with `replay`: step, random
    streams before the step, precision. `batch.pt`: the batch as the method got it. `finding.json`: the terms that are
    not finite, and the module where it began. Of several processes each that fails writes `replay/rank<r>/`.
    """

    run: RunDirectory
    _batch: Any = field(default=None, init=False)
    _batch_idx: int = field(default=0, init=False)
    _rng: dict[str, Any] = field(default_factory=dict, init=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch, self._batch_idx, self._rng = batch, batch_idx, rng_state()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Refuse the loss of a method that doesn't look at it itself."""
        look: Any = getattr(pl_module, "require_finite", None)  # which doesn't wait for a device
        if look is not None:
            look({"loss": loss})
        elif not bool((value := loss.detach()).isfinite().all()):
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
                text += f"; batch and state are in {self._save(trainer, weights, exception, finding)}"
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

    def _save(self, trainer: Trainer, weights: Any, error: NonFiniteError, finding: Finding) -> Path:
        folder = self.run.path / "replay"
        folder = folder / f"rank{trainer.global_rank}" if trainer.world_size > 1 else folder
        folder.mkdir(parents=True, exist_ok=True)
        where = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
        moment = {"format": 1, "batch_idx": self._batch_idx, "rng": self._rng, "precision": str(trainer.precision)}
        optimizers = [on_cpu(optimizer.state_dict()) for optimizer in trainer.optimizers]
        checkpoint = {**where, "state_dict": weights, "optimizer_states": optimizers, "replay": moment}
        trainer.lightning_module.on_save_checkpoint(checkpoint)
        for name, content in {"state.ckpt": checkpoint, "batch.pt": on_cpu(self._batch)}.items():
            with replacing(folder / name) as temporary:
                torch.save(content, temporary)
        terms = {name: str(value) for name, value in error.terms.items()}
        report = {"message": str(error), **where, "terms": terms, "finding": dataclasses.asdict(finding)}
        write_text(folder / "finding.json", json.dumps({**report, "text": str(finding)}, indent=2) + "\n")
        return folder
