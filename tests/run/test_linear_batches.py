"""Training images of `solo linear`: whole batches from decoded images, or one by one."""

import pytest
import torch
from PIL import Image

from solo.data.batches.loaders import LabelledBatches
from solo.data.catalogue.registry import get_spec
from solo.data.classification_dataloader import prepare_transforms, train_augment
from solo.errors import UserError
from solo.run import measure

IMAGES = {"image_size": 16, "channels": 1, "mean": [0.5], "std": [0.25]}


@pytest.fixture
def cfg(linear_cfg, tmp_path):
    (tmp_path / "x.ckpt").touch()
    return lambda data, **more: linear_cfg(
        tmp_path / "x.ckpt", data={"dataset": "digits", "num_workers": 0, **IMAGES, **data}, **more
    )


def test_both_ways_take_the_same_images_in_the_same_order(cfg, capsys):
    whole, single = (measure.image_loaders(cfg({"augment": augment}))[0] for augment in (None, "sample"))
    assert isinstance(whole, LabelledBatches) and not isinstance(single, LabelledBatches)
    assert "training images are made of whole batches on cpu: 1,437 images" in capsys.readouterr().out
    assert len(whole) == len(single) == 22
    for (X, targets), (Y, expected) in zip(whole, single, strict=True):
        assert X.shape == Y.shape == (64, 1, 16, 16) and torch.equal(targets, expected)
    assert abs(float(X.mean() - Y.mean())) < 0.1 and abs(float(X.std() - Y.std())) < 0.1


def test_a_whole_image_is_that_of_the_pipeline():
    spec = get_spec("digits")
    image = torch.randint(0, 256, (1, 1, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stats = {"size": 16, "mean": [0.0], "std": [1.0], "channels": 1}
    augment = train_augment(spec, **stats)
    augment.entries[0].scale, augment.entries[0].probs[5] = None, 0.0
    (view,) = augment(image, torch.tensor([1]))
    _, plain = prepare_transforms(spec, **stats)
    want = plain(Image.fromarray(image[0, 0].numpy()))
    torch.testing.assert_close(view[0], want, atol=1.5 / 255, rtol=0)


def test_randaugment_is_made_image_by_image(cfg):
    data = {"channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3, "dataset": "cifar10"}
    with pytest.raises(UserError, match="data.augment=batch does nothing with auto_augment=True"):
        cfg({**data, "augment": "batch"}, auto_augment=True)
    with pytest.raises(UserError, match="data.augment=batch does nothing with data.cache_features=True"):
        cfg({"augment": "batch", "cache_features": True})
