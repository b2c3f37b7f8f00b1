"""Number formats: a method's loss in half and single precision against float64, and on degenerate embeddings.

A loss gets the same outputs of the network, rounded to a format, in that format and in float64. So only its own
arithmetic differs, and mixed precision can be held to a unit in the format's last place: that of the gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import default_collate

from solo.doctor.toy import Case, Outcome, ToyImages, toy_model, without_dropout
from solo.errors import UserError

BATCH = 16
# Largest relative difference of a loss and of its gradient: about one unit in the last place of the half formats.
ALLOWED = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
_FIXED = ("logits", "mask")  # outputs that no network makes: left as they are


# What an embedding may look like, in whatever state a network is.
DEGENERATE: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "two zero rows": lambda x: x.clone().index_fill_(-2 if x.ndim < 4 else 0, torch.tensor([0, 1]), 0),
    "equal rows": lambda x: (x[..., :1, :] if x.ndim < 4 else x[:1]).expand_as(x),
    "huge": lambda x: 6e4 * x / x.abs().amax().clamp(min=1e-12),  # float16 ends at 65504
    "tiny": lambda x: 1e-7 * x,
    "one-hot": lambda x: torch.zeros_like(x).index_fill_(-1, torch.tensor(0), 1),
}


def numbers(case: Case) -> Outcome:
    """Whether the loss of `case` is right in float32, float16 and bfloat16, and finite on degenerate embeddings."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss = _Loss(case)
        differences = {dtype: loss.difference(dtype) for dtype in ALLOWED}
        infinite = [f"{name} in {_name(dtype)}" for dtype in ALLOWED for name in loss.infinite(dtype)]
    ok = not infinite and all(differences[dtype] <= allowed for dtype, allowed in ALLOWED.items())
    shown = ", ".join(f"{_name(d)} {differences[d]:.0e} (allowed: {allowed:.0e})" for d, allowed in ALLOWED.items())
    return Outcome(ok, f"differs from float64 by: {shown}" + (f"; not finite: {', '.join(infinite)}" * bool(infinite)))


class _Loss:
    """A method's loss as a function of what its network puts out."""

    def __init__(self, case: Case) -> None:
        model: Any = cast(Any, without_dropout(toy_model(case, BATCH)))
        self.model = model
        images = ToyImages(BATCH, 0 if case.method == "linear" else 2, unknown=3, dtype=torch.float32)
        self.batch: Any = default_collate([images[i] for i in range(BATCH)])
        if case.method == "linear":
            logits = self.model(self.batch[0])["logits"]
            self.outputs: dict[str, list[Tensor]] = {"scores": [logits]}
            return
        if hasattr(model, "assignments"):  # what k-means does between the epochs
            self.model.assignments = torch.stack([torch.arange(BATCH) % 3] * 2)
        for _ in range(2):  # fills a queue with rows of the network
            outputs = model.view_outputs(self.batch)
            model.ssl_loss(outputs, model.step_of(self.batch))
        lists = {key: value for key, value in outputs.items() if isinstance(value, list)}
        self.outputs = {key: value for key, value in lists.items() if value[0].is_floating_point()}

    def __call__(self, outputs: dict[str, list[Tensor]], double: bool = False) -> Tensor:
        """The loss, with the state of before; in float64, or in mixed precision where the outputs are in half."""
        torch.manual_seed(1)
        model = copy.deepcopy(self.model)
        first = next(x for key, views in outputs.items() if key not in _FIXED for x in views)
        half = first.dtype in (torch.float16, torch.bfloat16)
        with torch.autocast("cpu", first.dtype) if half else nullcontext():
            if "scores" in outputs:
                loss: Tensor = model.loss_func(outputs["scores"][0], self.batch[1])
                return loss
            loss = (model.double() if double else model).ssl_loss(outputs, model.step_of(self.batch))
            return loss

    def difference(self, dtype: torch.dtype) -> float:
        """Relative difference of loss and gradient from float64; the larger one."""
        rounded = {key: [x.detach().to(dtype) for x in views] for key, views in self.outputs.items()}
        results = []
        for kind in (dtype, torch.float64):
            leaves = {key: [x.to(kind).requires_grad_() for x in views] for key, views in rounded.items()}
            loss = self(leaves, double=kind == torch.float64)
            results.append((loss.detach().double(), _gradient(loss, leaves)))
        (loss, gradient), (exact, exact_gradient) = results
        by_loss = (loss - exact).abs() / (exact.abs() + 1e-3)
        by_gradient = (gradient - exact_gradient).norm() / (exact_gradient.norm() + 1e-12)
        found = torch.stack([by_loss, by_gradient]).nan_to_num(nan=torch.inf)
        return float(found.max())

    def infinite(self, dtype: torch.dtype) -> Iterator[str]:
        """The degenerate embeddings on which the loss or its gradient is not finite.

        A gradient that the format has no number for may be infinite there: gradient scaling skips such a step. And a
        loss may refuse an embedding with a message.
        """
        for name, change in DEGENERATE.items():
            leaves = {
                key: [(x if key in _FIXED else change(x)).detach().to(dtype).requires_grad_() for x in views]
                for key, views in self.outputs.items()
            }
            with suppress(UserError):
                loss = self(leaves)
                gradient = _gradient(loss, leaves)
                if not loss.isfinite() or gradient.isnan().any():
                    yield name
                elif gradient.isinf().any():
                    wide = {key: [x.detach().double().requires_grad_() for x in views] for key, views in leaves.items()}
                    exact = _gradient(self(wide, double=True), wide)
                    if exact.abs().max() < torch.finfo(dtype).max / 2:  # of any entry: rounding may break a tie
                        yield name


def _gradient(loss: Tensor, leaves: dict[str, list[Tensor]]) -> Tensor:
    """With respect to all outputs that the loss reads, in one row."""
    inputs = [x for views in leaves.values() for x in views]
    found = torch.autograd.grad(loss, inputs, allow_unused=True) if loss.requires_grad else []
    parts = [grad.double().flatten() for grad in found if grad is not None]
    return torch.cat(parts) if parts else torch.zeros(1, dtype=torch.float64)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
