"""`accumulate: exact`: one loss over a virtual batch whose activations don't fit into memory together.

Gradient caching (Gao, Zhang, Han, Callan: Scaling deep contrastive learning batch size under memory limited setup,
https://arxiv.org/abs/2101.06983). A first pass without gradient keeps the outputs of all parts of the batch; the loss
of all of them together gives each output its gradient; a second pass carries these through the network, part by part.
The gradient is that of the whole batch in one piece, but for BatchNorm, whose statistics are those of a part: its
running ones move in the first pass only. Random numbers (dropout, masks) are the same in both passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from solo.nn.networks import IterNorm
from solo.precision import at_least_float32
from solo.rng import rng_state, set_rng_state

if TYPE_CHECKING:
    from solo.methods.base import BaseMethod, Outputs


def exact_step(model: BaseMethod, batch: Any, online: Callable[[BaseMethod, Any], Outputs]) -> Tensor:
    """The total loss of a virtual batch, ready for its `backward`; the gradients of all parts but the last are there.

    Parts have `optimizer.batch_size` rows; `online` gives the outputs of one without those of a slow copy.
    """
    model.zero_grad(set_to_none=True)  # Lightning's own would come after the first parts
    parts = split(batch, model.batch_size)
    states, found = [], []
    with torch.no_grad(), _silent(model, again=False):
        for part in parts:
            states.append(rng_state())
            found.append(model.view_outputs(part))
            torch.clear_autocast_cache()  # weights that were cast without gradient
    out: Outputs = {}
    leaves: dict[str, list[Tensor]] = {}  # the outputs of the trained network
    for key in (key for key, value in found[0].items() if isinstance(value, list)):  # without the summaries
        out[key] = views = [torch.cat(parts_of) for parts_of in zip(*(part[key] for part in found), strict=True)]
        if not key.startswith("momentum_") and views[0].is_floating_point():  # half precision would lose small ones
            out[key] = leaves[key] = [at_least_float32(view).detach().requires_grad_() for view in views]
    targets = batch[2]
    out |= model.mean_metrics(out["logits"], targets)  # of the whole batch, as all numbers of its classifiers
    if not model.config.data.no_labels:
        model.log_classification(out)
    classifier = getattr(model, "momentum_classifier", None)
    if classifier is not None:
        slow = model.mean_metrics([classifier(feats) for feats in out["momentum_feats"]], targets)
        model.log_classification(slow, "momentum_")
        out["loss"] = out["loss"] + slow["loss"]
    loss = model.total_loss(out, batch)
    after = rng_state()
    own = [p for p in model.parameters() if p.requires_grad]  # a loss may have layers of its own
    inputs = [leaf for views in leaves.values() for leaf in views]
    grads = iter(torch.autograd.grad(loss, [*inputs, *own], allow_unused=True))
    cached = {key: [next(grads) for _ in views] for key, views in leaves.items()}
    carried = loss.new_zeros(())
    for parameter, grad in zip(own, grads, strict=True):
        if grad is not None:
            carried = carried + (parameter * grad).sum()
    for index, (part, state) in enumerate(zip(parts, states, strict=True)):
        set_rng_state(state)
        with _silent(model, again=True):
            again = online(model, part)
        rows = slice(index * model.batch_size, (index + 1) * model.batch_size)
        # The sum of outputs times their gradients: its gradient is that of the loss.
        terms = [
            (at_least_float32(view) * grad[rows]).sum()
            for key, grads_of_views in cached.items()
            for view, grad in zip(again[key], grads_of_views, strict=True)
            if grad is not None and view.requires_grad
        ]
        surrogate = torch.stack(terms).sum()
        if index < len(parts) - 1:
            # As `precision=16-mixed` scales the loss that is returned.
            scaler: Any = getattr(model.trainer.precision_plugin, "scaler", None) if model.attached else None
            torch.autograd.backward(surrogate if scaler is None else scaler.scale(surrogate))
            torch.clear_autocast_cache()
        else:
            carried = carried + surrogate
    set_rng_state(after)
    model.keep_views(out, targets)  # the parts have, too
    return carried - carried.detach() + loss.detach()


def split(batch: Any, size: int) -> list[Any]:
    """A batch as batches of `size` rows, the last one of what is left."""
    ids, views, targets = batch
    views = [views] if isinstance(views, Tensor) else views
    cut = [ids.split(size), zip(*(view.split(size) for view in views), strict=True), targets.split(size)]
    return [[i, list(v), t] for i, v, t in zip(*cut, strict=True)]


@contextmanager
def _silent(model: BaseMethod, again: bool) -> Iterator[None]:
    """The parts log nothing, the whole batch does; running statistics and the k-NN's bank move in one pass only."""
    norms = [m for m in model.modules() if isinstance(m, (_BatchNorm, IterNorm)) and m.track_running_stats]
    knn = model.knn_eval
    model.silent, model.knn_eval = True, knn and not again
    for norm in norms:
        norm.track_running_stats = not again
    try:
        yield
    finally:
        model.silent, model.knn_eval = False, knn
        for norm in norms:
            norm.track_running_stats = True
