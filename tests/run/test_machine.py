"""`precision: auto` in a run: decided once, said, written down, and kept when the run is resumed."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from solo import precision
from solo.checkpoint import load_checkpoint
from solo.errors import UserError
from solo.optim import OPTIMIZERS, build_optimizer
from solo.run import machine, pretrain


def run(cfg):
    with warnings.catch_warnings():
        return pretrain.run(cfg).folder


def test_a_run_keeps_what_was_decided(pretrain_cfg, monkeypatch, capsys):
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: True)
    tiny = {
        "augmentations": [{"num_crops": 2, "crop_size": 32}],
        "limit_train_batches": 1,
        "online": {"enabled": False},
        "knn_eval": {"enabled": False},
    }
    folder = run(pretrain_cfg(precision="auto", max_epochs=2, max_steps=1, **tiny))
    assert "precision=auto: bf16-mixed (CPU with instructions for bfloat16)" in capsys.readouterr().out
    assert OmegaConf.load(folder / "config.yaml").precision == "bf16-mixed"
    last = str(folder / "last.ckpt")
    assert load_checkpoint(last)["solo"]["cfg"]["precision"] == "bf16-mixed"

    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: False)  # another machine
    again = {"resume_from_checkpoint": last, "resume_allow": ("max_steps",), "max_epochs": 2, **tiny}
    run(pretrain_cfg(precision="auto", **again))
    assert "precision bf16-mixed" in capsys.readouterr().out
    with pytest.raises(UserError, match="precision: bf16-mixed -> 32"):
        run(pretrain_cfg(precision=32, **again))


def network():
    return nn.ModuleDict({"backbone": nn.Linear(3, 3), "projector": nn.Sequential(nn.ReLU()), "loss": nn.Identity()})


def test_compiled_networks_compute_the_same():
    model, x = network(), torch.randn(2, 3)
    expected, names = model["backbone"](x), set(model.state_dict())
    assert machine.compile_networks(model, backend="eager") == ["backbone", "projector"]
    assert torch.equal(model["backbone"](x), expected) and set(model.state_dict()) == names


def test_what_can_not_be_compiled_runs_as_it_is_and_says_why(capsys):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    model, x = network(), torch.randn(2, 3)
    expected = model["backbone"](x)
    machine.compile_networks(model, backend=broken)
    assert torch.equal(model["backbone"](x), expected)
    assert torch.equal(model["backbone"](x), expected)
    said = capsys.readouterr().out
    assert said.count("backbone runs as it is") == 1 and "no compiler here" in said
    with pytest.raises(RuntimeError, match="mat1 and mat2"):  # the network's own errors are not the compiler's
        model["backbone"](torch.randn(2, 4))


@pytest.mark.parametrize(
    ("device", "steps", "performance", "compiled"),
    [
        ("cpu", 10**6, {}, False),
        ("cpu", 10, {"compile": True}, True),
        ("cuda", 10**6, {}, True),
        ("cuda", 10, {}, False),
        ("cuda", 10**6, {"compile": False, "disable_channel_last": True}, False),
    ],
)
def test_a_gpu_gets_channels_last_and_long_runs_are_compiled(
    pretrain_cfg, monkeypatch, device, steps, performance, compiled
):
    seen = []
    monkeypatch.setattr(machine, "compile_networks", lambda model: seen.append(model) or [])
    model = nn.Conv2d(3, 4, 3)
    machine.tune(model, pretrain_cfg(performance=performance), torch.device(device), steps)
    assert bool(seen) == compiled
    last = device == "cuda" and "disable_channel_last" not in performance
    assert model.weight.is_contiguous(memory_format=torch.channels_last) == last


@pytest.mark.parametrize(
    ("name", "kwargs", "device", "clips", "fused"),
    [
        ("adamw", {}, "cuda", False, True),
        ("adamw", {}, "cpu", False, None),
        ("sgd", {}, "cuda", True, None),
        ("lars", {}, "cuda", False, None),
        ("sgd", {"fused": False}, "cuda", False, False),
        ("adam", {"foreach": True}, "cuda", False, None),
    ],
)
def test_fused_optimizers_on_gpus_only(name, kwargs, device, clips, fused):
    trainer = {"gradient_clip_val": 1.0} if clips else {}
    model = SimpleNamespace(optimizer=name, extra_optimizer_args=kwargs, lr=0.1, weight_decay=0.0)
    model.device, model.config, model._OPTIMIZERS = torch.device(device), SimpleNamespace(trainer=trainer), OPTIMIZERS
    assert build_optimizer(model, [{"params": [nn.Parameter(torch.ones(2))]}]).defaults.get("fused") is fused


@pytest.mark.parametrize(("wait", "said"), [(0.6, "data wait 60 %: a cache of 38 GiB would end it\n"), (0.2, "")])
def test_a_run_that_waits_for_images_says_what_would_end_it(capsys, wait, said):
    images = SimpleNamespace(cure="a cache of 38 GiB would end it")
    trainer = SimpleNamespace(world_size=1, train_dataloader=SimpleNamespace(dataset=images))
    starving = machine.Starving(SimpleNamespace(data_wait=wait), workers=4)
    for _ in range(3):
        starving.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().out == said
