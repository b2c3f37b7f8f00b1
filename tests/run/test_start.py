"""`finetune_from`: where the backbone's weights come from, and what is refused."""

from __future__ import annotations

import pytest
import torch

from solo.backbones import build_backbone
from solo.backbones.registry import published_model
from solo.errors import UserError
from solo.methods import METHODS
from solo.run import source as room
from solo.run.source import start_from
from tests.methods.conftest import make_cfg

LIKE = {"backbone": {"name": "resnet18"}, "data__dataset": "inshop", "data__num_classes": 5}


@pytest.fixture
def weights():
    torch.manual_seed(7)
    return build_backbone("resnet18").state_dict()


def equal(model, weights):
    state = model.state_dict()
    return all(torch.equal(state[name], value) for name, value in weights.items())


@pytest.mark.parametrize("kind", ["torchvision", "ours", "safetensors"])
def test_a_file(kind, weights, tmp_path):
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "ours":
        torch.save({"state_dict": {f"backbone.{name}": value for name, value in weights.items()}}, file)
    elif kind == "torchvision":
        torch.save({**weights, "fc.weight": torch.ones(3, 512), "fc.bias": torch.ones(3)}, file)
    else:
        from safetensors.torch import save_file

        save_file(weights, file)
    model = METHODS["simclr"](make_cfg("simclr", **LIKE))
    projector = model.projector.state_dict()
    start_from(model, str(file), 3)
    assert equal(model.backbone, weights) and equal(model.projector, projector)


def test_the_slow_copy_follows(weights, tmp_path):
    torch.save(weights, tmp_path / "weights.pth")
    model = METHODS["byol"](make_cfg("byol", **LIKE, momentum={"classifier": False}))
    start_from(model, str(tmp_path / "weights.pth"), 3)
    assert equal(model.momentum_backbone, weights)


@pytest.mark.parametrize("source", ["timm/resnet18", "torchvision/resnet18"])
def test_a_published_model(source, monkeypatch):
    torch.manual_seed(8)
    random = published_model(source, fetch=False)  # stands for what would be fetched
    monkeypatch.setattr(room, "published_model", lambda name, channels: random)
    model = METHODS["himulcone"](make_cfg("himulcone", **LIKE, finetune_layers=["layer4"]))
    start_from(model, source, 3)
    assert equal(model.backbone, {name: v for name, v in random.network.state_dict().items() if name != "fc.weight"})


def test_what_does_not_fit_is_refused(weights, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(weights, file)
    other = METHODS["simclr"](
        make_cfg("simclr", backbone={"name": "resnet50"}, data__dataset="inshop", data__num_classes=5)
    )
    with pytest.raises(UserError, match=r"finetune_from: .*doesn't fit backbone.name='resnet50'"):
        start_from(other, str(file), 3)
    model = METHODS["simclr"](make_cfg("simclr", **LIKE))
    with pytest.raises(UserError, match="model=timm/resnot18 is unknown to timm"):
        start_from(model, "timm/resnot18", 3)
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="is not a checkpoint"):
        start_from(model, str(file), 3)
