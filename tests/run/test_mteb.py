"""A model as an encoder of mteb: with mteb itself where it is installed, else with what mteb calls."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import solo
from solo.errors import UserError

MODULES = ("mteb", "mteb.models", "mteb.models.abs_encoder", "mteb.models.model_meta")


class Brightness:
    """A model whose one feature is an image's mean."""

    features_dim = 1

    def embed(self, images, batch_size):
        return torch.tensor([[np.asarray(image, dtype=np.float32).mean()] for image in images])


@pytest.fixture(params=["mteb", "stand-in"])
def mteb(request, monkeypatch):
    if request.param == "mteb":
        pytest.importorskip("mteb")
        return
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[MODULES[2]].AbsEncoder = object
    sys.modules[MODULES[3]].ScoringFunction = SimpleNamespace(COSINE="cosine")
    sys.modules[MODULES[3]].ModelMeta = SimpleNamespace(create_empty=lambda values: SimpleNamespace(**values))


class Batches(list):
    """What mteb hands over: batches of inputs, and the data set behind them."""

    def __init__(self, batches):
        super().__init__(batches)
        self.dataset = SimpleNamespace(column_names=list(batches[0]))


def encode(batches):
    encoder = solo.mteb_encoder(Brightness(), name="me/mean")
    assert (encoder.mteb_model_meta.name, encoder.mteb_model_meta.embed_dim) == ("me/mean", 1)
    task = SimpleNamespace(name="Words")
    return encoder.encode(Batches(batches), task_metadata=task, hf_split="test", hf_subset="default", prompt_type=None)


@pytest.mark.usefixtures("mteb")
def test_images_of_all_batches_in_order():
    images = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (3, 1, 2)]
    np.testing.assert_array_equal(encode([{"image": images[:2]}, {"image": images[2:]}]), [[3], [1], [2]])


@pytest.mark.usefixtures("mteb")
def test_texts_are_refused():
    with pytest.raises(UserError, match="Words has inputs without images"):
        encode([{"text": ["a"]}])


def test_mteb_is_missing(monkeypatch):
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="pip install mteb"):
        solo.mteb_encoder(Brightness())
