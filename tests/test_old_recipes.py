"""YAML files in solo-learn's own form: all of its pretraining recipes compose and parse, some of them train."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.cli import main

LINES = (Path(__file__).parent / "solo_learn_recipes.txt").read_text().splitlines()[1:]
ROWS = [line.removeprefix("pretrain/").split() for line in LINES if line.startswith("pretrain/")]
PRETRAIN = {name: words for name, *words in ROWS}
HYDRA = [{"override hydra/hydra_logging": "disabled"}, {"override hydra/job_logging": "disabled"}]


def group(size, num_crops):
    """An augmentation group: a bare list, with the words that were never read."""
    colours = {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    sometimes = {name: {"enabled": True, "prob": 0.2} for name in ("grayscale", "gaussian_blur", "solarization")}
    rest = {"equalization": {"enabled": False, "prob": 0}, "horizontal_flip": {"prob": 0.5}}
    rrc = {"enabled": True, "crop_min_scale": 0.08, "crop_max_scale": 1.0}
    sizes = {"crop_size": size, "num_crops": num_crops}
    return [{"rrc": rrc, "color_jitter": colours, **sometimes, **rest, **sizes}]


def write(folder, name):
    """The recipe as solo-learn would ship it; numbers such as 1e-05 are texts to PyYAML, as they were."""
    values = OmegaConf.to_container(OmegaConf.from_dotlist(PRETRAIN[name]))
    dataset = name.split("/")[0]
    recipe = {
        "defaults": ["_self_", {"augmentations": "views.yaml"}, {"wandb": "private.yaml"}, *HYDRA],
        "hydra": {"output_subdir": None, "run": {"dir": "."}},
        "name": f"{values['method']}-{dataset}",
        "data": {"dataset": dataset, "train_path": ".", "val_path": ".", "format": "dali", "num_workers": 4},
        "scheduler": {"name": "warmup_cosine"},
        "checkpoint": {"enabled": True, "dir": "trained_models", "frequency": 1},
        "auto_resume": {"enabled": True},
        "devices": [0],
        "sync_batchnorm": True,
        "accelerator": "gpu",
        "strategy": "ddp",
        "precision": "16-mixed",
    }
    recipe = OmegaConf.to_container(OmegaConf.merge(recipe, values))
    views = 1 if values["method"] == "mae" else 2
    files = {
        "recipe.yaml": recipe,
        "augmentations/views.yaml": group(32, views),
        "wandb/private.yaml": {"enabled": True, "entity": "None", "project": "solo-learn"},
    }
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(yaml.safe_dump(content, sort_keys=False))
    return values


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", PRETRAIN)
def test_composes_and_parses(name, tmp_path):
    wanted = write(tmp_path, name)
    parsed = parse(compose(find_recipe([str(tmp_path), "recipe.yaml"]), [])[0], PretrainCfg).values
    assert parsed["method"] == wanted["method"] and parsed["data"]["format"] == "image_folder"
    assert parsed["wandb"]["enabled"] and parsed["wandb"]["entity"] is None
    batch = wanted["optimizer"]["batch_size"]
    assert parsed["optimizer"]["lr"] == pytest.approx(wanted["optimizer"]["lr"] * batch / 256)
    read = {key: value for key, value in wanted["method_kwargs"].items() if key in parsed["method_kwargs"]}
    assert {key: parsed["method_kwargs"][key] for key in read} == read


@pytest.fixture
def pictures(tmp_path):
    for split in ("train", "val"):
        for label in range(2):
            folder = tmp_path / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (40, 40), (60 * index, 90, 120 * label)).save(folder / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize(
    "method", ["simclr", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("swav", "byol"))]
)
def test_trains(method, tmp_path, pictures):
    write(tmp_path, f"imagenet100/{method}")
    words = ["devices=[0]", "accelerator=cpu", "strategy=auto", "precision=32", "max_epochs=1", "++fast_dev_run=True"]
    words += ["backbone.name=resnet10", "++backbone.kwargs.width=8"]
    words += ["optimizer.batch_size=4", "data.num_workers=0", "wandb.enabled=False", "++sync_batchnorm=False"]
    words += [f"data.train_path={pictures / 'train'}", f"data.val_path={pictures / 'val'}"]
    words += [f"checkpoint.dir={tmp_path / 'runs'}", "method_kwargs.proj_hidden_dim=8", "++progress='off'"]
    words += ["method_kwargs.queue_size=8", "method_kwargs.num_prototypes=8"] if method == "swav" else []
    assert main(["pretrain", "--config-path", str(tmp_path), "--config-name", "recipe.yaml", *words]) == 0
    assert list((tmp_path / "runs" / method).rglob("*.ckpt"))
