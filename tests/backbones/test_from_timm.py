from __future__ import annotations

import pytest
import timm
import torch

from solo.backbones import build_backbone, convnext_tiny, features_dim, swin_tiny

TINY = {"depths": (1, 1, 1, 1)}


def test_timms_weights_load() -> None:
    x = torch.randn(2, 3, 32, 32)
    for ours, name in ((swin_tiny, "swin_tiny_patch4_window7_224"), (convnext_tiny, "convnext_tiny")):
        kwargs = {**TINY, "img_size": 32, "window_size": 4} if "swin" in name else TINY
        reference = timm.create_model(name, num_classes=0, **kwargs).eval()
        backbone = ours("simclr", **kwargs).eval()
        backbone.load_state_dict(reference.state_dict(), strict=True)
        assert torch.equal(backbone(x), reference(x)) and backbone(x).shape == (2, 768)


@pytest.mark.parametrize("options", [{}, {"window_size": 4}])
@pytest.mark.parametrize("size", [28, 32, 64])
def test_swin_for_small_images(size: int, options: dict[str, int]) -> None:
    backbone = build_backbone("swin_tiny", channels=1, image_size=size, kwargs={**TINY, **options}).eval()
    assert features_dim(backbone) == 768
    assert backbone(torch.randn(2, 1, size, size)).shape == (2, 768)


def test_the_given_size_is_preferred_to_the_data_sets() -> None:
    backbone = build_backbone("swin_tiny", image_size=28, kwargs={**TINY, "img_size": 32, "window_size": 4})
    assert backbone(torch.randn(1, 3, 32, 32)).shape == (1, 768)


@pytest.mark.parametrize("size", [32, 64])
def test_convnext_takes_any_size(size: int) -> None:
    backbone = build_backbone("convnext_tiny", channels=2, image_size=28, kwargs=TINY).eval()
    assert features_dim(backbone) == 768
    assert backbone(torch.randn(2, 2, size, size)).shape == (2, 768)


def test_timms_registry_is_left_alone() -> None:
    for name in ("convnext_tiny", "poolformer_s12"):
        assert timm.model_entrypoint(name).__module__.startswith("timm.")
    assert not timm.is_model("vit_tiny") and not timm.is_model("wide_resnet28w2")
