from __future__ import annotations

import copy

import pytest
from omegaconf import DictConfig, OmegaConf

from solo.args import linear, pretrain
from solo.args.parse import parse
from solo.args.schema import LinearCfg, PretrainCfg
from solo.args.show import describe
from solo.errors import ConfigError


def parsed(values, schema=PretrainCfg, **kwargs):
    return parse(values, schema, **kwargs).values


def refusal(values, schema=PretrainCfg, **kwargs):
    with pytest.raises(ConfigError) as error:
        parse(values, schema, **kwargs)
    return str(error.value)


def test_parse_cfg_changes_and_returns_its_argument(pretrain_values):
    cfg = OmegaConf.create(pretrain_values | {"type": "HEX_adaptive", "sync_batchnorm": True})
    out = pretrain.parse_cfg(cfg)
    assert out is cfg and isinstance(out, DictConfig)
    assert "type" not in cfg and cfg.hex.policy == "adaptive"
    assert cfg.data.num_classes == 100 and cfg.data.num_large_crops == 2 and cfg.data.num_small_crops == 0
    assert cfg.data.channels == 3 and cfg.data.mean == [0.5071, 0.4865, 0.4409]
    assert cfg.optimizer.lr == pytest.approx(0.1) and cfg.optimizer.classifier_lr == pytest.approx(0.025)
    assert cfg.optimizer.kwargs == {"momentum": 0.9, "eta": 1e-3, "clip_lr": False, "exclude_bias_n_norm": False}
    assert cfg.sync_batchnorm is True and cfg.devices == [0]


@pytest.mark.parametrize("phase", ["pretrain", "linear"])
def test_twice_is_once(phase, pretrain_values, linear_values):
    module, values = (pretrain, pretrain_values) if phase == "pretrain" else (linear, linear_values)
    cfg = module.parse_cfg(OmegaConf.create(values))
    once = OmegaConf.to_container(cfg)
    assert OmegaConf.to_container(module.parse_cfg(cfg)) == once


def test_struct_configs_are_accepted(pretrain_values):
    cfg = OmegaConf.create(pretrain_values)
    OmegaConf.set_struct(cfg, True)
    assert pretrain.parse_cfg(cfg).optimizer.lr_scaled


def test_errors_are_assertions_too(pretrain_values):
    pretrain_values["data"]["dataset"] = "cifar1000"
    with pytest.raises(AssertionError, match="did you mean 'cifar100'"):
        pretrain.parse_cfg(OmegaConf.create(pretrain_values))
    with pytest.raises(ConfigError, match="data.dataset='cifar1000' is unknown"):
        pretrain.add_and_assert_dataset_cfg(OmegaConf.create(pretrain_values))


def test_linear_scales_without_classifier_lr(linear_values):
    cfg = linear.parse_cfg(OmegaConf.create(linear_values))
    assert cfg.optimizer.lr == pytest.approx(0.6) and "classifier_lr" not in cfg.optimizer
    assert cfg.data.mean is None  # the checkpoint's


@pytest.mark.parametrize(("devices", "nodes", "factor"), [([0, 1], 1, 0.5), (4, 1, 1.0), ("0,1", 3, 1.5)])
def test_global_batch(pretrain_values, devices, nodes, factor):
    values = parsed(pretrain_values | {"devices": devices, "num_nodes": nodes, "accumulate_grad_batches": 8})
    assert values["optimizer"]["lr"] == pytest.approx(0.4 * factor)
    assert values["scheduler"]["warmup_start_lr"] == 3e-5


@pytest.mark.parametrize(
    ("dataset", "val_path", "scaled"), [("cifar10", None, False), ("cifar10", ".", True), ("digits", None, True)]
)
def test_classifier_lr_without_validation_path(pretrain_values, dataset, val_path, scaled):
    pretrain_values["data"] |= {"dataset": dataset, "val_path": val_path}
    result = parse(pretrain_values, PretrainCfg)
    assert result.values["optimizer"]["classifier_lr"] == pytest.approx(0.025 if scaled else 0.1)
    assert bool(result.notes) is not scaled


