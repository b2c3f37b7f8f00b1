"""Who is a relative in the training set: by a descriptor, by features of a file, within labels; who sees nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.data.labels.subsets import level_targets
from solo.data.sources.images import load
from solo.errors import UserError
from solo.methods import METHODS
from solo.run.pretrain import find_relatives


@pytest.fixture
def find(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def found(*words):
        recipe = find_recipe(["scripts/pretrain/digits", "simclr"], "pretrain")
        words = ["type=HEX", "hex.among=5", "accelerator=cpu", "data.num_workers=0", *words]
        cfg = parse(compose(recipe, words, PretrainCfg)[0], PretrainCfg).config
        model, spec = METHODS["simclr"](cfg), cfg.data.spec
        shown = find_relatives(cfg, model)
        labels = level_targets(load(spec, "pretrain", None, False, None, True, False, None)).flatten()
        table = shown.table.long()
        right = (labels[table] == labels[:, None])[table >= 0].float().mean()
        return shown, float(right), model.hex.whom, labels

    return found


def test_a_descriptor_finds_relatives_once(find, capsys):
    shown, right, whom, _ = find()
    assert shown.table.shape[1] == 5 and shown.share == 0.8 and 0.9 < right < 1
    assert whom["shown_own_class"] == pytest.approx(right) and whom["shown_with_relatives"] == 1
    capsys.readouterr()
    assert torch.equal(find()[0].table, shown.table) and "as kept in" in capsys.readouterr().out


def test_labels_narrow_down_whom_an_eye_sees(find):
    plain, _, _, labels = find()
    shown, right, _, _ = find("hex.eye=hog+digit")
    same = labels[plain.table.long()] == labels[:, None]
    assert right == 1 and torch.equal(shown.table, plain.table.masked_fill(~same, -1)) and not same.all()
    for odd in ("hogg", "hog+", "", "hog+nolevel"):
        with pytest.raises(UserError, match="hex.eye=.* is unknown.*choose .*hog"):
            find(f"hex.eye={odd}")
    with pytest.raises(UserError, match=r"hex.eye=digit knows labels and sees nobody; join it with another one, hog"):
        find("hex.eye=digit")


@pytest.mark.parametrize("kind", ["standard", "soft", "HEX_adaptive"])
def test_whoever_is_shown_goes_with_any_loss(find, kind):
    shown, _, whom, _ = find(f"type={kind}", "hex.show=neighbours", "hex.show_share=0.3")
    usual = find()
    assert torch.equal(shown.table, usual[0].table) and shown.share == 0.3 and whom == usual[2]
    oracle, right, _, _ = find(f"type={kind}", "hex.show=oracle", "hex.purity=0.6")
    assert oracle.share == 0.8 and 0.55 < right < 0.65


def test_features_of_a_file_are_an_eye(find, tmp_path):
    labels = find()[3]
    noise = torch.randn(len(labels), 10, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "x.npz", features=torch.eye(10)[labels] + 0.01 * noise, labels=labels)
    assert find(f"hex.eye={tmp_path}/x.npz")[1] == 1
    np.savez(tmp_path / "y.npz", features=torch.eye(10), labels=np.arange(10))
    with pytest.raises(UserError, match="has 10 rows for 1,437 training images; give one for each"):
        find(f"hex.eye={tmp_path}/y.npz")
