from __future__ import annotations

import os

import pytest

from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.errors import ConfigError


def read(folder, *words, name="simclr.yaml"):
    return compose(find_recipe([str(folder), name]), words)


def refusal(folder, *words, name="simclr.yaml"):
    with pytest.raises(ConfigError) as error:
        read(folder, *words, name=name)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_solo_learn_yaml(recipes):
    values, origins = read(recipes, "max_epochs=30", "++optimizer.kwargs.nesterov=True")
    assert values["augmentations"][0]["color_jitter"]["hue"] == 0.2
    assert values["optimizer"]["weight_decay"] == 1e-4 and values["optimizer"]["kwargs"]["nesterov"] is True
    assert "hydra" not in values and "defaults" not in values
    parsed = parse(values, PretrainCfg, origins)
    assert parsed.values["wandb"]["entity"] is None and parsed.values["max_epochs"] == 30 and parsed.notes == []


def test_origins(recipes):
    _, origins = read(
        recipes, "max_epochs=3", "augmentations.0.num_crops=4", "optimizer={lr: 3}", "scheduler.name=step"
    )
    file = recipes / "simclr.yaml"
    line = file.read_text().splitlines().index("  batch_size: 256") + 1
    assert origins["optimizer.batch_size"] == f"{file}:{line}"
    assert origins["augmentations[0].rrc.enabled"] == f"{recipes / 'augmentations' / 'symmetric.yaml'}:2"
    assert origins["wandb.project"] == f"{recipes / 'wandb' / 'private.yaml'}:3"
    for key in ("max_epochs", "augmentations[0].num_crops", "optimizer.lr", "scheduler.name"):
        assert origins[key] == "command line"


def test_later_files_replace_earlier_ones(recipes):
    (recipes / "hex.yaml").write_text("defaults: [simclr, _self_]\ntype: HEX_adaptive\noptimizer:\n  lr: 1\n")
    (recipes / "own.yaml").write_text("defaults: [simclr, _self_]\naugmentations:\n  - num_crops: 2\n")
    values, origins = read(recipes, name="hex")
    assert values["type"] == "HEX_adaptive" and values["optimizer"]["lr"] == 1
    assert origins["optimizer.lr"] == f"{recipes / 'hex.yaml'}:4"
    assert origins["optimizer.name"].startswith(f"{recipes / 'simclr.yaml'}:")
    values, origins = read(recipes, name="own")
    assert values["augmentations"] == [{"num_crops": 2}]
    assert "augmentations[0].rrc.enabled" not in origins


def test_anchors_have_origins(recipes):
    (recipes / "anchor.yaml").write_text("a: &a {b: 1}\nc:\n  <<: *a\n  d: 2\n")
    values, origins = read(recipes, name="anchor")
    assert values["c"] == {"b": 1, "d": 2}
    assert origins["c.b"] == f"{recipes / 'anchor.yaml'}:1" and origins["c.d"] == f"{recipes / 'anchor.yaml'}:4"


def test_groups_can_be_shared_and_chosen(recipes):
    shared = recipes.parent / "augmentations"
    shared.mkdir()
    (shared / "weak.yaml").write_text("- num_crops: 2\n")
    values, origins = read(recipes, "augmentations=weak")
    assert values["augmentations"] == [{"num_crops": 2}]
    assert origins["augmentations[0].num_crops"] == f"{shared / 'weak.yaml'}:1"
    values, origins = read(recipes, "augmentations=[{num_crops: 3}]")
    assert values["augmentations"] == [{"num_crops": 3}]
    assert origins["augmentations"] == "command line"


@pytest.mark.parametrize("folder", ["a b", "it's", "x=1,2", "(v2)"])
def test_folders_with_strange_names(recipes, folder):
    moved = recipes.rename(recipes.parent / folder)
    assert read(moved)[0]["method"] == "simclr"


