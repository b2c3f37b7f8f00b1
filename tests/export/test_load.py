"""A run, exported and loaded again, by every door of `solo.load`: the same features, tree, classifier and card."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelHubMixin
from PIL import Image
from safetensors.torch import load_file, save_file

import solo

PICTURES = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (28, 28), dtype=np.uint8)) for i in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    settings = {"max_epochs": 1, "data": {"fraction": 0.01}, "optimizer": {"batch_size": 64}, "progress": "off"}
    settings |= {
        "backbone": {"kwargs": {"width": 8}},
        "accelerator": "cpu",
        "checkpoint": {"dir": tmp_path_factory.mktemp("r")},
    }
    return solo.load(solo.pretrain("scripts/pretrain/fashion_mnist", "simclr", **settings).folder)


@pytest.fixture(scope="module", params=["safetensors", "hf"])
def exported(request, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model.export(request.param, folder)
    return folder


def test_an_exported_folder_is_the_model(model, exported):
    again = solo.load(exported)
    torch.testing.assert_close(again.embed(PICTURES), model.embed(PICTURES))
    assert again.taxonomy.to_dict() == model.taxonomy.to_dict() and again.network == model.network
    assert again.card.splitlines()[4:] == model.card.splitlines()[4:] and "fashion_mnist" in again.card


def test_predictions_come_along_with_safetensors(model, tmp_path):
    model.export("safetensors", tmp_path)
    again = solo.load(tmp_path)
    found, wanted = again.predict(PICTURES, level="group"), model.predict(PICTURES, level="group")
    torch.testing.assert_close(found.probabilities, wanted.probabilities)
    assert [name for name, _ in found.best[0]] == [name for name, _ in wanted.best[0]]
    assert {name for name, _ in found.best[0]} <= set(model.taxonomy.names[0])
    inside = model.predict(PICTURES, within="shoes").best[0][:3]
    assert sum(value for _, value in inside) == pytest.approx(1, abs=1e-5)


def test_hub_round_trip_through_a_local_store(model, monkeypatch, tmp_path):
    store = tmp_path / "store"

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo, private, exist_ok):
            asked.append(private)
            (store / repo).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, repo_id, folder_path, **options):
            asked.append(options)
            shutil.copytree(folder_path, store / repo_id, dirs_exist_ok=True)
            return f"hub/{repo_id}"

    def download(name, allow_patterns, **options):
        asked.append(options)
        return str(store / name)

    asked = []
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert model.push_to_hub("me/clothes", private=True, commit_message="first") == "hub/me/clothes"
    assert asked == [True, {"commit_message": "first"}]
    load = solo.PretrainedModel.from_pretrained
    folder = tmp_path / "clothes"
    assert model.save_pretrained(folder) is None
    for again in (
        solo.load("hf://me/clothes@v1"),
        load("me/clothes", revision="v1", local_files_only=True),
        load(folder),
    ):
        torch.testing.assert_close(again.embed(PICTURES), model.embed(PICTURES))
    assert again.taxonomy.levels == model.taxonomy.levels
    assert [options["revision"] for options in asked[2:]] == ["v1", "v1"] and asked[3]["local_files_only"]
    assert model.save_pretrained(folder, push_to_hub=True, repo_id="me/two", branch="b") == "hub/me/two"
    assert asked[-1]["revision"] == "b"


@pytest.mark.parametrize("name", ["save_pretrained", "push_to_hub", "from_pretrained"])
def test_the_hub_s_own_call_forms(name):
    theirs, ours = (inspect.signature(getattr(cls, name)) for cls in (ModelHubMixin, solo.PretrainedModel))
    not_here = {"self", "config", "model_card_kwargs", "model_kwargs", "push_to_hub_kwargs"}  # what the mixin writes
    known = [parameter for key, parameter in theirs.parameters.items() if key not in not_here]
    place = [None] * ("self" in theirs.parameters)  # of the model
    ours.bind(*place, *("x" for p in known if p.kind is not p.KEYWORD_ONLY), **{p.name: None for p in known[1:]})


def test_the_hub_out_of_reach_is_one_line(model, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(solo.UserError, match="hf://me/x can't be fetched .no route to host"):
        solo.load("hf://me/x")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fail)
    with pytest.raises(solo.UserError, match="can't be written to the hub"):
        model.push_to_hub("me/x")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: (f / "solo.json").write_text("{"), "can't be read"),
        (lambda f: (f / "solo.json").write_text("[" * 100_000), "can't be read"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "can't be read"),
        (lambda f: edit(f, format=99), "format 99"),
        (lambda f: edit(f, network={"name": "resnet10"}), "can't be read"),
        (lambda f: network(f, kwargs={"width": 16}), "doesn't fit"),
        (lambda f: network(f, name="timm/resnet18", kwargs={"checkpoint_path": "evil.pth"}), "checkpoint_path"),
        (lambda f: network(f, name="evil:build"), "evil:build"),
    ],
)
def test_damaged_and_hostile_folders_are_one_line(model, tmp_path, change, match):
    model.export("safetensors", tmp_path)
    change(tmp_path)
    with pytest.raises(solo.UserError, match=match):
        solo.load(tmp_path)


def edit(folder: Path, **changes: object) -> None:
    told = json.loads((folder / "solo.json").read_text())
    (folder / "solo.json").write_text(json.dumps(told | changes))


def network(folder: Path, **changes: object) -> None:
    edit(folder, network=json.loads((folder / "solo.json").read_text())["network"] | changes)


def test_a_published_model_without_a_run(monkeypatch):
    built = solo.backbones.registry.published_model
    monkeypatch.setattr("solo.run.source.published_model", lambda name, _, **how: built(name, False, **how))
    assert solo.load("timm/resnet10t").network.size == 176
    model = solo.load("timm/resnet10t", image_size=64)
    assert model.network.resize == 73  # in proportion, as `solo evaluate` has it
    assert model.embed(PICTURES).shape == (5, 512) and model.taxonomy is None
    with pytest.raises(solo.UserError, match="no classifier"):
        model.predict(PICTURES)


def test_weights_of_another_network_are_refused(model, tmp_path):
    model.export("safetensors", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("backbone.conv1.weight")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(solo.UserError, match="1 keys missing"):
        solo.load(tmp_path)
