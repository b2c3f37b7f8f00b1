"""Weights as other programs write them, in miniature."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from solo.checkpoint import load_checkpoint
from solo.errors import UserError
from solo.weights import load_weights

State = dict[str, Any]


class Backbone(nn.Sequential):
    def __init__(self, width: int = 3, names: tuple[str, ...] = ("conv", "norm"), value: float | None = None) -> None:
        super().__init__()
        self.add_module(names[0], nn.Linear(2, width))
        self.add_module(names[1], nn.BatchNorm1d(width))
        for parameter in self.parameters() if value is not None else ():
            nn.init.constant_(parameter, value)  # type: ignore[arg-type]


def named(prefix: str, module: nn.Module) -> State:
    return {f"{prefix}{key}": value for key, value in module.state_dict().items()}


W, OTHER = Backbone(value=7.0), Backbone(value=-1.0)
HEAD = {"fc.weight": torch.ones(4, 3), "fc.bias": torch.ones(4)}
FILES: dict[str, Any] = {
    "bare": named("", W),
    "torchvision, timm": {**named("", W), **HEAD},
    "DataParallel": {"state_dict": named("module.", W) | named("module.projector.", OTHER), "epoch": 3},
    "DeiT": {"model": {**named("", W), "head.weight": torch.ones(4, 3)}, "args": None},
    "MAE": {"model": {**named("", W), "mask_token": torch.ones(1), "decoder_embed.weight": torch.ones(1)}},
    "DINO": {"student": named("module.backbone.", OTHER), "teacher": named("backbone.", W), "epoch": 1},
    "MoCo": {"state_dict": named("module.encoder_k.", OTHER) | named("module.encoder_q.", W), "arch": "resnet50"},
    "SimSiam": {"state_dict": named("module.encoder.", W) | named("module.predictor.", OTHER)},
    "BYOL": named("target_encoder.net.", OTHER) | named("online_encoder.net.", W),
    "SwAV": named("module.", W)
    | {"module.prototypes.weight": torch.ones(1), "module.projection_head.0.bias": torch.ones(1)},
    "solo-learn": {"state_dict": named("momentum_encoder.", OTHER) | named("encoder.", W)},
    "this library": {"state_dict": named("momentum_backbone.", OTHER) | named("backbone.", W)},
    "torch.compile": {"state_dict": named("backbone._orig_mod.", W) | named("_orig_mod.projector.", OTHER)},
    "a model in a model": {
        "model_state_dict": named("model.module.net.", W),
        "optimizer": {"state": {0: torch.ones(1)}},
    },
    "with a copy": {"model": named("", W), "model_ema": named("", OTHER)},
    "net": {"net": named("", W)},
    "TensorFlow's": {key: value for key, value in named("", W).items() if "num_batches" not in key},
}


def filled(state: State) -> Backbone:
    network = Backbone()
    load_weights(network, state, path="x", name="tiny")
    return network


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.fault(4, "keys behind `module.`, `encoder_q.`, `net.`, `_orig_mod.`, ...", "found, by fitting the names")
@pytest.mark.fault(4, "`{'model': ...}` (DeiT, MAE), DINO's, MoCo's, BYOL's, SwAV's files, bare weights", "read by all")
@pytest.mark.parametrize(("kind", "ending"), [*((kind, ".pth") for kind in FILES), ("DeiT", ".bin"), ("MoCo", ".pt")])
def test_files_of_others(kind: str, ending: str, tmp_path: pathlib.Path) -> None:
    torch.save(FILES[kind], tmp_path / f"w{ending}")
    assert equal(filled(load_checkpoint(tmp_path / f"w{ending}")["state_dict"]), W)


@pytest.mark.fault(4, "`.safetensors` for any command", "read")
def test_safetensors(tmp_path: pathlib.Path) -> None:
    save_file(named("model.", W), tmp_path / "w.safetensors")
    assert equal(filled(load_checkpoint(tmp_path / "w.safetensors")["state_dict"]), W)
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-1])
    with pytest.raises(UserError, match="w.safetensors is truncated or damaged"):
        load_checkpoint(tmp_path / "w.safetensors")


HARMLESS: dict[str, Any] = {
    "NumPy scalar": np.float64(3.5),
    "NumPy integer": np.int64(3),
    "NumPy array": np.arange(6.0).reshape(2, 3),
    "NumPy texts": np.array(["a", "b"]),
    "OmegaConf": OmegaConf.create({"a": [1, 2.5, "x", None, True], "b": {"c": pathlib.Path("x")}}),
    "Namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("x")),
    "path": pathlib.Path("a/b"),
    "collections": [collections.defaultdict(list, {1: [2]}), collections.deque([1]), frozenset([1])],
    "date": [datetime.datetime(2026, 1, 1), datetime.timedelta(1), slice(1), range(2)],
}


@pytest.mark.fault(
    4, "a NumPy scalar, OmegaConf, Namespace or path beside the weights", "harmless: read, as plain values"
)
@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_things_beside_the_weights(kind: str, tmp_path: pathlib.Path) -> None:
    torch.save({"state_dict": named("", W), "best": HARMLESS[kind], "epoch": 7}, tmp_path / "w.pth")
    found = load_checkpoint(tmp_path / "w.pth")
    assert equal(filled(found["state_dict"]), W) and found["epoch"] == 7
    if kind in ("NumPy scalar", "NumPy integer"):
        assert found["best"] == HARMLESS[kind]
    if kind == "path":
        assert found["best"] == "a/b"


@pytest.mark.parametrize("order", ["C", "F", ">"])
def test_weights_in_numpy_arrays(order: str, tmp_path: pathlib.Path) -> None:
    values = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    array = values.astype(">f4") if order == ">" else np.asarray(values, order=order)  # type: ignore[call-overload]
    torch.save({"model": {**named("", W), "conv.weight": array}}, tmp_path / "w.pkl")
    assert torch.equal(filled(load_checkpoint(tmp_path / "w.pkl")["state_dict"]).conv.weight, torch.from_numpy(values))


class Unknown:
    pass


@pytest.mark.fault(
    4,
    "a class that nobody knows beside the weights",
    "refused; the two statements that save the weights alone are named",
)
def test_anything_else_is_refused_with_the_way_round(tmp_path: pathlib.Path) -> None:
    torch.save({"model": named("", W), "extra": Unknown()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"Unknown.*weights_only=False\); torch.save\(\{.state_dict"):
        load_checkpoint(tmp_path / "w.pth")


@pytest.mark.fault(
    4, "weights of another network", "refused: missing and left over keys are both listed; nothing is loaded"
)
def test_a_mismatch_names_keys_counts_and_both_networks() -> None:
    state = Backbone(width=4, names=("conv", "bn")).state_dict()
    before = Backbone()
    weight = before.conv.weight.clone()
    with pytest.raises(UserError) as error:
        load_weights(before, state, path="x.ckpt", name="backbone.name='resnet18'", saved="resnet50")
    text = str(error.value)
    assert "'resnet18'" in text and "'resnet50'" in text and "x.ckpt" in text and "\n" not in text
    assert "4 keys missing (norm.weight, norm.bias, norm.running_mean, ...)" in text
    assert "4 unexpected (bn.weight, bn.bias, bn.running_mean, ...)" in text
    assert "2 of another shape (conv.weight (4, 2) for (3, 2), conv.bias (4,) for (3,))" in text
    assert "random backbone" in text and torch.equal(before.conv.weight, weight)


WRONG: dict[str, tuple[dict[str, Tensor], str]] = {
    "one is missing": (
        {key: value for key, value in named("module.", W).items() if "running_mean" not in key},
        r"1 keys missing \(norm.running_mean\), 0 unexpected \(none\)",
    ),
    "a deeper network": (named("backbone.", W) | named("backbone.layer9.", W), r"0 keys missing .*[56] unexpected"),
    "no backbone": (named("projector.", nn.Linear(2, 2)), r"7 keys missing .*random backbone|random backbone"),
}


@pytest.mark.parametrize("case", WRONG)
def test_never_in_part(case: str) -> None:
    state, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        filled(state)
