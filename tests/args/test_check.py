from __future__ import annotations

from typing import Any, Literal

import pytest

from solo.args.fields import check
from solo.args.schema import LinearCfg, PretrainCfg


def problems_of(values, schema=PretrainCfg):
    return dict(check(values, schema)[1])


def test_valid_config_gets_all_defaults(pretrain_values):
    checked, problems = check(pretrain_values, PretrainCfg)
    assert problems == []
    assert checked["hex"]["policy"] == "standard"
    assert checked["scheduler"]["warmup_start_lr"] == 3e-5
    assert checked["augmentations"][0]["grayscale"] == {"prob": 0.0, "channels": False}
    assert "precision" not in checked  # Lightning's keys are not filled in


def test_defaults_are_not_shared(pretrain_values):
    first, second = (check(pretrain_values, PretrainCfg)[0] for _ in range(2))
    first["backbone"]["kwargs"]["depth"] = 3
    assert second["backbone"]["kwargs"] == {}


def test_all_problems_together(pretrain_values):
    pretrain_values |= {"methd": "simclr", "precision": "16-mixd", "progress": "loud"}
    pretrain_values["optimizer"] |= {"lrr": 1, "lr": "fast", "name": "sdg"}
    pretrain_values["augmentations"].append({"crop_sizes": 3})
    found = problems_of(pretrain_values)
    assert set(found) == {
        "methd",
        "precision",
        "progress",
        "optimizer.lrr",
        "optimizer.lr",
        "optimizer.name",
        "augmentations[1].crop_sizes",
        "augmentations[1].num_crops",
    }
    assert "did you mean 'method'?" in found["methd"]
    assert "did you mean 'sgd'? choose sgd, lars, adam, adamw" in found["optimizer.name"]
    assert "did you mean 'optimizer.lr'?" in found["optimizer.lrr"] and "weight_decay" in found["optimizer.lrr"]
    assert "'fast'" in found["optimizer.lr"] and "give float" in found["optimizer.lr"]


def test_right_word_in_the_wrong_place(pretrain_values):
    assert "did you mean 'optimizer.batch_size'?" in problems_of(pretrain_values | {"batch_size": 3})["batch_size"]


@pytest.mark.parametrize("missing", [{}, {"lr": "???"}, {"lr": None}, {"lr": "None"}])
def test_required_keys(pretrain_values, missing):
    del pretrain_values["optimizer"]["lr"]
    pretrain_values["optimizer"] |= missing
    assert problems_of(pretrain_values)["optimizer.lr"].startswith(" is missing; give float")


@pytest.mark.parametrize(
    ("section", "key", "written", "read"),
    [
        ("optimizer", "lr", "0.3", 0.3),
        ("optimizer", "lr", 1, 1.0),
        ("optimizer", "batch_size", "32", 32),
        ("optimizer", "batch_size", 64.0, 64),
        ("optimizer", "exclude_bias_n_norm_wd", "true", True),
        ("optimizer", "kwargs", None, {}),
        ("data", "val_path", "None", None),
        ("data", "train_path", "", None),
        ("hex", "level", "superclass", "superclass"),
        ("hex", "level", 1, 1),
        ("scheduler", "lr_decay_steps", [60, "80"], [60, 80]),
    ],
)
def test_conversions(pretrain_values, section, key, written, read):
    pretrain_values.setdefault(section, {})[key] = written
    checked, problems = check(pretrain_values, PretrainCfg)
    assert problems == []
    assert checked[section][key] == read and type(checked[section][key]) is type(read)


@pytest.mark.parametrize(
    ("section", "key", "wrong"),
    [
        ("optimizer", "lr", True),
        ("optimizer", "lr", float("nan")),
        ("optimizer", "lr", -1),
        ("optimizer", "batch_size", 0),
        ("optimizer", "batch_size", 2.5),
        ("optimizer", "kwargs", 3),
        ("hex", "tau_plus", 1),
        ("hex", "quantile", 0),
        ("data", "num_workers", [1]),
        ("data", "no_labels", "perhaps"),
        ("scheduler", "lr_decay_steps", "often"),
        ("momentum", "base_tau", 1.5),
    ],
)
def test_refusals(pretrain_values, section, key, wrong):
    pretrain_values.setdefault(section, {})[key] = wrong
    assert list(problems_of(pretrain_values)) == [f"{section}.{key}"]


@pytest.mark.parametrize("devices", [2, "auto", -1, "0,1", [0, 1]])
def test_forms_of_devices(pretrain_values, devices):
    assert check(pretrain_values | {"devices": devices}, PretrainCfg)[0]["devices"] == devices


def test_sections_must_be_sections(pretrain_values):
    found = problems_of(pretrain_values | {"wandb": "private"})
    assert found == {"wandb": "='private' is no section; give enabled, entity, project, offline"}


def test_linear_schema(linear_values):
    assert check(linear_values, LinearCfg)[1] == []
    assert "scheduler.name" in problems_of(linear_values | {"scheduler": {"name": "cosine"}}, LinearCfg)
    assert check(linear_values | {"scheduler": {"name": "reduce"}}, LinearCfg)[1] == []


def test_own_schema():
    from dataclasses import dataclass

    from solo.args.fields import REQUIRED, key

    @dataclass(kw_only=True)
    class Small:
        size: int = key(REQUIRED, "size", ge=1)
        mode: Literal["a", "b"] | None = key(None, "mode")
        rest: dict[str, Any] = key({}, "rest")

    globals()["Small"] = Small
    checked, problems = check({"size": 2, "mode": "c"}, Small, "small.")
    assert checked == {"size": 2, "mode": None, "rest": {}}
    assert ["".join(problem) for problem in problems] == ["small.mode='c' is unknown; choose a, b"]
