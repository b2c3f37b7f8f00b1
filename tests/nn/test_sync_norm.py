"""BatchNorm over processes: torch's in one process on the whole batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from solo import distributed
from solo.doctor.parity import on_processes
from solo.nn.networks import SyncedBatchNorm, synchronise
from solo.run.machine import SyncedNorms

NORMS = {
    "rows": lambda: nn.BatchNorm1d(5),
    "sequences": lambda: nn.BatchNorm1d(5, affine=False),
    "images": lambda: nn.BatchNorm2d(5, momentum=None),
    "volumes": lambda: nn.BatchNorm3d(5, eps=0.1, momentum=0.3),
    "no statistics": lambda: nn.BatchNorm2d(5, track_running_stats=False),
    "timm": lambda: BatchNormAct2d(5),
}
DIMENSIONS = {"rows": 0, "sequences": 1, "volumes": 3}
SPLIT = (7, 4)  # rows of the two processes


def inputs(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (sum(SPLIT), 5, *[3] * DIMENSIONS.get(name, 2))
    return 1000 + torch.randn(shape, generator=generator, dtype=torch.float64)  # a mean far from 0


def trained(name: str, synced: bool, rows: slice) -> dict[str, Any]:
    norm: nn.Module = NORMS[name]().double()
    for i, parameter in enumerate(norm.parameters()):
        parameter.data = torch.linspace(0.5, 2 + i, 5, dtype=torch.float64)
    norm = synchronise(norm) if synced else norm
    x = inputs(name)[rows].requires_grad_()
    for _ in range(2):
        y = norm(x)
    wanted = inputs(name).sin()[rows]
    ((y - wanted) ** 3).sum().backward()
    grads = {f"grad {key}": distributed.all_reduce_sum(p.grad) for key, p in norm.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **grads, **norm.state_dict()}


def work(_: Any) -> dict[str, Any]:
    start = distributed.rank() * SPLIT[0]
    rows = slice(start, start + SPLIT[distributed.rank()])
    return {name: trained(name, True, rows) for name in NORMS}


@pytest.fixture(scope="module")
def two_processes() -> list[dict[str, Any]]:
    return on_processes(work, 2, None)


@pytest.mark.parametrize("name", NORMS)
def test_values_gradients_and_statistics_are_those_of_one_process(name: str, two_processes: Any) -> None:
    one, (first, second) = trained(name, False, slice(None)), (result[name] for result in two_processes)
    for key, value in one.items():
        shared = torch.cat([first[key], second[key]]) if key in "xy" else first[key]
        torch.testing.assert_close(shared, value, rtol=1e-9, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")
        assert key in "xy" or torch.equal(first[key], second[key]), key


def test_only_batch_norms_are_replaced_and_their_state_is_kept() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(BatchNormAct2d(4), nn.LayerNorm(4)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    weight = net[1].weight
    synced = synchronise(net)
    assert synced is net and [type(layer) for layer in (net[0], net[2][1])] == [nn.Linear, nn.LayerNorm]
    assert isinstance(net[1], SyncedBatchNorm) and isinstance(net[2][0].act, nn.ReLU) and net[1].weight is weight
    assert net.state_dict().keys() == before.keys()


# One of each timm family that normalises in a way of its own; the layers are read where they differ.
FAMILIES = (
    "resnet18 resnetv2_50 efficientnet_b0 regnety_002 densenet121 mobilenetv3_small_050 ghostnet_050 dla34 res2net50d "
    "selecsls42 inception_v4 repvgg_a0 mixnet_s convnext_atto cspresnet50 levit_128s"
).split()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("gpu", [False, True], ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", FAMILIES)
def test_conversion_keeps_the_output_of_every_family(name: str, gpu: bool) -> None:
    net = timm.create_model(name, num_classes=0).eval()
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():  # fresh statistics would hide a layer that is left out
        if isinstance(layer, _BatchNorm):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
    size = {"levit_128s": 224, "inception_v4": 128}.get(name, 64)
    x = torch.randn(2, 3, size, size, generator=generator)
    with torch.no_grad():
        before = net(x)
        converted = SyncedNorms(gpu).apply(net)
        left = [layer for layer in converted.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
        assert not left
        torch.testing.assert_close(converted.eval()(x), before)


def test_without_a_group_it_is_torchs() -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    plain = nn.BatchNorm1d(4).double()
    synced = synchronise(copy.deepcopy(plain))
    for training in (True, False):
        assert torch.equal(plain.train(training)(x), synced.train(training)(x))
    with pytest.raises(ValueError, match="expected"):
        synced(x[0])
    with pytest.raises(ValueError, match="more than 1 value"):
        synced.train()(x[:1])
