"""`data.label_fraction` and `data.unseen_classes` in a run."""

import json
import warnings

import pytest
import torch

from solo.args.config import to_plain
from solo.errors import UserError
from solo.run import pretrain


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


def data(**keys):
    return {"dataset": "digits", "num_workers": 0, **keys}


def epoch(cfg):
    """Index -> label of an epoch's batches."""
    found = {}
    for indexes, _, targets in pretrain.train_loader(cfg):
        found |= dict(zip(indexes.tolist(), targets.tolist(), strict=True))
    return found


def test_both_ways_to_make_views_know_the_same_labels_whatever_the_training_seed(pretrain_cfg):
    keys = {"label_fraction": 0.1, "unseen_classes": ["3", "5"]}
    cfgs = [
        pretrain_cfg(data=data(augment=augment, **keys), seed=seed) for augment, seed in (("batch", 1), ("sample", 2))
    ]
    assert cfgs[0].data.unseen_classes == ("3", "5")
    one, other = map(epoch, cfgs)
    assert set(one.values()) == {-1, 0, 1, 2, 4, 6, 7, 8, 9}
    assert 0.08 < sum(label >= 0 for label in one.values()) / len(one) < 0.12
    assert all(one[index] == label for index, label in other.items() if index in one)


def test_drawn_classes_are_written_down_and_stay(pretrain_cfg):
    first = pretrain_cfg(data=data(unseen_classes=2))
    again, other = pretrain_cfg(data=to_plain(first)["data"]), pretrain_cfg(data=data(unseen_classes=2, split_seed=1))
    assert len(first.data.unseen_classes) == 2
    assert again.data.unseen_classes == first.data.unseen_classes != other.data.unseen_classes


@pytest.mark.parametrize("share", [pytest.param(0.0, marks=pytest.mark.thorough), 0.05])
def test_a_run_says_what_was_withheld(pretrain_cfg, tmp_path, share):
    cfg = pretrain_cfg(method="supcon", type="standard", data=data(label_fraction=share, unseen_classes=["7"]))
    pretrain.run(cfg)
    summary = json.loads(next(tmp_path.rglob("summary.json")).read_text())
    assert summary["unseen_classes"] == ["7"] and summary["label_fraction"] == share
    assert "1 of 10 classes unseen in training" in summary["protocol"]["val_acc1"]
    saved = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert saved["solo"]["cfg"]["data"]["unseen_classes"] == ["7"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unseen_classes": ["11"]}, r"'11' is no class; .*give names \(0, 1, .*or indices 0 to 9"),
        ({"unseen_classes": 10}, "leaves none of 10 classes"),
        ({"unseen_classes": [str(i) for i in range(10)]}, "names all 10 classes"),
        ({"label_fraction": 1.5}, "data.label_fraction=1.5 is out of range"),
        ({"label_fraction": -0.5}, "data.label_fraction=-0.5 is no share"),
        ({"label_fraction": [1, 0.5]}, r"gives 2 levels, and digits has 1 \(digit\)"),
        ({"dataset": "fashion_mnist", "label_fraction": [0.1, 0.5]}, "more fine labels than coarse"),
        ({"dataset": "custom", "no_labels": True, "label_fraction": 0.1}, "data.label_fraction needs labels"),
        ({"dataset": "custom", "no_labels": True, "unseen_classes": 1}, "data.unseen_classes needs labels"),
    ],
)
def test_refusals(pretrain_cfg, keys, message):
    with pytest.raises(UserError, match=message):
        pretrain_cfg(data=data(**keys))
