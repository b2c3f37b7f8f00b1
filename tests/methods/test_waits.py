"""No step asks a device for an answer, and none mixes devices: on fake CUDA tensors, and counted on a CPU."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from solo.doctor.toy import Case, ToyImages, toy_model
from solo.errors import NonFiniteError
from solo.losses import pairs
from solo.methods import module
from solo.methods.catalogue import CATALOGUE

CUDA = torch.device("cuda", 0)
CASES = [Case(name) for name in CATALOGUE] + [Case(name, "HEX_adaptive") for name, row in CATALOGUE.items() if row.hex]
ANSWERS = {"_local_scalar_dense", "item", "nonzero", "masked_select", "bincount", "is_nonzero", "equal"}
ANSWERS |= {"_unique2", "unique_dim", "unique_consecutive"}
INDEXING = ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_")


class Waits(TorchDispatchMode):
    """Counts operations whose result the host needs, or that copy between devices and wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        out = func(*args, **kwargs)
        bad = name in ANSWERS or (name == "repeat_interleave" and func._overloadname == "Tensor")
        if name in INDEXING:
            bad = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        if name in ("_to_copy", "copy_"):
            source, to = (args[0], out) if name == "_to_copy" else (args[1], args[0])
            asynchronous = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            bad = source.device != to.device and not asynchronous
        self.found[name] += bad
        return out


def made(case: Case) -> tuple[Any, list[Any]]:
    facts = CATALOGUE[case.method]
    views = max(facts.least_views, min(2, facts.most_views or 2))
    torch.manual_seed(0)
    images = ToyImages(8, views, 3, torch.float32)
    return toy_model(case, 8).train(), [torch.arange(8), list(images.images), images.labels]


def loss_of(model: Any, batch: Any) -> Tensor:
    out = model.training_step(batch, 0)
    return out["loss"] if isinstance(out, dict) else out


def faked(x: Tensor, mode: FakeTensorMode) -> Tensor:
    return FakeTensor(mode, torch.empty_like(x, device="meta"), CUDA)


def to_fake_cuda(model: nn.Module, mode: FakeTensorMode) -> None:
    for part in model.modules():
        for held in (part._parameters, part._buffers):
            for name, x in held.items():
                if x is not None:
                    fake = faked(x, mode)
                    held[name] = nn.Parameter(fake, x.requires_grad) if isinstance(x, nn.Parameter) else fake


@pytest.mark.sampled(8)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}-{case.type}")
def test_forward_and_loss_on_a_fake_gpu(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation whose result depends on data, or on tensors of two devices, raises there."""
    model, (ids, views, labels) = made(case)
    monkeypatch.setattr(model, "require_finite", lambda terms: None)
    mode = FakeTensorMode()
    to_fake_cuda(model, mode)
    batch = [faked(ids, mode), [faked(view, mode) for view in views], faked(labels, mode)]
    with mode, Waits() as waits:
        loss = loss_of(model, batch)
    assert loss.device == CUDA and not waits.found.total()


@pytest.mark.sampled(8)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}-{case.type}")
def test_forward_loss_and_backward_ask_for_no_answer(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pairs.LISTED, "cpu", False)
    model, batch = made(case)
    with Waits() as waits:
        loss_of(model, batch).backward()
    # On a CPU W-MSE says at once that a covariance can't be inverted: 2 partitions of 2 parts of 2 views.
    assert waits.found.total() == (8 if case.method == "wmse" else 0), waits.found


def test_a_loss_on_its_way_from_a_device_is_refused_after_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is read when the event says that it is here, by the hook that Lightning calls before the optimizer."""
    model, _ = made(Case("simclr"))
    order: list[str] = []
    event = SimpleNamespace(record=lambda: order.append("record"), synchronize=lambda: order.append("wait"))
    monkeypatch.setattr(module.torch, "Event", lambda device: event)
    monkeypatch.setattr(type(model), "attached", True)
    monkeypatch.setattr(module, "waits_for", lambda x: True)
    monkeypatch.setattr(type(model), "current_epoch", 3)
    monkeypatch.setattr(type(model), "global_step", 7)
    model.require_finite({"a": torch.tensor(1.0)})
    model.on_after_backward()
    model.require_finite({"a": torch.tensor(1.0), "b": torch.tensor(float("nan"))})
    assert order == ["record", "wait", "record"]
    with pytest.raises(NonFiniteError, match="epoch 3, step 7: a=1.0, b=nan"):
        model.on_after_backward()
    model.on_after_backward()
