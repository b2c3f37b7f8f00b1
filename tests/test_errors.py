from __future__ import annotations

import pytest

from solo.args.fields import walk
from solo.args.schema import PretrainCfg
from solo.data.catalogue.registry import DATASETS
from solo.errors import closest
from solo.methods.catalogue import CATALOGUE

KEYS = [name for name, _ in walk(PretrainCfg)]
TYPES = ["standard", "HEX_fixed", "HEX_adaptive", "superclass", "HCL", "DCL", "InfoNCE"]


@pytest.mark.fault(1, "`epochs=3`, `bs=64`, `type=hex`, `digit`, `fashion`, `moco`", "the right word is suggested")
@pytest.mark.parametrize(
    ("word", "names", "expected"),
    [
        ("epochs", KEYS, "max_epochs"),
        ("num_epochs", KEYS, "max_epochs"),
        ("maxepochs", KEYS, "max_epochs"),
        ("bs", KEYS, "optimizer.batch_size"),
        ("batch_size", KEYS, "optimizer.batch_size"),
        ("learning_rate", KEYS, "optimizer.lr"),
        ("optimizer.wd", KEYS, "optimizer.weight_decay"),
        ("workers", KEYS, "data.num_workers"),
        ("data.root", KEYS, "data.train_path"),
        ("gpus", KEYS, "devices"),
        ("optimizer.lrr", KEYS, "optimizer.lr"),
        ("hex", TYPES, "HEX_adaptive"),
        ("Hex-Adaptive", TYPES, "HEX_adaptive"),
        ("adaptve", TYPES, "HEX_adaptive"),
        ("digit", DATASETS, "digits"),
        ("FashionMNIST", DATASETS, "fashion_mnist"),
        ("cifar-10", DATASETS, "cifar10"),
        ("tiny_imagenet", DATASETS, "tinyimagenet200"),
        ("simcl", CATALOGUE, "simclr"),
        ("barlow", CATALOGUE, "barlow_twins"),
        ("moco_v2", CATALOGUE, "mocov2plus"),
        ("simcrl.yaml", ["hex.yaml", "simclr.yaml"], "simclr.yaml"),
        ("byol_", ["hex", "byol"], "byol"),
        ("fp16", ["16-mixed", "bf16", "32-true"], "16-mixed"),
        ("half", ["16-mixed", "bf16", "32-true"], "16-mixed"),
        ("xyz", KEYS, None),
        ("x" * 100_000, KEYS, None),
    ],
)
def test_what_was_meant(word, names, expected):
    assert closest(word, names) == expected
