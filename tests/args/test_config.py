"""The frozen config, a user's own keys in it, and data that are fetched after the checks."""

from __future__ import annotations

import dataclasses
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest
from omegaconf import OmegaConf

from solo.args import fields
from solo.args.config import declare_keys, to_plain, to_yaml
from solo.args.fields import key
from solo.args.parse import parse
from solo.args.schema import LinearCfg, PretrainCfg
from solo.args.show import help_text, resolved_text
from solo.data.layouts.layout import Layout
from solo.errors import ConfigError, UserError


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("it asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_config_is_typed_frozen_and_plain_again(pretrain_values: Any) -> None:
    parsed = parse({**pretrain_values, "precision": "bf16-mixed", "type": "HEX_adaptive"}, PretrainCfg)
    cfg = parsed.config
    assert isinstance(cfg, PretrainCfg) and cfg.hex.policy == "adaptive" and cfg.hex.warm_epoch == 10
    assert cfg.devices == (0,) and cfg.augmentations[0].crop_size == 32 and cfg.trainer == {"precision": "bf16-mixed"}
    assert cfg.method_kwargs.temperature == 0.2 and cfg.data.spec.taxonomy.num_levels == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.optimizer.lr = 1.0
    assert to_plain(cfg) == parsed.values == to_plain(OmegaConf.create(parsed.values))
    again = parse(OmegaConf.to_container(OmegaConf.create(to_yaml(cfg))), PretrainCfg)
    assert again.config == cfg


def test_the_data_set_of_a_linear_run_is_resolved_once(linear_values: Any, tmp_path: Any, monkeypatch: Any) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").touch()
    asked = []
    from solo.data.catalogue import registry

    walk = registry.list_images
    monkeypatch.setattr(registry, "list_images", lambda *given: [asked.append(given), walk(*given)][1])
    linear_values["data"] = {"dataset": "custom", "train_path": str(tmp_path / "train")}
    cfg = parse(linear_values, LinearCfg).config
    assert cfg.data.spec.taxonomy.class_names == ("cat", "dog") and cfg.data.num_classes == 2 and len(asked) == 1


@pytest.mark.usefixtures("no_network")
def test_a_check_downloads_nothing(pretrain_values: Any, tmp_path: Any, monkeypatch: Any) -> None:
    fetched = []
    monkeypatch.setattr(Layout, "fetch", lambda self, path: fetched.append(path))
    pretrain_values["data"] = {"dataset": "food101", "train_path": str(tmp_path), "num_workers": 0}
    parsed = parse({**pretrain_values, "accelerator": "cpu", "devices": 1}, PretrainCfg, for_run=True)
    assert not fetched and parsed.fetch is not None
    assert any("food101 is not in" in note and "begins by fetching it" in note for note in parsed.notes)
    again = parsed.fetch()
    assert fetched == [tmp_path] and again.fetch is None
    pretrain_values["data"]["download"] = False
    with pytest.raises(ConfigError, match=r"data.train_path: no Food-101 in"):
        parse(pretrain_values, PretrainCfg, for_run=True)


@pytest.mark.usefixtures("no_network")
def test_a_data_set_on_a_hub_is_not_asked_for(pretrain_values: Any) -> None:
    pretrain_values["data"] = {"dataset": "custom", "format": "hf", "train_path": "someone/pets"}
    parsed = parse(pretrain_values, PretrainCfg, for_run=True)
    assert parsed.fetch is not None and parsed.config.data.num_classes is None


@dataclass(kw_only=True)
class MarginKeys:
    margin: float = key(0.5, "distance that my loss keeps", ge=0)
    tags: list[str] = field(default_factory=list)


@pytest.fixture
def own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_OWN", "_ADDED"):
        monkeypatch.setattr(fields, table, {})
    for section in ("", "data", "optimizer", "augmentations", "optimizer"):
        declare_keys(MarginKeys, section)


@pytest.mark.usefixtures("own_keys")
def test_own_keys_are_checked_like_ours(pretrain_values: Any) -> None:
    with pytest.raises(ConfigError, match=r"optimizer.margin=-1 is out of range; give a number >= 0"):
        parse(pretrain_values | {"optimizer": pretrain_values["optimizer"] | {"margin": -1}}, PretrainCfg)
    with pytest.raises(ConfigError, match=r"data.margn is not a key; did you mean 'data.margin'"):
        parse(pretrain_values | {"data": {"dataset": "digits", "margn": 1}}, PretrainCfg)
    pretrain_values["augmentations"][0]["margin"] = "0.25"
    parsed = parse(pretrain_values | {"margin": 2, "tags": "a"}, PretrainCfg, {"margin": "mine.yaml:3"})
    cfg = parsed.config
    assert (cfg.margin, cfg.tags, cfg.augmentations[0].margin) == (2.0, ["a"], 0.25)
    assert cfg.optimizer.margin == cfg.data.margin == 0.5
    assert "# mine.yaml:3" in next(line for line in resolved_text(parsed).splitlines() if line.startswith("margin: 2"))
    assert "optimizer.margin" in help_text(PretrainCfg) and "distance that my loss keeps" in help_text(PretrainCfg)


@pytest.mark.usefixtures("own_keys")
def test_own_keys_reach_the_model(pretrain_values: Any) -> None:
    from solo.methods import METHODS

    pretrain_values["backbone"] = {"name": "resnet10", "kwargs": {"width": 8}}
    cfg = parse(pretrain_values | {"margin": 2}, PretrainCfg).config
    for model in (METHODS["simclr"](cfg), METHODS["simclr"](OmegaConf.create(to_plain(cfg)))):
        assert model.config.margin == model.cfg.margin == 2 and model.cfg.optimizer.margin == 0.5


PLUG_IN = """
from dataclasses import dataclass
from solo.args.config import declare_keys
from solo.methods import SimCLR

@dataclass(kw_only=True)
class Keys:
    flavour: str = "sweet"

declare_keys(Keys, "data")

class Mine(SimCLR):
    pass
"""


@pytest.mark.usefixtures("own_keys")
def test_a_plug_in_declares_its_keys_when_it_is_imported(pretrain_values: Any, tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "plug_in_with_keys.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)
    pretrain_values["data"]["flavour"] = "sour"
    cfg = parse(pretrain_values | {"method": "plug_in_with_keys:Mine"}, PretrainCfg).config
    assert cfg.data.flavour == "sour" and cfg.method_kwargs.temperature == 0.2


def test_without_a_declaration_they_are_refused(pretrain_values: Any) -> None:
    with pytest.raises(ConfigError, match="optimizer.margin is not a key"):
        parse(pretrain_values | {"optimizer": pretrain_values["optimizer"] | {"margin": 1}}, PretrainCfg)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((dict,), "is no dataclass"),
        ((MarginKeys, "optimiser"), "section='optimiser' is none; choose .*optimizer"),
        ((MarginKeys, "", "pretain"), "command='pretain' is unknown; choose pretrain, linear"),
        ((dataclasses.make_dataclass("Mine", [("lr", float, 1.0)]), "optimizer"), "has a key of that name"),
        ((dataclasses.make_dataclass("Mine", [("precision", int, 1)]),), "has a key of that name"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        declare_keys(*arguments)
