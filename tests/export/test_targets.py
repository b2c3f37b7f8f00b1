"""Every target is read back by its own program, in one line, with the same features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from solo.backbones import build_backbone, features_dim
from solo.errors import UserError
from solo.export import TARGETS, export
from solo.export.folder import Bundle, Network
from solo.taxonomy import Taxonomy

TREE = Taxonomy.from_groups(("cat", "dog", "car"), {"animal": ("cat", "dog"), "thing": ("car",)})
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"name": "resnet18", "size": 64},
    "resnet10": {
        "name": "resnet10",
        "size": 32,
        "small_stem": True,
        "channels": 1,
        "kwargs": {"width": 8, "stem_stride": 2},
    },
    "vit": {"name": "vit_tiny", "size": 32, "kwargs": {"patch_size": 8, "depth": 2}},
    "mae": {"name": "vit_tiny", "method": "mae", "size": 32, "kwargs": {"patch_size": 8, "depth": 2}},
    "ijepa": {"name": "vit_tiny", "method": "ijepa", "size": 32, "kwargs": {"patch_size": 8, "depth": 2}},
    "timm": {"name": "mobilenetv3_small_050", "size": 64, "channels": 5},
    "wide": {"name": "wide_resnet28w2", "size": 32},
    "pool": {"name": "poolformer_s12", "size": 32},
}
# What each network can be exported to, besides safetensors, onnx and torch_export, which take all.
KNOWN = {
    "resnet18": {"timm", "hf", "torchvision", "detectron2"},
    "resnet10": {"hf"},
    "vit": {"timm", "hf"},
    "mae": {"timm", "hf"},
    "ijepa": {"timm", "hf"},
    "timm": {"timm", "hf"},
    "wide": {"hf"},
    "pool": {"hf"},
}
EVERY = {"safetensors", "onnx", "torch_export"}


def bundle(kind: str) -> Bundle:
    given = {"method": None, "small_stem": False, "channels": 3, "kwargs": {}, **NETWORKS[kind]}
    torch.manual_seed(0)
    network = build_backbone(
        given["name"],
        given["method"],
        channels=given["channels"],
        small=given["small_stem"],
        image_size=given["size"],
        kwargs=given["kwargs"],
    )
    for layer in network.modules():  # statistics as after training, so that a lost one is seen
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    statistics = {"mean": (0.4,) * given["channels"], "std": (0.25,) * given["channels"]}
    return Bundle(
        backbone=network.eval(),
        network=Network(resize=None, **statistics, **given),
        features_dim=features_dim(network),
        taxonomy=TREE,
        classifier=None,
        facts={"name": f"{kind}-test", "method": "simclr", "dataset": "custom", "numbers": {"knn_acc1": 97.5}},
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_round_trip(kind: str, to: str, tmp_path: Path) -> None:
    made = bundle(kind)
    folder = tmp_path / "out"
    if to not in KNOWN[kind] | EVERY:
        with pytest.raises(UserError, match=NETWORKS[kind]["name"]):
            export(made, to, folder)
        assert not folder.exists()
        return
    result = export(made, to, folder)
    assert result.checked == (to != "detectron2")
    card = (folder / "README.md").read_text()
    assert all(line in card for line in (*result.usage, "simclr", "| knn_acc1 | 97.50 |"))
    assert json.loads((folder / "taxonomy.json").read_text()) == TREE.to_dict()
    assert not list(folder.glob(".*.tmp"))


def test_detectron2_names_are_those_of_its_resnet(tmp_path: Path) -> None:
    import pickle

    made = bundle("resnet18")
    export(made, "detectron2", tmp_path)
    named = pickle.loads((tmp_path / "model.pkl").read_bytes())["model"]
    assert {"stem.conv1.weight", "stem.conv1.norm.running_var", "res2.0.conv2.norm.bias", "res5.1.conv1.weight"} < set(
        named
    )
    assert {"res3.0.shortcut.weight", "res3.0.shortcut.norm.weight"} < set(named)
    assert len(named) == len(made.backbone.state_dict())


@pytest.mark.parametrize(("to", "out", "match"), [("tim", "x", "choose one of"), ("timm", "file", "is a file")])
def test_wrong_words(to: str, out: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=match):
        export(bundle("vit"), to, tmp_path / out)
