"""Where features come from: a run without a recipe, models of timm and torchvision, files; and the cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from solo import cli
from solo.args.eval_schema import EvaluateCfg
from solo.args.parse import parse
from solo.data.catalogue.registry import get_spec, layout_of
from solo.eval.features import read_features
from solo.run import features as room

CPU = torch.device("cpu")


@pytest.fixture
def networks(monkeypatch):
    """Names of the splits that a network was run on."""
    ran, extract = [], room.extract

    def spy(network, loader, device, what):
        ran.append(what)
        return extract(network, loader, device, what)

    monkeypatch.setattr(room, "extract", spy)
    return ran


def evaluate(tmp_path, *words):
    before = set((tmp_path / "evaluate").glob("*"))
    common = (f"checkpoint.dir={tmp_path}", "accelerator=cpu", "data.num_workers=0", "measures=[knn]")
    code = cli.main(["evaluate", *words, *(common if not words[0].startswith("features=") else common[::3][:1])])
    if code:
        return code
    (folder,) = set((tmp_path / "evaluate").glob("*")) - before
    return json.loads((folder / "evaluate.json").read_text()), parse(
        yaml.safe_load((folder / "config.yaml").read_text()), EvaluateCfg
    ).config


def test_a_run_says_everything_and_runs_once(pretrained, tmp_path, networks):
    first, cfg = evaluate(tmp_path, f"checkpoint={pretrained}", "feature_type=[backbone,projector]")
    assert networks == ["validation", "training"]
    assert cfg.data.dataset == "digits" and cfg.data.image_size == 16 and cfg.pretrain_method == "simclr"
    again, _ = evaluate(tmp_path, f"checkpoint={pretrained / 'last.ckpt'}", "feature_type=[projector,backbone]")
    alone, _ = evaluate(tmp_path, f"checkpoint={pretrained}")
    assert networks == ["validation", "training"]
    numbers = [{row["feature_type"]: row["levels"] for row in found["results"]} for found in (first, again, alone)]
    assert numbers[0] == numbers[1] and numbers[2]["backbone"] == numbers[0]["backbone"] != numbers[0]["projector"]
    # other images, and another network
    evaluate(tmp_path, f"checkpoint={pretrained}", "data.mean=[0.1]", "data.std=[0.2]")
    assert len(networks) == 4
    saved = torch.load(pretrained / "last.ckpt")
    next(value for name, value in saved["state_dict"].items() if name.startswith("backbone.")).mul_(1.01)
    torch.save(saved, tmp_path / "other.ckpt")
    evaluate(tmp_path, f"checkpoint={tmp_path / 'other.ckpt'}")
    assert len(networks) == 6
    evaluate(tmp_path, f"checkpoint={pretrained}", "cache=false")
    assert len(networks) == 8


def test_kept_features_are_a_source_themselves(pretrained, tmp_path, networks):
    evaluate(tmp_path, f"checkpoint={pretrained}", f"cache_dir={tmp_path / 'kept'}")
    for file in (tmp_path / "kept").iterdir():
        found = read_features(file)
        assert found.train is None and found.val.labels.shape == (len(found.val), 1) and found.levels == ("digit",)
    file.write_bytes(file.read_bytes()[:100])  # a broken one is computed anew
    evaluate(tmp_path, f"checkpoint={pretrained}", f"cache_dir={tmp_path / 'kept'}")
    assert len(networks) == 3


def test_random_and_local_weights_of_timm(tmp_path, networks):
    words = ("model=timm/test_resnet", "data.dataset=digits", "data.image_size=32", "batch_size=512")
    first, cfg = evaluate(tmp_path, *words, "pretrained=false")
    assert cfg.data.channels == 3 and len(cfg.data.mean) == 3 and cfg.backbone.name == "timm/test_resnet"
    again, _ = evaluate(tmp_path, *words, "pretrained=false")
    assert first["results"] == again["results"] and len(networks) == 2  # the seed is the same
    whole = timm.create_model("test_resnet", num_classes=7)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    _, cfg = evaluate(tmp_path, *words, f"pretrained={tmp_path / 'weights.pth'}")
    assert len(networks) == 4 and cfg.pretrained.endswith("weights.pth")
    features = room.load_features(cfg, ["backbone"], CPU)[0]["backbone"]
    assert len(networks) == 4 and features.val.features.shape == (360, whole.num_features)


def test_own_images_without_training_images(tmp_path, networks):
    rng = np.random.default_rng(0)
    for path, level in (("animal/cat", 40), ("animal/dog", 90), ("machine/car", 200)):
        (tmp_path / "images" / path).mkdir(parents=True)
        for index in range(3):
            pixels = np.full((16, 16, 3), level, np.uint8) + rng.integers(0, 30, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / path / f"{index}.png")
    words = ("model=timm/test_resnet", "pretrained=false", "data.dataset=custom", "data.image_size=32")
    found, cfg = evaluate(tmp_path, *words, f"data.val_path={tmp_path / 'images'}")
    assert networks == ["validation"] and cfg.data.val_only
    features = room.load_features(cfg, ["backbone"], CPU)[0]["backbone"]
    assert features.tree.num_levels == 2 and features.train is None and features.class_names(0) == ("animal", "machine")
    assert features.val.paths[0].endswith("animal/cat/0.png") and len(features.val.paths) == 9
    Image.new("RGB", (16, 16)).save(tmp_path / "images/animal/cat/0.png")  # an image changes: nothing old is taken
    room.load_features(cfg, ["backbone"], CPU)
    assert len(networks) == 2


def test_images_without_labels(tmp_path, capsys, networks):
    for index in range(4):
        Image.new("RGB", (16, 16), (index * 60, 0, 0)).save(tmp_path / f"{index}.png")
    words = ("model=timm/test_resnet", "pretrained=false", "data.dataset=custom", "data.image_size=32")
    more = ("data.no_labels=true", f"data.val_path={tmp_path}", "data.num_workers=0", "accelerator=cpu")
    for _ in range(2):
        assert cli.main(["evaluate", *words, *more]) == 1
        assert "has no labels to measure features by; solo analyze works without" in capsys.readouterr().err
    assert networks == ["validation"]  # the second time they were kept


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["k=3"], 2, "is missing; give checkpoint=PATH, model=timm/NAME or features=FILE"),
        (["model=timm/x", "features=x.npz", "data.dataset=digits"], 2, "are both given; take one of"),
        (["features=x.npz", "data.dataset=digits"], 2, "data.dataset has no place beside features=FILE"),
        (["model=timm/resnet18"], 2, "data.dataset is missing (a published model has none)"),
        (["features=none.npz"], 1, "features=none.npz doesn't exist"),
        (["checkpoint=none.ckpt", "data.dataset=digits"], 2, "does not exist; give a checkpoint file"),
        (["model=timm/nosuchnet", "data.dataset=digits", "pretrained=false"], 1, "is unknown to timm"),
        (["model=resnet18", "data.dataset=digits"], 1, "give timm/NAME or torchvision/NAME"),
        (["model=torchvision/resnet18", "data.dataset=digits", "data.channels=1"], 1, "takes images of 3 channels"),
        (["model=torchvision/no", "data.dataset=digits"], 1, "is unknown to torchvision"),
        (["model=timm/test_resnet", "data.dataset=digits", "pretrained=no.safetensors"], 1, "doesn't exist"),
        (
            ["model=timm/test_resnet", "data.dataset=digits", "pretrained=false", "feature_type=projector"],
            1,
            "has no projector; set feature_type=backbone",
        ),
        (["--", "~data.dataset"], 2, "command line"),
    ],
)
def test_wrong_sources(tmp_path, capsys, words, code, text):
    assert cli.main(["evaluate", *words]) == code
    (error,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: "))
    assert text in error


def test_several_labels_of_voc_are_columns(tmp_path):
    root = tmp_path / "VOC2007"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    for label in layout_of(get_spec("voc2007")).several:
        for split, first in (("trainval", 0), ("test", 6)):
            signs = {"person": (1, -1, 1), "dog": (-1, 1, 0)}.get(label, (-1, -1, -1)) * 2
            rows = "".join(f"{first + i:06d} {sign:2d}\n" for i, sign in enumerate(signs))
            (root / "ImageSets" / "Main" / f"{label}_{split}.txt").write_text(rows)
    for i in range(12):
        Image.new("RGB", (40, 40), (40 * (i % 3), 90, 255 - 20 * (i % 3))).save(root / "JPEGImages" / f"{i:06d}.jpg")
    words = [
        "model=timm/test_resnet",
        "pretrained=false",
        "data.image_size=32",
        "data.num_workers=0",
        "accelerator=cpu",
    ]
    words += ["data.dataset=voc2007", f"data.train_path={root}", "measures=[linear]", f"checkpoint.dir={tmp_path}"]
    assert cli.main(["evaluate", *words]) == 0
    (result,) = json.loads(next(tmp_path.glob("evaluate/*/evaluate.json")).read_text())["results"]
    levels = {level["level"]: level for level in result["levels"]}
    assert len(levels) == 20 and (levels["dog"]["images"], levels["dog"]["unknown"], levels["person"]["images"]) == (
        4,
        2,
        6,
    )
    assert levels["dog"]["linear_ap"] == 100 and levels["sofa"]["linear_ap"] is None  # nobody has it
    assert result["several"]["map"] == result["several"]["map_11"] == 100 and result["several"]["labels"] == 20