def test_the_folder_of_a_fetched_data_set_validates_as_well(pretrain_values):
    pretrain_values["data"] |= {"dataset": "cifar10", "train_path": "datasets", "val_path": None}
    result = parse(pretrain_values, PretrainCfg)
    assert result.values["data"]["val_path"] == "datasets"
    assert result.values["optimizer"]["classifier_lr"] == 0.1 and result.notes
    assert parsed(result.values) == result.values
    pretrain_values["data"]["train_path"] = None
    assert parsed(pretrain_values)["data"]["val_path"] is None


def test_classifier_lr_follows_lr(pretrain_values):
    del pretrain_values["optimizer"]["classifier_lr"]
    assert parsed(pretrain_values)["optimizer"]["classifier_lr"] == pytest.approx(0.1)


def test_small_crops_and_sizes_from_the_data_set(pretrain_values):
    pretrain_values["augmentations"] = [{"num_crops": 1}, {"num_crops": 1}, {"num_crops": 6, "crop_size": 18}]
    values = parsed(pretrain_values)
    assert [entry["crop_size"] for entry in values["augmentations"]] == [32, 32, 18]
    assert (values["data"]["num_large_crops"], values["data"]["num_small_crops"]) == (2, 6)
    assert values["augmentations"][2]["std"] == values["data"]["std"]


def test_own_images(pretrain_values, tmp_path):
    for name in ("cats", "dogs", "owls"):
        (tmp_path / name).mkdir()
    pretrain_values["data"] = {"dataset": "custom", "train_path": str(tmp_path)}
    pretrain_values["augmentations"][0] |= {"crop_size": 64, "mean": [0.5, 0.5, 0.5]}
    data = parsed(pretrain_values)["data"]
    assert data["num_classes"] == 3 and data["image_size"] == 64
    assert data["mean"] == [0.5, 0.5, 0.5] and data["std"] == [0.229, 0.224, 0.225]
    pretrain_values["data"]["no_labels"] = True
    assert parsed(pretrain_values)["data"]["num_classes"] == 1


@pytest.mark.parametrize("devices", [0, -2, "two", "0,x", [], "", True])
def test_devices_that_can_not_be(pretrain_values, devices):
    assert refusal(pretrain_values | {"devices": devices}).startswith("devices=")


def test_config_of_the_hex_fork(pretrain_values):
    pretrain_values |= {"type": "adaptive", "warm_epoch": 10, "distance_thresh": 0.9, "distance_min": 0.3, "beta": 1}
    pretrain_values |= {"epoch_step": 100, "step_type": "step", "step_down": 0.1, "tau_plus": 0.1, "precision": 16}
    pretrain_values |= {"ntasks-per-node": 1, "checkpoint": {"enabled": True, "dir": "", "save_constant": True}}
    pretrain_values["data"] |= {"train_path": "", "val_path": "", "format": "image_folder"}
    result = parse(pretrain_values, PretrainCfg)
    assert result.values["hex"] | {"policy": "adaptive", "warm_epoch": 10, "step_down": 0.1} == result.values["hex"]
    assert len(result.notes) == 3  # two dead keys, classifier_lr


def test_no_augmentations(pretrain_values):
    assert "augmentations is missing" in refusal(pretrain_values | {"augmentations": []})


def test_method_kwargs(pretrain_values):
    pretrain_values["method_kwargs"] = {"proj_hidden_dm": 3, "proj_output_dim": "x", "momentum_classifier": None}
    lines = refusal(pretrain_values).splitlines()
    assert len(lines) == 4  # one unknown, one wrong, two missing; the known dead key is none
    assert any("did you mean 'method_kwargs.proj_hidden_dim'?" in line for line in lines)
    assert "method='mocov4' is unknown" in refusal(pretrain_values | {"method": "mocov4", "method_kwargs": {}})
    assert "did you mean 'simclr'?" in refusal(pretrain_values | {"method": "SimCRL"})


