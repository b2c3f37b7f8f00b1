"""How often processes wait for each other in a step, besides for gradients and synchronised norms: counted here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import ReduceOp

from solo import distributed
from solo.doctor.toy import Case, ToyImages, toy_model
from solo.methods.catalogue import CATALOGUE

MOST = 4  # of a batch whose rows all have labels; else these are counted by one more
CASES = [Case(name) for name in CATALOGUE] + [Case(name, "HEX_adaptive") for name, row in CATALOGUE.items() if row.hex]


class TwoAlike:
    """The part of `torch.distributed` that is used, for two processes that hold the same; counts its calls."""

    ReduceOp = ReduceOp

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        known = {"is_available": True, "is_initialized": True, "get_world_size": 2, "get_rank": 0}
        return lambda: known[name]

    def all_reduce(self, x: Tensor, op: Any = ReduceOp.SUM) -> None:
        self.calls.append("all_reduce")
        x.mul_(2 if op == ReduceOp.SUM else 1)

    def all_gather(self, out: list[Tensor], x: Tensor) -> None:
        self.calls.append("all_gather")
        for part in out:
            part.copy_(x)

    def broadcast(self, x: Tensor, src: int) -> None:
        self.calls.append("broadcast")


@pytest.mark.sampled(4)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}-{case.type}")
def test_a_step_has_few_collectives(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, group = CATALOGUE[case.method], TwoAlike()
    views = max(facts.least_views, min(2, facts.most_views or 2))
    torch.manual_seed(0)
    images, model = ToyImages(8, views, 3, torch.float32), toy_model(case, 8).train()
    model.all_labelled = True
    monkeypatch.setattr(distributed, "dist", group)
    out = model.training_step([torch.arange(8), list(images.images), images.labels], 0)
    (out["loss"] if isinstance(out, dict) else out).backward()
    assert len(group.calls) <= MOST, group.calls