def test_finding_recipes(recipes, monkeypatch):
    monkeypatch.chdir(recipes.parent)
    for places in (["cifar", "simclr.yaml"], ["cifar", "simclr"], ["cifar/simclr.yaml"], [str(recipes), "simclr"]):
        assert find_recipe(places).parent == recipes.resolve()
    assert find_recipe(["scripts/pretrain/digits", "hex"]).name == "hex.yaml"  # beside main_pretrain.py


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ([], "no recipe is named"),
        (["cifarr", "simclr.yaml"], "the folder 'cifarr' doesn't exist"),
        (["cifar"], "is a folder; name a file in it as well: choose simclr.yaml"),
        (["cifar", "simcrl.yaml"], "did you mean 'simclr.yaml'?"),
        (["cifar", "all4one.yml"], "rename it"),
        (["cifar/augmentations", "x"], "choose symmetric.yaml"),
    ],
)
def test_recipes_that_are_not_there(recipes, monkeypatch, places, text):
    monkeypatch.chdir(recipes.parent)
    (recipes / "all4one.yml").touch()
    with pytest.raises(ConfigError, match="^[^\n]*$") as error:
        find_recipe(places)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a: 1\n\tb: 2\n", "wrong.yaml:2: this is no YAML"),
        ("a: [1\n", "this is no YAML"),
        ("a: 1\na: 2\n", "duplicate key a"),
        ("- a\n", "it is a list"),
        ("a: ${b}\n", "a: Interpolation key 'b' not found"),
        ("defaults: [nope]\n", "asks for nope.yaml, which isn't there"),
        ("defaults: [simclr]\na: 1\n", "lacks `_self_`"),
        ("defaults: [wrong, _self_]\n", "in a circle"),
        ("a: !!python/object/apply:os.system ['true']\n", "the tag !!python/object/apply:os.system is refused"),
        (b"\xff\xfe\x00", "can't decode"),
    ],
)
def test_files_that_can_not_be_read(recipes, content, text):
    (recipes / "wrong.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert text in refusal(recipes, name="wrong.yaml")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("max_epochs", "'max_epochs' is not key=value"),
        ("a=1,2", "has several values"),
        ("augmentations=nope", "in augmentations there are symmetric"),
        ("name=${oops}", "name: Interpolation key 'oops' not found"),
        ("foo/bar=x", "no file of the group foo/bar"),
    ],
)
def test_words_that_can_not_be_read(recipes, word, text):
    assert text in refusal(recipes, word)


def test_hydra_leaves_nothing_behind(recipes, tmp_path, monkeypatch, caplog):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    read(recipes, "hydra.run.dir=elsewhere")
    assert os.listdir(work) == [] and caplog.records == []


def test_defaults_lists_mean_what_they_mean_to_hydra(recipes):
    files = {
        "augmentations/weak.yaml": "- num_crops: 2\n",
        "parts/small.yaml": "# @package _global_\nmax_epochs: 7\n",
        "parts/here.yaml": "defaults: [deep/inner, _self_]\na: 1\n",
        "parts/deep/inner.yaml": "b: 2\n",
        "own.yaml": "defaults:\n- simclr\n- parts: [small, here]\n- parts/deep/inner@data.x\n"
        "- optional parts: nothing\n- override augmentations: weak\n- override hydra/job_logging: disabled\n- _self_\n"
        "seed: 3\n",
        "moved.yaml": "defaults: [_self_, parts@_global_.optimizer: here]\n",
    }
    for name, text in files.items():
        (recipes / name).parent.mkdir(parents=True, exist_ok=True)
        (recipes / name).write_text(text)
    values, origins = read(recipes, name="own")
    assert values["augmentations"] == [{"num_crops": 2}] and values["max_epochs"] == 7 and values["seed"] == 3
    assert values["parts"] == {"deep": {"b": 2}, "a": 1} and values["data"]["x"] == {"b": 2}
    assert origins["data.x.b"] == f"{recipes / 'parts/deep/inner.yaml'}:1"
    assert read(recipes, name="moved")[0] == {"optimizer": {"deep": {"b": 2}, "a": 1}}
    assert "augmentations" not in read(recipes, "~augmentations", name="simclr")[0]
    assert read(recipes, "+parts=small", name="simclr")[0]["max_epochs"] == 7
    with pytest.raises(ConfigError, match="no file of the group parts"):
        read(recipes, "parts=small", name="simclr")


@pytest.mark.parametrize(
    ("defaults", "words", "expected"),
    [
        ("[_self_, {group: inner}]", [], {"y": 1, "group": {"x": 1, "q": 7}}),  # of an inner file `_self_` is the last
        ("[_self_, {group: a}]", ["+own=e"], {"y": 1, "group": {"x": 2}, "z": 3}),  # its section is that of its files
        ("[_self_, {group: headed}]", [], {"y": 1, "group": {"w": 5}}),
        ("[_self_, {group@_here_: a}]", [], {"y": 1, "x": 1}),
        ("[_self_, {group@_group_.u: a}]", [], {"y": 1, "group": {"u": {"x": 1}}}),
        ("[_self_, {'group@': a}]", [], {"y": 1, "x": 1}),
    ],
)
def test_sections_of_included_files(tmp_path, defaults, words, expected):
    files = {
        "r.yaml": f"defaults: {defaults}\ny: 1\n",
        "group/a.yaml": "x: 1\n",
        "group/b.yaml": "x: 2\n",
        "group/inner.yaml": "defaults: [a]\nq: 7\n",
        "group/headed.yaml": "# @package _group_\nw: 5\n",
        "own/e.yaml": "# @package _global_\ndefaults:\n  - /group: b\n  - _self_\nz: 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert compose(tmp_path / "r.yaml", words)[0] == expected
    (tmp_path / "r.yaml").write_text("defaults: [_self_, {group: a}, {override groop: b}]\n")
    with pytest.raises(ConfigError, match=r"no file of the group groop is in defaults \(groups: group\)"):
        compose(tmp_path / "r.yaml", [])
