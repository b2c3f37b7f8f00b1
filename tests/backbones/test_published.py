"""timm's and torchvision's models, without classifier."""

from __future__ import annotations

import pytest
import torch

from solo.backbones.registry import published_model
from solo.errors import UserError


@pytest.mark.parametrize(
    ("name", "width"),
    [("timm/test_resnet", 96), ("torchvision/resnet18", 512), ("torchvision/mobilenet_v3_small", 1024)],
)
def test_features_without_classifier(name, width):
    found = published_model(name, fetch=False)
    with torch.no_grad():
        assert found.network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, width)
    assert len(found.mean) == len(found.std) == 3 and 0 < min(found.std) and found.size >= 160


def test_grey_images():
    found = published_model("timm/test_resnet", fetch=False, channels=1)
    assert len(found.mean) == 1 and found.network(torch.zeros(2, 1, 32, 32)).ndim == 2


def test_weights_that_cannot_be_fetched(monkeypatch):
    import timm

    def offline(*args, **kwargs):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match="can't be fetched .no network at all.; set pretrained=FILE"):
        published_model("timm/resnet18")


def test_kwargs_that_the_model_refuses():
    with pytest.raises(UserError, match="don't fit model=timm/test_resnet"):
        published_model("timm/test_resnet", fetch=False, kwargs={"wings": 2})
