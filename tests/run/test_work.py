"""What an image costs, against a count by hand, and what a run says of it."""

import json

import pytest
import torch
from torch import nn

from solo.callbacks.recorder import Work
from solo.methods import METHODS
from solo.run import pretrain
from solo.run.machine import work_of


def by_hand(part, image):
    """Two operations for each weight and place where it is used."""
    found = []

    def count(layer, inputs, output):
        places = output[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
        found.append(2 * layer.weight.numel() * places)

    layers = [layer for layer in part.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    part.eval()(image)
    for hook in hooks:
        hook.remove()
    return sum(found)


OWN = {"simclr": {"temperature": 0.2}, "byol": {"pred_hidden_dim": 16}, "lightly": {"loss": "DCLLoss"}}


@pytest.mark.parametrize("method", OWN)
def test_work_of_an_image(pretrain_cfg, method):
    small = {"proj_hidden_dim": 16, "proj_output_dim": 8, **OWN[method]}
    multicrop = method == "simclr"
    entries = [{"num_crops": 2}, *([{"num_crops": 1, "crop_size": 12}] if multicrop else [])]
    cfg = pretrain_cfg(method=method, method_kwargs=small, type="standard", augmentations=entries)
    model = METHODS[method](cfg)
    before = torch.get_rng_state()
    work = work_of(model, cfg, torch.device("cpu"), 1)
    assert torch.equal(torch.get_rng_state(), before) and model.training and work.peak is None
    large, tiny, feats = (torch.zeros(1, 1, side, side) for side in (cfg.data.image_size, 12, 1))
    feats = feats.flatten(1).expand(1, model.features_dim)
    expected = 2 * 3 * by_hand(model, large)
    if method == "byol":
        expected += 2 * (by_hand(model.momentum_backbone, large) + by_hand(model.momentum_projector, feats))
    elif multicrop:
        expected += 3 * (by_hand(model.backbone, tiny) + by_hand(model.projector, feats))
    assert work.flops == expected and work.views == 2 + multicrop


def test_rates():
    assert Work(2, 10**9, 10**13).rates(1000) == {
        "views_per_second": 2000,
        "model_flops_per_image": 10**9,
        "mfu": pytest.approx(10.0),
    }
    assert Work(2, 10).rates(None) == {"views_per_second": None, "model_flops_per_image": 10}


@pytest.mark.thorough
def test_a_run_says_it_and_writes_a_profile(pretrain_cfg, capsys):
    cfg = pretrain_cfg(performance={"profile": True}, max_epochs=1, limit_train_batches=8, online={"enabled": False})
    folder = pretrain.run(cfg).folder
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["views_per_second"] == pytest.approx(2 * summary["images_per_second"], rel=1e-3)
    assert summary["model_flops_per_image"] > 1e5 and "mfu" not in summary
    assert "GFLOP an image" in capsys.readouterr().out
    assert "convolution" in (folder / "profile.txt").read_text()
    assert json.loads((folder / "profile.json").read_text())["traceEvents"]
