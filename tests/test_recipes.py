"""Every recipe, in a file or composed, is valid and holds the right numbers."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.cli import COMMANDS, main
from solo.methods.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
FOLDERS_OF_PARTS = ("augmentations", "methods", "large", "parts")
BASES = ("data.yaml", "methods.yaml")  # what others build on
FILES = sorted(SCRIPTS.rglob("*.yaml"))
RECIPES = [
    path
    for path in FILES
    if len(path.relative_to(SCRIPTS).parts) == 3 and path.parent.name not in FOLDERS_OF_PARTS and path.name not in BASES
]
PARTS = [path for path in FILES if path not in RECIPES]
METHODS = {facts.recipe or name for name, facts in CATALOGUE.items()}
PUBLISHED = (Path(__file__).parent / "solo_learn_recipes.txt").read_text().splitlines()[1:]
# The HEX paper's Table 6: file -> optimizer, lr, weight decay, and what is said of the heads.
TABLE_6 = {
    "simclr": ("lars", 0.4, 1e-5, {"proj_hidden_dim": 2048, "proj_output_dim": 128, "temperature": 0.1}),
    "nnclr": ("lars", 1.0, 1e-5, {"pred_hidden_dim": 4096, "queue_size": 98304, "temperature": 0.2}),
    "all4one": ("lars", 1.0, 1e-5, {"pred_hidden_dim": 4096, "queue_size": 98304, "temperature": 0.2}),
    "barlow": ("lars", 0.3, 1e-4, {"proj_hidden_dim": 2048, "proj_output_dim": 2048, "scale_loss": 0.1}),
    "byol": ("lars", 1.0, 1e-5, {"proj_hidden_dim": 4096, "proj_output_dim": 256, "pred_hidden_dim": 4096}),
    "mocov2plus": ("sgd", 0.3, 1e-4, {"proj_output_dim": 256, "queue_size": 65536, "temperature": 0.2}),
    "vicreg": ("lars", 0.3, 1e-4, {"sim_loss_weight": 25, "var_loss_weight": 25, "cov_loss_weight": 1}),
    "simsiam": ("sgd", 0.5, 1e-5, {"proj_hidden_dim": 2048, "proj_output_dim": 2048, "pred_hidden_dim": 512}),
}


OLD = (Path(__file__).parent / "old_recipes.txt").read_text().splitlines()[1:]


def relative(path):
    return str(path.relative_to(SCRIPTS))


def command(path):
    phase = path.relative_to(SCRIPTS).parts[0]
    return "linear" if phase == "finetune" else phase


def written(path):
    phase, data = path.relative_to(SCRIPTS).parts[:2]
    words = [] if phase == "pretrain" else ["pretrained_feature_extractor=x.ckpt"]
    words += [f"data.{key}={SCRIPTS}" for key in ("train_path", "val_path")] if data == "custom" else []
    return compose(find_recipe([str(path.parent), path.name], command(path)), words)


def read(path):
    values, origins = written(path)
    return parse(values, COMMANDS[command(path)].schema, origins)


def flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_few_files_and_one_to_edit_for_each_data_set():
    folders = [path.parent for path in SCRIPTS.glob("pretrain/*/data.yaml")]
    most = 160 + 2 * (len(folders) - 22)  # a further data set has two: data.yaml and hex.yaml
    assert sum(path.is_file() for path in SCRIPTS.rglob("*") if "__pycache__" not in path.parts) <= most
    assert len(folders) > 20 and all((folder / "hex.yaml").is_file() for folder in folders)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("line", OLD, ids=lambda line: line.split()[0])
def test_every_recipe_that_once_was_a_file(line):
    """It comes to the same as it did; `solo recipe` shows what a changed digest is about."""
    name, expected = line.split()
    path = SCRIPTS / f"{name}.yaml"
    values, origins = written(path)
    if path.parent.name == "custom":
        values["data"] = {key: value for key, value in values["data"].items() if not key.endswith("_path")}
    text = json.dumps(values, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == expected, text
    assert values["data"]["dataset"] == path.parent.name
    assert set(dict(flat(values))) <= {re.sub(r"\[.*", "", key) for key in origins} | {"augmentations"}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_recipe(path):
    folder, file = path.parent.relative_to(ROOT), path.name
    program = "solo evaluate" if command(path) == "evaluate" else f"python main_{command(path)}.py"
    assert path.read_text().splitlines()[0].startswith(f"# {program} {folder} {file}")
    parsed = read(path)
    assert [note for note in parsed.notes if not re.search("is not scaled|left out, for", note)] == []
    if command(path) not in ("pretrain", "linear"):
        return
    assert parsed.values["checkpoint"]["enabled"] and not parsed.values["wandb"]["enabled"]
    assert parsed.values["devices"] == 1
    queue = parsed.values.get("method_kwargs", {}).get("queue_size")
    assert not queue or queue % parsed.values["optimizer"]["batch_size"] == 0


@pytest.mark.parametrize("path", PARTS, ids=relative)
def test_shared_part(path):
    first, second = path.read_text().splitlines()[:2]
    comment = second if first == "# @package _global_" else first
    assert comment.startswith("# ")


def test_parts_are_all_used():
    views = OmegaConf.to_container(OmegaConf.load(SCRIPTS / "pretrain/views.yaml"))
    methods = {path.stem for path in SCRIPTS.glob("pretrain/methods/*.yaml")}
    rows = set(OmegaConf.load(SCRIPTS / "pretrain/methods.yaml"))
    assert not methods & rows, "a method has a file or a row"
    methods |= {name for name in rows if not name.startswith("continue_")}
    assert methods == set(views["methods"]) == METHODS
    named = {name for kind in views.values() for name in kind.values()} | {"digits"}
    assert named == {path.stem for path in SCRIPTS.glob("pretrain/augmentations/*.yaml")}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: line.split()[0])
def test_numbers_are_solo_learns(line):
    name, *words = line.split()
    expected = OmegaConf.to_container(OmegaConf.from_dotlist(words))
    ours = dict(flat(written(SCRIPTS / f"{name}.yaml")[0]))
    for key, value in flat(expected):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert ours[key] == (pytest.approx(value, rel=1e-9) if number else value), key


@pytest.mark.parametrize("name", TABLE_6)
@pytest.mark.parametrize(
    ("folder", "prefix", "epochs"), [("cifar100", "", 400), ("cifar10", "paper_", 400), ("imagenet", "paper_", 100)]
)
def test_numbers_are_the_hex_papers(folder, prefix, epochs, name):
    values = written(SCRIPTS / "pretrain" / folder / f"{prefix}{name}.yaml")[0]
    optimizer, lr, weight_decay, kwargs = TABLE_6[name]
    ours = values["optimizer"]
    assert (ours["name"], ours["lr"], float(ours["weight_decay"])) == (optimizer, lr, weight_decay)
    assert ours["batch_size"] == 256 and values["backbone"]["name"] == "resnet50" and values["max_epochs"] == epochs
    assert {key: values["method_kwargs"][key] for key in kwargs} == kwargs
    assert values.get("accumulate_grad_batches", 1) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cars/paper_hex_nnclr", {"type": "HEX_adaptive", "optimizer.lr": 1.0, "method_kwargs.queue_size": 4096}),
        ("cars/hex_nnclr", {"type": "HEX_adaptive", "optimizer.lr": 0.4, "method_kwargs.queue_size": 4096}),
        ("inat21/paper_hex", {"type": "HEX_adaptive", "optimizer.lr": 0.4, "method_kwargs.proj_output_dim": 128}),
        ("cifar10/paper", {"method": "simclr", "method_kwargs.temperature": 0.1, "optimizer.weight_decay": 1e-5}),
        ("cifar10/simclr", {"method_kwargs.temperature": 0.2, "backbone.name": "resnet18", "max_epochs": 1000}),
        ("cifar10/paper_nnclr_vit", {"optimizer.lr": 1.0, "backbone.name": "vit_small"}),
        ("cifar100/sololearn_nnclr", {"optimizer.lr": 0.4, "max_epochs": 1000, "backbone.name": "resnet18"}),
        ("inshop/simclr", {"finetune_layers": ["layer4"], "optimizer.name": "sgd", "optimizer.batch_size": 512}),
        ("modelnet40/paper_simclr", {"optimizer.name": "lars", "method_kwargs.temperature": 0.1}),
    ],
)
def test_both_settings_are_there_where_papers_differ(name, expected):
    values = dict(flat(read(SCRIPTS / "pretrain" / f"{name}.yaml").values)) | dict(
        flat(written(SCRIPTS / "pretrain" / f"{name}.yaml")[0])
    )
    assert {key: values.get(key) for key in expected} == expected


HEX = [line.split()[0] for line in OLD if "/hex" in line]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", HEX)
def test_hex_differs_from_its_base_in_hex_only(name):
    path = SCRIPTS / f"{name}.yaml"
    other = path.stem.removeprefix("hex").removeprefix("_")
    base = other if other.startswith(("nnclr", "himulcon")) else "_".join(filter(None, ("simclr", other)))
    hex_values, plain = read(path).values, read(path.with_name(f"{base}.yaml")).values
    assert hex_values["hex"]["policy"] == "adaptive" and plain["hex"]["policy"] == "standard"
    assert {key for key in hex_values if hex_values[key] != plain[key]} == {"name", "hex"}


@pytest.mark.fault(3, "a masked method on a data set whose recipe names a ResNet's width", "a ViT, without that width")
@pytest.mark.parametrize("folder", ["digits", "glyphs"])
@pytest.mark.parametrize("name", ["mae", "ijepa", "simclr_vit"])
def test_a_vit_takes_no_kwargs_of_a_resnet(folder, name, capsys):
    assert main(["pretrain", folder, name, "--cfg", "resolved"]) == 0
    shown = capsys.readouterr().out
    assert "backbone.name: vit_small" in shown and "patch_size: 4" in shown and "backbone.kwargs.width" not in shown