@pytest.mark.parametrize(
    ("kind", "epochs"), [("HEX_adaptive", 10), ("superclass", 10), ("HCL", 0), ("DCL", 0), ("InfoNCE", 0)]
)
def test_published_losses_have_no_warm_up_of_their_own(pretrain_values, kind, epochs):
    assert parsed(pretrain_values | {"type": kind})["hex"]["warm_epoch"] == epochs
    assert parsed(pretrain_values | {"type": kind, "warm_epoch": 3})["hex"]["warm_epoch"] == 3


@pytest.mark.parametrize("kind", ["HCL", "InfoNCE"])
def test_the_release_variant_needs_hierarchy_negatives(pretrain_values, kind):
    assert "='release' has no meaning" in refusal(pretrain_values | {"type": kind, "hex": {"variant": "release"}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"layer_decay": 0.75}}, "optimizer.layer_decay does nothing on a frozen backbone"),
        ({"data": {"cache_features": True}, "mixup": 0.8}, "mixup changes images"),
        ({"data": {"dataset": "fashion_mnist"}, "auto_augment": True}, "is for colour pictures"),
    ],
)
def test_evaluation_settings_that_would_do_nothing_are_refused(linear_values, changes, words):
    for name, value in changes.items():
        linear_values[name] = {**linear_values[name], **value} if isinstance(value, dict) else value
    assert words in refusal(linear_values, LinearCfg)


def test_superclass_needs_levels(pretrain_values):
    values = pretrain_values | {"type": "superclass"}
    assert parsed(values)["hex"]["policy"] == "superclass"
    assert "did you mean 'superclass'?" in refusal(values | {"hex": {"level": "superclas"}})
    assert "give 0 (coarsest) to 1" in refusal(values | {"hex": {"level": 2}})
    values["data"]["dataset"] = "cifar10"
    assert "needs a label tree" in refusal(values)


def test_samplers_need_labels_levels_and_batches_that_fit(pretrain_values):
    def data(batch_size=64, **keys):
        return pretrain_values | {
            "data": pretrain_values["data"] | keys,
            "optimizer": pretrain_values["optimizer"] | {"batch_size": batch_size},
        }

    assert parsed(data(sampler="pxk", sampler_level="superclass", per_class=4))["data"]["per_class"] == 4
    assert "did you mean 'superclass'?" in refusal(data(sampler="balanced", sampler_level="superclas"))
    assert "give 0 (coarsest) to 1" in refusal(data(sampler="pxk", sampler_level=2))
    assert "data.per_class=5 must divide optimizer.batch_size=64" in refusal(data(sampler="pxk", per_class=5))
    many = refusal(data(sampler="pxk", sampler_level=0, per_class=2))
    assert "data.per_class=2 makes batches of 32 classes, and there are 20" in many
    assert "a partner at each level are 3 images" in refusal(data(batch_size=2, sampler="hierarchical"))
    nameless = data(sampler="hierarchical", dataset="custom", no_labels=True)
    assert "data.sampler='hierarchical' needs labels" in refusal(nameless)


def test_places_and_spelling(pretrain_values):
    places = {"": "x.yaml", "distance_thresh": "x.yaml:3", "augmentations": "x.yaml:7", "optimizer": "x.yaml:9"}
    values = pretrain_values | {"distance_thresh": 7}
    values["augmentations"][0]["num_crops"] = 0
    del values["optimizer"]["lr"], values["max_epochs"]
    lines = refusal(values, origins=places).splitlines()
    assert "x.yaml: max_epochs is missing; give int: epochs to train" in lines
    assert "x.yaml:3: distance_thresh=7 is out of range; give a number >= -1 and <= 1" in lines
    assert "x.yaml:7: augmentations[0].num_crops=0 is out of range; give a number >= 1" in lines
    assert any(line.startswith("x.yaml:9: optimizer.lr is missing") for line in lines)


def test_origins(pretrain_values):
    origins = parse(
        pretrain_values | {"type": "HEX_fixed"}, PretrainCfg, {"": "x", "type": "x:1", "optimizer.lr": "x:2"}
    ).origins
    assert origins["hex.policy"] == "x:1 (type)"
    assert origins["optimizer.lr"] == "x:2, x global batch 64 / 256"
    assert origins["data.num_classes"] == "data set cifar100"
    assert origins["data.num_large_crops"] == "derived"


