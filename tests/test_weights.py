"""Weights as other programs write them, in miniature."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from solo.backbones import build_backbone
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


RESNET, SLOW_RESNET = (build_backbone("resnet10", kwargs={"width": 8}) for _ in range(2))
VIT, SLOW_VIT = (build_backbone("vit_tiny", kwargs={"patch_size": 8, "depth": 2}, image_size=32) for _ in range(2))
TIMM = {"img_size": 28, "depth": 3, "embed_dim": 24, "num_heads": 2, "num_classes": 0}
V2, REGISTERS = (timm.create_model(f"vit_small_patch14_{kind}", **TIMM) for kind in ("dinov2", "reg4_dinov2"))
ONE = torch.ones(1)


def lightly(module: nn.Module) -> State:
    """As `nn.Sequential(*list(resnet.children())[:-1])` names it."""
    return nn.Sequential(*list(module.children())[:-1]).state_dict()


def chunks(module: nn.Module) -> State:
    """DINOv2's training: the blocks in chunks of two, which keep their numbers."""
    places = {f"blocks.{i}.": f"blocks.{i // 2}.{i}." for i in range(3)}
    return {places.get(key[:9], key[:9]) + key[9:]: value for key, value in module.state_dict().items()}


def registers(module: nn.Module) -> State:
    """DINOv2 with registers: the class token has a position, which timm has added to it."""
    state, shift = module.state_dict(), torch.randn(1, 1, 24)
    state |= {"register_tokens": state.pop("reg_token"), "mask_token": ONE, "cls_token": state["cls_token"] - shift}
    return state | {"pos_embed": torch.cat([shift, state["pos_embed"]], 1)}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


# library -> its network, and a file as it writes it
LIBRARIES: dict[str, tuple[nn.Module, Any]] = {
    "lightly, SimCLR": (
        RESNET,
        {"state_dict": under("backbone.", lightly(RESNET)) | {"projection_head.layers.0.weight": ONE}, "epoch": 9},
    ),
    "lightly, MoCo": (
        RESNET,
        {"state_dict": under("backbone_momentum.", lightly(SLOW_RESNET)) | under("backbone.", lightly(RESNET))},
    ),
    "lightly, DINO": (
        VIT,
        {"state_dict": named("student_backbone.vit.", SLOW_VIT) | named("teacher_backbone.vit.", VIT)},
    ),
    "VISSL": (
        RESNET,
        {
            "iteration": 7,
            "classy_state_dict": {
                "base_model": {
                    "model": {"trunk": named("_feature_blocks.", RESNET), "heads": {"0.clf.0.weight": ONE}},
                    "meta": {},
                }
            },
        },
    ),
    "MoCo v2": (
        RESNET,
        {
            "arch": "resnet50",
            "state_dict": named("module.encoder_q.", RESNET)
            | named("module.encoder_k.", SLOW_RESNET)
            | {"module.encoder_q.fc.0.weight": ONE, "module.queue": ONE, "module.queue_ptr": ONE},
        },
    ),
    "MoCo v3": (
        VIT,
        {
            "state_dict": named("module.momentum_encoder.", SLOW_VIT)
            | named("module.base_encoder.", VIT)
            | {"module.base_encoder.head.0.weight": ONE, "module.predictor.0.weight": ONE},
        },
    ),
    "DINO": (
        VIT,
        {
            "student": named("module.backbone.", SLOW_VIT) | {"module.head.mlp.0.weight": ONE},
            "teacher": named("backbone.", VIT) | {"head.mlp.0.weight": ONE, "head.last_layer.weight_g": ONE},
            "args": argparse.Namespace(arch="vit_small"),
        },
    ),
    "DINOv2, published": (V2, {**V2.state_dict(), "mask_token": ONE}),
    "DINOv2, training": (V2, {"teacher": under("backbone.", chunks(V2)) | {"dino_head.mlp.0.weight": ONE}}),
    "DINOv2, registers": (REGISTERS, registers(REGISTERS)),
    "MAE": (VIT, {"model": named("", VIT) | {"mask_token": ONE, "decoder_blocks.0.norm1.weight": ONE}}),
    "Barlow Twins": (
        RESNET,
        {
            "model": named("module.backbone.", RESNET)
            | {"module.projector.0.weight": ONE, "module.bn.running_mean": ONE}
        },
    ),
    "VICReg": (RESNET, {"model": named("module.backbone.", RESNET) | {"module.projector.0.weight": ONE}}),
    "SwAV": (
        RESNET,
        named("module.", RESNET) | {"module.projection_head.0.weight": ONE, "module.prototypes.weight": ONE},
    ),
    "HMLC": (RESNET, {"model": named("encoder.module.", RESNET) | {"head.0.weight": ONE, "head.2.bias": ONE}}),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_files_of_libraries(library: str, tmp_path: pathlib.Path) -> None:
    network, content = LIBRARIES[library]
    torch.save(content, tmp_path / "w.pth")
    other = copy.deepcopy(network)
    for parameter in other.parameters():
        nn.init.constant_(parameter, 0.5)
    load_weights(other, load_checkpoint(tmp_path / "w.pth")["state_dict"], path="w.pth", name=library)
    wanted = network.state_dict()
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, wanted[name], msg=name)


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
@pytest.mark.fault(4, "safetensors by another name", "read")
def test_renamed_safetensors(tmp_path: pathlib.Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "x.ckpt")
    assert load_checkpoint(tmp_path / "x.ckpt")["state_dict"]["a"].tolist() == [1, 1, 1]


@pytest.mark.fault(4, "complex and meta tensors; pointers of Git LFS, TorchScript, `.npz`", "one line that says so")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a.weight": torch.ones(3) + 1j}, "a.weight is a strided complex64 tensor"),
        ({"a.weight": torch.ones(3, device="meta")}, "a.weight is a meta tensor"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n", "is a pointer of Git LFS"),
        ({"x.npy": b"..."}, "is a TorchScript program or a NumPy archive"),
        ({"x/constants.pkl": b"..."}, "is a TorchScript program or a NumPy archive"),
    ],
)
def test_what_is_no_plain_tensor(content: Any, message: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(next(iter(content.values())), bytes):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(*next(iter(content.items())))
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=message):
        load_checkpoint(file)


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


@pytest.mark.fault(4, "a file with two copies of the weights that look alike", "which of them is read is said")
def test_two_copies(caplog: pytest.LogCaptureFixture) -> None:
    network = filled({"a": W.state_dict(), "b": OTHER.state_dict()})
    assert equal(network, W) or equal(network, OTHER)
    read = "a." if equal(network, W) else "b."
    assert [f"the file holds 2 copies of the weights, a., b.: {read} is read"] == caplog.messages
    filled(named("momentum_encoder.", OTHER) | named("encoder.", W))
    assert len(caplog.messages) == 1


@pytest.mark.fault(4, "weights that are infinite or no numbers, for any command", "refused: an earlier checkpoint")
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite(value: float) -> None:
    state, network = named("backbone.", W), Backbone()
    state["backbone.norm.running_var"] = torch.tensor([1.0, value, 1.0])
    before = copy.deepcopy(network)
    with pytest.raises(UserError, match=r"x.ckpt holds weights that are infinite .* \(norm.running_var\); .* earlier"):
        load_weights(network, state, path="x.ckpt", name="it")
    assert equal(network, before)


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
