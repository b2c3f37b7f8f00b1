from argparse import ArgumentParser

import pytest

from solo.args.eval_schema import KnnCfg, UmapCfg
from solo.args.parse import parse
from solo.compat import args as flags
from solo.compat.args import has_flags, parse_args_knn, parse_args_umap, read_flags
from solo.errors import ConfigError

DATA = "--dataset cifar10 --train_data_path ./datasets --val_data_path ./datasets"
KNN = f"{DATA} --pretrained_checkpoint_dir DIR --k 1 20 --temperature 0.1 0.2 --distance_function euclidean cosine"


def test_the_contracts_namespaces(monkeypatch):
    monkeypatch.setattr("sys.argv", ["main_knn.py", *KNN.split(), "--feature_type", "backbone", "projector"])
    given = parse_args_knn()
    assert given.k == [1, 20] and given.temperature == [0.1, 0.2] and given.pretrained_checkpoint_dir == "DIR"
    assert (given.batch_size, given.num_workers, given.data_format, given.data_fraction) == (16, 10, "image_folder", -1)
    assert given.feature_type == ["backbone", "projector"] and given.no_labels is False
    monkeypatch.setattr("sys.argv", ["main_umap.py", *DATA.split(), "--ckpt", "FILE", "--mean", "0.5", "0.5", "0.5"])
    given = parse_args_umap()
    assert given.ckpt == "FILE" and given.plot_name == "im100" and given.mean == [0.5] * 3


@pytest.mark.parametrize(
    ("add", "words", "name", "value"),
    [
        (flags.dataset_args, DATA, "dataset", "cifar10"),
        (flags.augmentations_args, "--num_crops_per_aug 2 6 --brightness 0.4", "num_crops_per_aug", [2, 6]),
        (flags.linear_augmentations_args, "--std 1 2 3", "std", [1, 2, 3]),
        (flags.custom_dataset_args, "--no_labels", "no_labels", True),
    ],
)
def test_functions_that_add_words(add, words, name, value):
    parser = ArgumentParser()
    add(parser)
    assert getattr(parser.parse_args(words.split()), name) == value


def test_flags_become_the_config_of_a_recipe():
    values, origins = read_flags("knn", KNN.split())
    parsed = parse(values, KnnCfg, origins)
    assert parsed.notes == []
    assert parsed.values["data"]["train_path"] == "./datasets" and parsed.values["data"]["num_workers"] == 10
    assert parsed.values["k"] == [1, 20] and parsed.values["temperature"] == [0.1, 0.2]
    assert parsed.values["feature_type"] == ["backbone"] and parsed.values["accelerator"] == "auto"
    assert parsed.origins["data.train_path"] == "command line, --train_data_path"
    values, origins = read_flags("umap", [*DATA.split(), "--ckpt", "x.ckpt"])
    parsed = parse(values, UmapCfg, origins)
    assert parsed.values["plot_name"] == "im100" and parsed.values["pretrained_feature_extractor"] == "x.ckpt"


def test_the_two_forms_are_told_apart():
    assert has_flags("knn", ["--dataset=cifar10"]) and has_flags("umap", ["--ckpt", "x"])
    assert not has_flags("knn", ["scripts/knn/digits", "knn.yaml", "--cfg", "resolved"])
    assert not has_flags("pretrain", ["--dataset", "cifar10"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--dataset nonsense", "invalid choice: 'nonsense'"),
        (f"{DATA} k=20", "unrecognized arguments: k=20"),
        (f"{DATA} --k many", "invalid int value: 'many'"),
        (f"{DATA} --ckpt a --pretrained_checkpoint_dir b", "not allowed with argument"),
    ],
)
def test_wrong_words_are_one_line(words, text):
    with pytest.raises(ConfigError, match="^command line: ") as error:
        read_flags("knn", words.split())
    assert text in str(error.value) and "\n" not in str(error.value)


def test_a_single_value_is_a_list_of_one_and_temperature_is_the_commands_own():
    values = {"pretrained_feature_extractor": "x", "data": {"dataset": "digits"}, "k": 5, "temperature": 0.5}
    parsed = parse(values, KnnCfg)
    assert parsed.values["k"] == [5] and parsed.values["temperature"] == [0.5] and "hex" not in parsed.values
