import numpy as np
import pytest
import torch
from PIL import Image

from solo import cli
from solo.run import pretrain


@pytest.mark.parametrize("augment", ["batch", "sample"])
def test_a_picture_of_the_first_views(pretrain_cfg, tmp_path, capsys, augment):
    cfg = pretrain_cfg(
        data={"dataset": "digits", "num_workers": 0, "augment": augment},
        augmentations=[{"num_crops": 2}, {"num_crops": 3, "crop_size": 8}],
    )
    pretrain.preview(cfg)
    path = tmp_path / "simclr" / "preview.png"
    assert f"5 views of 8 images in {path}" in capsys.readouterr().out
    picture = np.asarray(Image.open(path))
    assert picture.shape == (8 * (112 + 2) + 2, 5 * (112 + 2) + 2, 3)
    assert picture[:, 230:].mean() > picture[:, :230].mean() + 20  # the small views stand on white


def test_colours_come_back():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    colour = torch.tensor([0.9, 0.1, 0.6])[:, None, None]
    view = (colour - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    shown = pretrain.grid([view.expand(1, 3, 120, 120)], mean, std)
    torch.testing.assert_close(shown[:, 10, 10], colour[:, 0, 0])


def test_the_flag_shows_and_stops(monkeypatch):
    seen = []
    monkeypatch.setattr(pretrain, "preview", lambda cfg: seen.append(cfg.method))
    monkeypatch.setattr(pretrain, "run", lambda cfg: pytest.fail("it trained"))
    assert cli.main(["pretrain", "scripts/pretrain/digits", "simclr.yaml", "--preview"]) == 0
    assert seen == ["simclr"]


def test_other_commands_have_no_preview(capsys, tmp_path):
    (tmp_path / "linear.ckpt").touch()
    words = [
        "linear",
        "scripts/linear/digits",
        "linear.yaml",
        f"pretrained_feature_extractor={tmp_path / 'linear.ckpt'}",
    ]
    assert cli.main([*words, "--preview"]) == 2
    assert "only `solo pretrain`" in capsys.readouterr().err


@pytest.mark.parametrize(("augment", "kind"), [(None, "BatchLoader"), ("batch", "BatchLoader"), ("sample", "Loader")])
def test_how_views_are_made_can_be_chosen_and_is_said(pretrain_cfg, capsys, augment, kind):
    loader = pretrain.train_loader(pretrain_cfg(data={"dataset": "digits", "num_workers": 0, "augment": augment}))
    assert type(loader).__name__ == kind
    assert ("whole batches on cpu: 1,437 images in memory" in capsys.readouterr().out) == (kind == "BatchLoader")


def test_a_fallback_says_why(pretrain_cfg, capsys, tmp_path):
    for c in "ab":
        (tmp_path / "images" / c).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (20, 24), (9 * i, 0, 0)).save(tmp_path / "images" / c / f"{i}.png")
    data = {"dataset": "custom", "train_path": str(tmp_path / "images"), "num_workers": 0}
    views = {"num_crops": 2, "crop_size": 16, "rrc": {"enabled": False}}
    loader = pretrain.train_loader(pretrain_cfg(data=data, augmentations=[views]))
    assert type(loader).__name__ == "Loader"
    assert "image by image: rrc.enabled=false" in capsys.readouterr().out
