import shutil
import warnings
from functools import partial
from pathlib import Path

import pytest

from solo.args.parse import parse
from solo.args.schema import LinearCfg, PretrainCfg
from solo.run import pretrain


@pytest.fixture(autouse=True)
def no_features_of_other_tests(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tiny_run(root, **more):
    """Settings of a run on digits: a backbone of 0.1 M parameters, two steps an epoch."""
    values = {
        "method": "simclr",
        "method_kwargs": {"proj_hidden_dim": 16, "proj_output_dim": 8, "temperature": 0.2},
        "backbone": {"name": "test_resnet"},
        "data": {"dataset": "digits", "num_workers": 0},
        "augmentations": [{"num_crops": 2}],
        "optimizer": {"name": "sgd", "batch_size": 16, "lr": 0.1},
        "knn_eval": {"enabled": True, "k": 5},
        "type": "HEX_adaptive",
        "warm_epoch": 1,
        "checkpoint": {"enabled": True, "dir": str(root)},
        "accelerator": "cpu",
        "limit_train_batches": 2,
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
        "max_epochs": 2,
    }
    return parse({**values, **more}, PretrainCfg).config


@pytest.fixture
def pretrain_cfg(tmp_path):
    return partial(tiny_run, tmp_path)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    with warnings.catch_warnings():
        return pretrain.run(tiny_run(root)).folder


@pytest.fixture
def pretrained(finished_run, tmp_path):
    """The folder of a run of two epochs that has finished, a copy of the test's own."""
    return Path(shutil.copytree(finished_run, tmp_path / "simclr" / finished_run.name))


@pytest.fixture
def linear_cfg(tmp_path):
    def make(checkpoint, **more):
        values = {
            "pretrained_feature_extractor": str(checkpoint),
            "data": {"dataset": "digits", "num_workers": 0},
            "optimizer": {"name": "sgd", "batch_size": 64, "lr": 0.1},
            "scheduler": {"name": "step", "lr_decay_steps": [1]},
            "checkpoint": {"enabled": True, "dir": str(tmp_path)},
            "accelerator": "cpu",
            "limit_train_batches": 2,
            "max_epochs": 2,
        }
        return parse({**values, **more}, LinearCfg).config

    return make
