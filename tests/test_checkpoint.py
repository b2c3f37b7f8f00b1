import os
import pickle
import zipfile

import pytest
import torch

from solo.checkpoint import FORMAT, checkpoint_file, load_checkpoint, saved_settings
from solo.errors import UserError

STATE = {"backbone.conv.weight": torch.arange(600.0).reshape(30, 20)}


def save(path, state, **more):
    torch.save({"state_dict": state, **more}, path)
    return path


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder / "ran"),))


def truncated(folder):
    whole = save(folder / "whole.ckpt", STATE).read_bytes()
    (folder / "x.ckpt").write_bytes(whole[: len(whole) // 2])


def damaged(folder):
    (folder / "x.ckpt").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 8)


def packed(folder):
    """A zip bomb: 64 MB of zeros in a file of 64 kB."""
    save(folder / "whole.ckpt", {"w": torch.zeros(2**24)})
    with (
        zipfile.ZipFile(folder / "whole.ckpt") as old,
        zipfile.ZipFile(folder / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))


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
    "of a later version": (
        lambda folder: save(folder / "x.ckpt", STATE, solo={"format": FORMAT + 1}),
        "of a later version .* update solo-hex",
    ),
    "packed": (packed, "says that it holds more than can be in it"),
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
    text = str(error.value)
    assert "\n" not in text and "; " in text
    assert not (tmp_path / "ran").exists()


def test_a_folder_means_its_last_checkpoint(tmp_path):
    save(tmp_path / "last.ckpt", STATE)
    assert checkpoint_file(tmp_path) == tmp_path / "last.ckpt"
    assert "backbone.conv.weight" in load_checkpoint(tmp_path)["state_dict"]


def test_settings_come_from_the_checkpoint_then_from_args_json(tmp_path):
    path = save(tmp_path / "x.ckpt", {"a": torch.zeros(1)})
    assert saved_settings({"solo": {"cfg": {"a": 1}, "data": {"size": 8}}}, path) == {
        "cfg": {"a": 1},
        "data": {"size": 8},
    }
    assert saved_settings({}, path) == {"cfg": {}, "data": {}}
    (tmp_path / "args.json").write_text('{"backbone": {"name": "resnet18"}}')
    assert saved_settings({}, path) == {"cfg": {"backbone": {"name": "resnet18"}}, "data": {}}


@pytest.mark.fault(5, "stored settings that look up a variable, are endless or no plain values", "refused in one line")
@pytest.mark.parametrize("cfg", ["${oc.env:HOME}", [[]], {1, 2}, torch.zeros(2), b"x"], ids=type)
def test_settings_that_are_no_plain_values_are_refused(cfg, tmp_path):
    if isinstance(cfg, list):
        for _ in range(40):
            cfg = [cfg, cfg]  # 2**40 lists in 40
    path = save(tmp_path / "x.ckpt", STATE)
    with pytest.raises(UserError, match="stored in .*x.ckpt can't be used"):
        saved_settings({"solo": {"cfg": {"name": cfg}}}, path)
    with pytest.raises(UserError, match="a mapping is expected, not str"):
        saved_settings({"solo": {"cfg": "name"}}, path)


@pytest.mark.fault(5, "one bit of `last.ckpt` is flipped", "refused: a checksum is verified when it is read")
def test_a_flipped_bit_is_seen(tmp_path):
    path = save(tmp_path / "x.ckpt", STATE)
    content = bytearray(path.read_bytes())
    place = content.index(STATE["backbone.conv.weight"].numpy().tobytes()) + 1000
    content[place] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["state_dict"]["backbone.conv.weight"], STATE["backbone.conv.weight"])
    with pytest.raises(UserError, match="damaged .*the checksum of .*data/0 is wrong"):
        load_checkpoint(path)
