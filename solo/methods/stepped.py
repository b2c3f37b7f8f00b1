"""The numbers of training steps: summed on their device, handed on once an epoch, and looked at before they do harm."""

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from solo import distributed
from solo.errors import NonFiniteError


class SteppedModule(pl.LightningModule):
    """A LightningModule whose steps wait for no device and for no other process to log their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.silent = False  # log nothing
        # What steps log, by names: sums (n,), of how many (or (n,), of each), whether steps are logged, too.
        self._sums: dict[tuple[str, ...], tuple[Tensor, Tensor | int, bool]] = {}
        self._unread: list[tuple[list[str], Tensor, Any]] = []  # names, values on their way here, when they are here

    @property
    def attached(self) -> bool:
        """Whether a trainer runs this module; without one, steps work but nothing is logged."""
        return self._trainer is not None

    def log_metrics(self, metrics: Mapping[str, Any], **kwargs: Any) -> None:
        """Log the mean over the epoch and over all processes; does nothing without a trainer.

        A step of training adds to sums on its device, which are handed on once an epoch; every `log_every_n_steps` its
        own values, of this process, are logged as `<name>_step`, unless `on_step=False`. A value may be a sum and of
        how many, (2,), where these are not the same in every step and process.
        """
        if not self.attached or self.silent or not metrics:
            return
        if not self.trainer.training:
            self.log_dict(dict(metrics), on_epoch=True, sync_dist=True, **kwargs)
            return
        names = tuple(metrics)
        values = [
            value.to(self.device) if isinstance(value, Tensor) else torch.full((), float(value), device=self.device)
            for value in metrics.values()
        ]
        ratios = [value.detach().float().reshape(-1) for value in values]
        sums, numbers = torch.stack([ratio[0] for ratio in ratios]), torch.ones((), dtype=torch.long)
        if any(len(ratio) > 1 for ratio in ratios):
            numbers = torch.stack([ratio[1] if len(ratio) > 1 else torch.ones_like(ratio[0]) for ratio in ratios])
        stepped = kwargs.get("on_step", True)
        before, others, _ = self._sums.get(names, (0, 0, False))
        self._sums[names] = (sums + before, numbers + others, stepped)
        if stepped and self.trainer._logger_connector.should_update_logs:
            self.log_dict({f"{name}_step": value for name, value in zip(names, sums, strict=True)}, on_epoch=False)

    def hand_on(self) -> None:
        """Give the means of the epoch to Lightning: by one collective, before whoever reads them at its end."""
        if not self._sums:
            return
        sums, self._sums = self._sums, {}
        both = [torch.stack([total, torch.zeros_like(total) + numbers]) for total, numbers, _ in sums.values()]
        total, numbers = distributed.all_reduce_sum(torch.cat(both, dim=1))
        found = iter(total / numbers.clamp_min(1))
        for names, (_, _, stepped) in sums.items():
            mean = {name: next(found) for name in names}
            self.log_dict(mean, on_step=False, on_epoch=True, logger=False if stepped else None)
            if stepped:  # loggers know it by this name, beside that of the steps
                self.log_dict({f"{name}_epoch": value for name, value in mean.items()}, on_step=False, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        """Hand on the means, if no callback has asked for them."""
        self.hand_on()

    def process_state(self) -> dict[str, Any]:
        return {"sums": [[list(names), *held] for names, held in self._sums.items()]}

    def load_process_state(self, state: dict[str, Any]) -> None:
        self._sums = {tuple(names): (sums, steps, stepped) for names, sums, steps, stepped in state.get("sums", [])}

    def require_finite(self, terms: Mapping[str, Tensor]) -> None:
        """Stop before a loss that is not finite reaches the weights: on a CPU at once, else after `backward`.

        Raises:
            NonFiniteError: names the terms, the epoch and the step.
        """
        values = torch.stack([value.detach().float().reshape(()) for value in terms.values()])
        event = torch.Event(values.device) if waits_for(values) and self.attached else None
        self._unread.append((list(terms), values if event is None else values.to("cpu", non_blocking=True), event))
        if event is None:
            self.read_terms()
        else:
            event.record()

    def read_terms(self) -> None:
        """Look at the terms that were copied from a device: after `backward` was launched, so that it doesn't idle.

        Raises:
            NonFiniteError: see `require_finite`.
        """
        unread, self._unread = self._unread, []
        for names, values, event in unread:
            if event is not None:
                event.synchronize()
            found = dict(zip(names, values.tolist(), strict=True))
            if not all(map(math.isfinite, found.values())):
                raise NonFiniteError(
                    f"the loss is not finite in epoch {self.current_epoch}, step {self.global_step}: "
                    f"{', '.join(f'{name}={value}' for name, value in found.items())}; try a smaller optimizer.lr or a "
                    "longer warm-up, a higher temperature, or precision=32 or bf16-mixed instead of 16-mixed",
                    found,
                )

    def on_after_backward(self) -> None:
        """Nothing that isn't finite reaches the optimizer."""
        self.read_terms()


def waits_for(x: Tensor) -> bool:
    """Whether who reads a value of x waits until a device has done all that was asked of it."""
    return x.device.type == "cuda"
