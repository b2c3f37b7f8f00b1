"""What `import solo` offers: light to import, the commands as functions, a trained backbone in one's own code."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import solo
from solo.args.compose import compose

TINY = {
    "max_epochs": 1,
    "data": {"fraction": 0.1},
    "optimizer": {"batch_size": 64},
    "backbone": {"kwargs": {"width": 8}},
    "progress": "off",
    "accelerator": "cpu",
}
DIGITS = (load_digits().images[:6] / 16 * 255).astype(np.uint8)


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=Path(solo.__file__).parents[1],
        text=True,
        capture_output=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("source", [None, "", 3, []])
@pytest.mark.parametrize("call", [solo.load, solo.evaluate])
def test_a_source_that_is_none(call, source):
    with pytest.raises(solo.UserError, match="is no model"):
        call(source)


def test_import_solo_loads_nothing():
    clock = (
        "import time\nstart = time.process_time()\nimport solo\nassert time.process_time() - start < 0.05  # seconds"
    )
    loaded = modules_after(clock)
    assert not loaded & {"torch", "numpy", "omegaconf", "yaml"}
    assert {name for name in loaded if name.startswith("solo")} == {"solo", "solo.compat", "solo.compat.paths"}


def test_the_loss_loads_neither_data_nor_lightning():
    loaded = modules_after("from solo import HEXLoss, HierarchicalContrastiveLoss, Taxonomy")
    assert not loaded & {"lightning", "torchvision", "timm", "omegaconf", "sklearn", "PIL"}
    rooms = {name.split(".")[1] for name in loaded if name.startswith("solo.")}
    assert not rooms & {"data", "args", "methods", "callbacks", "run", "cli", "api"}


@pytest.mark.parametrize("name", solo.__all__)
def test_every_public_name_is_there(name):
    assert getattr(solo, name) is not None
    assert name in dir(solo)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = solo.trian


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    return solo.pretrain("scripts/pretrain/digits", "hex", **TINY, checkpoint={"dir": folder / "it's here"})


def test_pretrain_returns_the_run(run):
    assert run.folder.parent.name == "simclr" and run.folder.parents[1].name == "it's here"
    assert run.summary == json.loads((run.folder / "summary.json").read_text())
    assert run.checkpoint == run.folder / "last.ckpt"
    assert isinstance(run.model, solo.METHODS["simclr"])


@pytest.mark.parametrize("value", ["a'b", "\\", "a\\'b", "null", "1e3", "x=1, [y]", "", None, True, 0.5, [1, "b"]])
def test_values_reach_the_config_as_they_are(monkeypatch, value):
    import solo.api

    seen = {}
    monkeypatch.setattr(solo.api, "read_config", lambda name, places, words, for_run: words)
    monkeypatch.setattr(solo.api, "execute", lambda module, words: seen.update(words=words))
    solo.pretrain("scripts/pretrain/digits/hex.yaml", user={"key": value})
    assert compose(None, seen["words"])[0] == {"user": {"key": value}}


def test_a_wrong_key_is_refused_before_anything_is_loaded():
    with pytest.raises(solo.ConfigError, match="did you mean 'max_epochs'"):
        solo.pretrain("scripts/pretrain/digits/hex.yaml", max_epoch=1)
    with pytest.raises(solo.ConfigError, match="no recipe"):
        solo.pretrain()


def test_evaluate_returns_the_numbers(run, tmp_path):
    words = ["accelerator=cpu", "cache=false", "intervals=false"]
    found = solo.evaluate(
        run.folder, overrides=words, measures=["knn"], checkpoint={"dir": tmp_path}, data={"num_workers": 0}
    )
    assert 0 <= found["results"][0]["levels"][0]["knn_acc1"] <= 100
    assert [json.loads(file.read_text()) for file in tmp_path.rglob("evaluate.json")] == [found]


def test_load_embeds_whatever_holds_images(run, tmp_path):
    model = solo.load(run.folder, device="cpu")
    assert model.taxonomy.class_names == tuple("0123456789") and not model.backbone.training
    files = [tmp_path / f"{name}.png" for name in "abcdef"]
    pictures = [Image.fromarray(image) for image in DIGITS]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
    features = model.embed(pictures)
    assert features.shape == (6, model.features_dim) and features.dtype == torch.float32
    inputs = torch.stack([model.transform(picture) for picture in pictures])
    mixed = (item for item in [pictures[0], DIGITS[1], files[2], str(files[3]), inputs[4], DIGITS[5][..., None]])
    for images in (DIGITS, DIGITS[..., None], files, tmp_path, str(tmp_path), inputs, list(inputs), mixed):
        torch.testing.assert_close(model.embed(images), features)
    torch.testing.assert_close(model.embed(pictures, batch_size=4), features)
    for image, row in [(pictures[1], 1), (DIGITS[1], 1), (files[1], 1), (inputs[1], 1)]:
        torch.testing.assert_close(model.embed(image), features[row : row + 1])
    assert model.embed([]).shape == (0, model.features_dim)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere.png", "nowhere.png doesn't exist"),
        (7, "int holds no images"),
        ([7], "int is no image"),
        (torch.zeros(3, 8, 8), "no input; give float"),
        (np.full((8, 8), 2.0), "from 2 to 2"),
        ([torch.zeros(1, 8, 8), torch.zeros(1, 9, 9)], "different shapes"),
    ],
)
def test_what_is_no_image_is_refused(run, images, message):
    with pytest.raises(solo.UserError, match=message):
        solo.load(run.folder).embed(images)


def test_load_takes_statistics_that_are_given(run):
    model = solo.load(run.checkpoint, mean=[0.5], std=[1.0])
    assert model.transform(Image.new("L", (16, 16), 255)).unique().tolist() == [0.5]
    with pytest.raises(solo.UserError, match="'means' can't be set"):
        solo.load(run.checkpoint, means=[0.5])


def short_docstrings(node, place):
    """Public classes and functions whose docstring has at most four words, which is a name said again."""
    for inner in getattr(node, "body", ()):
        if isinstance(inner, (ast.ClassDef, ast.FunctionDef)) and not inner.name.startswith("_"):
            words = (ast.get_docstring(inner) or "any other number of words").split()
            yield from [f"{place}.{inner.name}"] if len(words) <= 4 else []
            yield from short_docstrings(inner, f"{place}.{inner.name}") if isinstance(inner, ast.ClassDef) else ()


def test_public_docstrings_say_more_than_the_name():
    files = sorted(Path(solo.__file__).parent.rglob("*.py"))
    assert not [name for file in files for name in short_docstrings(ast.parse(file.read_text()), file.stem)]


def test_the_page_of_the_api_is_up_to_date():
    path = Path(solo.__file__).parents[1] / "docs" / "make_api.py"
    spec = importlib.util.spec_from_file_location("make_api", path)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.PAGE.read_text() == maker.page(), "run `python docs/make_api.py`"
    headings = {line.removeprefix("### ") for line in maker.page().splitlines() if line.startswith("### ")}
    assert {*solo.__all__} - {"__version__"} <= headings