@pytest.mark.parametrize("key", ["train_path", "val_path"])
def test_folders_are_looked_at_before_a_run(pretrain_values, tmp_path, key):
    good = tmp_path / "good"
    (good / "cats").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for wrong, text in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "empty", "nothing")):
        data = {"dataset": "custom", "train_path": str(good), "val_path": str(good), key: str(wrong)}
        assert text in refusal(pretrain_values | {"data": data}, for_run=True)
        assert f"data.{key}" in refusal(pretrain_values | {"data": data}, for_run=True)
    data = {"dataset": "custom", "train_path": None, "val_path": None}
    assert "data.train_path is missing" in refusal(pretrain_values | {"data": data}, for_run=True)


def test_checkpoints_are_looked_for_before_a_run(linear_values, tmp_path):
    (tmp_path / "run").mkdir()
    for wrong, text in (("no.ckpt", "does not exist"), ("run", "without *.ckpt")):
        values = linear_values | {"pretrained_feature_extractor": str(tmp_path / wrong)}
        assert text in refusal(values, LinearCfg, for_run=True)
    (tmp_path / "run" / "last.ckpt").touch()
    for right in ("run", "run/last.ckpt"):
        parse(linear_values | {"pretrained_feature_extractor": str(tmp_path / right)}, LinearCfg, for_run=True)


def test_two_full_size_views(pretrain_values):
    pretrain_values["augmentations"][0]["num_crops"] = 1
    assert "augmentations make 1 full-size views" in refusal(pretrain_values, for_run=True)
    pretrain_values["augmentations"] = [
        {"num_crops": 1, "crop_size": 32},
        {"num_crops": 1},
        {"num_crops": 4, "crop_size": 9},
    ]
    parse(pretrain_values, PretrainCfg, for_run=True)


@pytest.mark.parametrize(
    ("method", "kwargs", "line"),
    [
        ("nnclr", {"pred_hidden_dim": 8, "queue_size": 512}, "negatives per anchor 63 = 64 - 1"),
        ("mocov2plus", {"queue_size": 512}, "negatives per anchor 512, the queue"),
    ],
)
def test_describe_counts_the_negatives_of_each_method(pretrain_values, method, kwargs, line):
    values = pretrain_values | {"method": method, "method_kwargs": pretrain_values["method_kwargs"] | kwargs}
    values["optimizer"] = values["optimizer"] | {"batch_size": 64}
    assert describe(parsed(values))[2] == line


def test_describe(pretrain_values):
    lines = describe(parsed(pretrain_values | {"devices": 2, "accumulate_grad_batches": 4}))
    assert lines == [
        "global batch 128 = 64 for each process x 2 processes",
        "learning rate 0.2 (scaled by 128 / 256), x 4 for 4 accumulated batches",
        "negatives per anchor 254 = 2 views x 128 - 2; accumulating batches adds none (accumulate=exact would)",
    ]


def test_parse_cfg_leaves_a_callers_own_method_alone(pretrain_values):
    own = {"method": "mine", "method_kwargs": {"width": 3}}
    cfg = pretrain.parse_cfg(OmegaConf.create(pretrain_values | own))
    assert cfg.method == "mine" and cfg.method_kwargs == {"width": 3} and cfg.optimizer.lr == pytest.approx(0.1)
    assert "method='mine' is unknown" in refusal(pretrain_values | own)


@pytest.mark.parametrize("module", [pretrain, linear])
def test_public_names(module, pretrain_values):
    assert module._N_CLASSES_PER_DATASET["imagenet100"] == 100
    assert {"cifar10", "cifar100", "stl10", "imagenet", "imagenet100", "custom"} <= set(module._SUPPORTED_DATASETS)
    cfg = OmegaConf.create({"data": copy.deepcopy(pretrain_values["data"]), "type": "standard"})
    assert module.add_and_assert_dataset_cfg(cfg).data.format == "image_folder"
    assert module.add_and_assert_wandb_cfg(cfg).wandb.enabled is False
    assert module.add_and_assert_lightning_cfg(cfg).seed == 5 and cfg.num_nodes == 1
    assert "optimizer" not in cfg
