"""Code of the user's own by import path: used where the user names it, refused where only a file does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from solo import plugin
from solo.args.parse import parse
from solo.args.schema import PretrainCfg
from solo.backbones import build_backbone
from solo.cli import main
from solo.errors import ConfigError, UserError
from solo.methods import METHODS

MINE = """
import dataclasses
from torch import nn
from solo.args.fields import REQUIRED, key
from solo.data.catalogue.registry import DATASETS
from solo.hex.policy import Superclass
from solo.losses.info_nce import info_nce
from solo.losses.pairs import Pairs
from solo.methods import BaseMethod
from solo.methods.catalogue import MethodFacts

@dataclasses.dataclass(kw_only=True)
class Keys:
    width: int = key(REQUIRED, "width of the projection", ge=1)
    temperature: float = 0.2

class Mine(BaseMethod):
    Kwargs = Keys
    facts = MethodFacts(hex="replaces", negatives="rows", most_views=None, small_views=True)
    trainable = ("projector",)

    def build(self, kw):
        self.temperature, self.projector = kw.temperature, nn.Linear(self.features_dim, kw.width)

    def heads(self, feats):
        return {"z": self.projector(feats)}

    def ssl_loss(self, out, step):
        pairs = Pairs.from_views(out["z"], step.ids, step.groups)
        return self.hex.replace(lambda pairs: info_nce(pairs, self.temperature), pairs, step)

@dataclasses.dataclass(frozen=True)
class Near:
    margin: float = 0.5
    def selector(self, pairs, epoch, max_epochs):
        return Above(pairs.anchors.new_tensor(self.margin))

@dataclasses.dataclass(frozen=True)
class Above:
    threshold: object
    def __call__(self, similarity, rows):
        return similarity > self.threshold

class Net(nn.Module):
    def __init__(self, in_chans=3, wide=16):
        super().__init__()
        self.num_features, self.conv = wide, nn.Conv2d(in_chans, wide, 3)
    def forward(self, x):
        return self.conv(x).mean((2, 3))

def net(in_chans, wide=16):
    return Net(in_chans, wide)

def read(spec, request):
    from solo.data.sources.small import digits
    return digits(spec, request)

def darker(image):
    return image.point(lambda value: value // 2)

SPEC = dataclasses.replace(DATASETS["digits"], source="mine_{n}:read")
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of its own in the working directory, which nothing has imported or permitted."""
    name = f"mine_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MINE.replace("mine_{n}", name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def values(mine: str, **changes: Any) -> dict[str, Any]:
    cfg = OmegaConf.create(
        {
            "method": f"{mine}:Mine",
            "method_kwargs": {"width": 8},
            "max_epochs": 1,
            "backbone": {"name": f"{mine}:net", "kwargs": {"wide": 8}},
            "data": {"dataset": f"{mine}:SPEC", "num_workers": 0, "fraction": 0.2},
            "hex": {"policy": f"{mine}:Near", "policy_kwargs": {"margin": 0.1}, "warm_epoch": 0},
            "optimizer": {"name": "sgd", "batch_size": 32, "lr": 0.1},
            "augmentations": [{"num_crops": 2, "transforms": [f"{mine}:darker"]}],
        }
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, merge=False, force_add=True)
    return OmegaConf.to_container(cfg)  # type: ignore[return-value]


def test_a_run_of_ones_own_method_policy_backbone_and_data(mine: str, capsys: Any) -> None:
    recipe = Path("mine.yaml")
    recipe.write_text(OmegaConf.to_yaml(OmegaConf.create(values(mine, checkpoint={"enabled": True, "dir": "runs"}))))
    words = ["progress=off", "accelerator=cpu", "tensorboard.enabled=false"]
    assert main(["pretrain", ".", "mine.yaml", *words]) == 2
    said = capsys.readouterr().err
    assert f"method={mine}:Mine would run code of the module {mine}, which a file names" in said and "trust=[" in said
    assert mine not in sys.modules
    assert main(["pretrain", ".", "mine.yaml", *words, f"trust=[{mine}]"]) == 0
    checkpoint = next(Path("runs").rglob("last.ckpt"))
    plugin.forbid([mine])  # as in a new process
    evaluate = ["evaluate", f"checkpoint={checkpoint}", "data.dataset=digits", "data.num_workers=0", "accelerator=cpu"]
    assert main(evaluate) == 1
    assert f"backbone.name={mine}:net would run code" in capsys.readouterr().err
    assert main([*evaluate, f"backbone.name={mine}:net"]) == 0


def test_help_has_its_keys(mine: str, capsys: Any) -> None:
    assert main(["pretrain", "--help", f"method={mine}:Mine"]) == 0
    shown = capsys.readouterr().out
    assert "width of the projection (int; required)" in shown and "method_kwargs of method=simclr" not in shown


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("method", "{}:Mime", "has no 'Mime'; did you mean 'Mine'?"),
        ("method", "{}x:Mine", "there is no module"),
        ("method", "{}:Net", "is no method; give a subclass of solo.methods.BaseMethod"),
        ("hex.policy", "{}:Net", "is no policy; give a dataclass with a method selector"),
        ("hex.policy_kwargs", {"margin": "far"}, "hex.policy_kwargs.margin='far' has the wrong type; give float"),
        ("hex.policy_kwargs", {"marginn": 1}, "did you mean 'hex.policy_kwargs.margin'?"),
        ("method_kwargs", {"width": 0}, "method_kwargs.width=0 is out of range"),
        ("backbone.name", "{}:number", "can't be called; give a function that returns a torch.nn.Module"),
        (
            "augmentations",
            [{"num_crops": 2, "transforms": ["darker"]}],
            "transforms has 'darker', which is no import path",
        ),
        ("augmentations", [{"num_crops": 2, "transforms": ["os.path:x"]}], "os.path has no 'x'"),
        ("data.dataset", "{}:number", "is no data set; give a DatasetSpec"),
    ],
)
def test_what_leads_nowhere_is_said_in_one_line(mine: str, key: str, value: Any, line: str) -> None:
    value = value.format(mine) if isinstance(value, str) else value
    with pytest.raises(ConfigError) as error:
        parse(values(mine, **{key.replace(".", "__"): value}), PretrainCfg)
    assert line in str(error.value) and len(str(error.value).splitlines()) == 1


def test_trust_in_a_file_does_not_count(mine: str) -> None:
    origins = {"": "r.yaml", "trust": "r.yaml:1", "method": "r.yaml:2"}
    with pytest.raises(ConfigError, match="a file can't permit its own code"):
        parse(values(mine, trust=[mine]), PretrainCfg, origins)
    assert mine not in sys.modules


def test_python_code_uses_what_it_permits(mine: str) -> None:
    with pytest.raises(UserError, match="would run code"):
        METHODS[f"{mine}:Mine"]
    plugin.permit([mine])
    net = build_backbone(f"{mine}:net", channels=1, image_size=8, kwargs={"wide": 4})
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 4) and METHODS[f"{mine}:Mine"].Kwargs.__name__ == "Keys"
