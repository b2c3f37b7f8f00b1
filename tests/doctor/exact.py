"""`accumulate: exact` against the same batch in one piece: loss, gradients and state, in float64.

Without BatchNorm, whose statistics are those of a part by design (see `solo.methods.exact`), and without dropout,
whose random numbers can't be the same for a part and for the whole.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import default_collate

from solo.doctor.toy import Case, Outcome, Record, ToyImages, compare, toy_model, without_dropout
from solo.errors import UserError
from solo.methods.catalogue import CATALOGUE

BATCH, PARTS, STEPS = 16, 4, 3  # three steps fill a queue and read it


def exactness(case: Case) -> Outcome:
    """Whether a batch in parts, with `accumulate: exact`, trains as the batch in one piece.

    A method that refuses the key says why in the outcome, which is ok.
    """
    with torch.random.fork_rng():
        settings = {"accumulate": "exact", "accumulate_grad_batches": PARTS}
        try:
            parts = _train(case, BATCH // PARTS, settings)
        except UserError as error:
            return Outcome("accumulate=exact is not for" in str(error), str(error))
        whole = _train(case, BATCH, {})
    return compare(whole, parts)


def _train(case: Case, size: int, settings: dict[str, Any]) -> Record:
    torch.manual_seed(0)
    schema = CATALOGUE[case.method].kwargs
    changes = {"method_kwargs__iternorm": False} if hasattr(schema, "iternorm") else {}  # a norm as well
    made = toy_model(case, size, knn_eval__enabled=False, **changes, **settings)
    model: Any = cast(Any, without_norms(without_dropout(made)).double())
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    if getattr(model, "late", ()):  # buffers that are made when training starts
        model.on_train_start()
    images = ToyImages(BATCH * STEPS, unknown=3)
    record: Record = {"loss": {}, "gradient": {}, "state": {}}
    for step in range(STEPS):
        batch = default_collate([images[step * BATCH + i] for i in range(BATCH)])
        torch.manual_seed(step)
        loss = model.training_step(batch, step)
        if not settings:
            optimizer.zero_grad()
        loss.backward()
        record["loss"][f"step {step}"] = loss.detach()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                record["gradient"][f"step {step} {name}"] = parameter.grad.clone()
        optimizer.step()
    record["state"] = {name: value.clone() for name, value in model.state_dict().items()}
    return record


def without_norms(module: nn.Module) -> nn.Module:
    """Take BatchNorm out, in place: its statistics depend on how a batch is cut."""
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(module, name, nn.Identity())
        else:
            without_norms(child)
    return module
