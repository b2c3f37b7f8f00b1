import os
import pickle

import pytest
import torch
from torch import nn

from solo.checkpoint import backbone_state, checkpoint_file, load_backbone, load_checkpoint, saved_settings
from solo.errors import UserError


class Backbone(nn.Sequential):
    def __init__(self, width: int = 3, names: tuple[str, ...] = ("conv", "norm")) -> None:
        super().__init__()
        self.add_module(names[0], nn.Linear(2, width))
        self.add_module(names[1], nn.BatchNorm1d(width))


def save(path, state, **more):
    torch.save({"state_dict": state, **more}, path)
    return path


def prefixed(prefix, module):
    return {f"{prefix}{key}": value for key, value in module.state_dict().items()}


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder / "ran"),))


def truncated(folder):
    whole = save(folder / "whole.ckpt", prefixed("backbone.", Backbone())).read_bytes()
    (folder / "x.ckpt").write_bytes(whole[: len(whole) // 2])


def damaged(folder):
    (folder / "x.ckpt").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 8)


BROKEN = {
    "missing": (lambda folder: None, "doesn't exist"),
    "empty": (lambda folder: (folder / "x.ckpt").touch(), r"is empty \(0 bytes\)"),
    "text": (lambda folder: (folder / "x.ckpt").write_text("hello, I am a text\n"), "is not a checkpoint"),
    "json": (lambda folder: (folder / "x.ckpt").write_text('{"state_dict": {}}'), "is not a checkpoint"),
    "truncated": (truncated, "is truncated or damaged"),
    "damaged": (damaged, "is truncated or damaged"),
    "code": (
        lambda folder: torch.save({"state_dict": Harmful(folder)}, folder / "x.ckpt"),
        r"would run code \(\w+\.mkdir",
    ),
    "plain pickle": (
        lambda folder: (folder / "x.ckpt").write_bytes(pickle.dumps(Harmful(folder))),
        r"would run code \(\w+\.mkdir",
    ),
    "a list": (lambda folder: torch.save([1, 2], folder / "x.ckpt"), "holds a list"),
    "other keys": (lambda folder: torch.save({"weights": 1}, folder / "x.ckpt"), "holds keys weights and no"),
    "a folder": (lambda folder: (folder / "x.ckpt").mkdir(), r"no last.ckpt \(checkpoints in it: none\)"),
}


@pytest.mark.fault(5, "a checkpoint that runs code when it is unpickled", "refused in one line, nothing runs")
@pytest.mark.fault(5, "an empty, cut off or damaged checkpoint, a text, another pickle", "one line that says which")
@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_one_clear_line(case, tmp_path):
    make, message = BROKEN[case]
    make(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        load_checkpoint(tmp_path / "x.ckpt")
    assert "\n" not in str(error.value) and "; " in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_folder_means_its_last_checkpoint(tmp_path):
    save(tmp_path / "last.ckpt", prefixed("backbone.", Backbone()))
    assert checkpoint_file(tmp_path) == tmp_path / "last.ckpt"
    assert "backbone.conv.weight" in load_checkpoint(tmp_path)["state_dict"]


def test_a_plain_state_dict_is_read_too(tmp_path):
    torch.save(prefixed("backbone.", Backbone()), tmp_path / "x.pth")
    assert "conv.weight" in backbone_state(load_checkpoint(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    "prefix", ["backbone.", "encoder.", "module.backbone.", "model.backbone.", "backbone._orig_mod."]
)
def test_the_online_backbone_is_taken_from_old_and_new_names(prefix):
    backbone, other = Backbone(), Backbone()
    state = prefixed(prefix, backbone) | prefixed("momentum_backbone.", other) | prefixed("projector.", other)
    found = backbone_state({"state_dict": state})
    assert list(found) == list(backbone.state_dict())
    target = Backbone()
    load_backbone(target, found, path="x", name="tiny")
    assert torch.equal(target.conv.weight, backbone.conv.weight)


def test_no_backbone_at_all():
    with pytest.raises(UserError, match=r"projector.conv.weight, .*random backbone"):
        backbone_state({"state_dict": prefixed("projector.", Backbone())})


def test_a_mismatch_names_keys_counts_and_both_backbones():
    state = Backbone(width=4, names=("conv", "bn")).state_dict()
    before = Backbone()
    weight = before.conv.weight.clone()
    with pytest.raises(UserError) as error:
        load_backbone(before, state, path="x.ckpt", name="resnet18", saved="resnet50")
    text = str(error.value)
    assert "'resnet18'" in text and "'resnet50'" in text and "x.ckpt" in text and "\n" not in text
    assert "5 keys missing (norm.weight, norm.bias, norm.running_mean, ...)" in text
    assert "5 unexpected (bn.weight, bn.bias, bn.running_mean, ...)" in text
    assert "2 of another shape (conv.weight (4, 2) for (3, 2), conv.bias (4,) for (3,))" in text
    assert "random backbone" in text
    assert torch.equal(before.conv.weight, weight)


def test_one_missing_key_is_enough_to_refuse():
    state = Backbone().state_dict()
    del state["norm.running_mean"]
    with pytest.raises(UserError, match=r"1 keys missing \(norm.running_mean\), 0 unexpected \(none\)") as error:
        load_backbone(Backbone(), state, path="x", name="tiny")
    assert "random backbone" not in str(error.value)


def test_settings_come_from_the_checkpoint_then_from_args_json(tmp_path):
    path = save(tmp_path / "x.ckpt", {"a": torch.zeros(1)})
    assert saved_settings({"solo": {"cfg": {"a": 1}, "data": {"size": 8}}}, path) == {
        "cfg": {"a": 1},
        "data": {"size": 8},
    }
    assert saved_settings({}, path) == {"cfg": {}, "data": {}}
    (tmp_path / "args.json").write_text('{"backbone": {"name": "resnet18"}}')
    assert saved_settings({}, path) == {"cfg": {"backbone": {"name": "resnet18"}}, "data": {}}
