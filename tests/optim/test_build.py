"""Schedules against values computed by hand, for devices and accumulation."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from solo.args.pretrain import parse_cfg

from solo.data.batches.loaders import train_loader
from solo.optim import build_scheduler


def rates_of(settings, total, base, steps, per_epoch=1):
    """The rate of each optimizer step, as a trainer moves the scheduler; of four epochs, `total` steps."""
    model = SimpleNamespace(max_epochs=4, lr=base, **settings)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
    built = build_scheduler(model, optimizer, total, ("warmup_cosine", "step", "exponential"))
    scheduler, by_step = (
        (built["scheduler"], built["interval"] == "step") if isinstance(built, dict) else (built, False)
    )
    found = []
    for step in range(1, steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if by_step or step % per_epoch == 0:
            scheduler.step()
    return found


def by_hand(step, total, base, warmup, start, end):
    """The warm-up cosine, written down once more."""
    if step < warmup:
        return start + (base - start) * step / (warmup - 1)
    return end + (base - end) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


# 960 images, batches of 16 a process, 4 epochs: (devices, batches for a step) -> steps of an epoch, scaled rate.
GOLDEN = {
    (1, 1): (60, 0.1),
    (2, 1): (30, 0.2),
    (4, 1): (15, 0.4),
    (1, 2): (30, 0.1),
    (2, 4): (8, 0.2),
    (4, 4): (4, 0.4),
}


@pytest.mark.parametrize(("devices", "accumulate"), GOLDEN)
def test_golden_curves(devices, accumulate, monkeypatch):
    cfg = parse_cfg(
        OmegaConf.create(
            {
                "method": "simclr",
                "method_kwargs": {"proj_hidden_dim": 4, "proj_output_dim": 4, "temperature": 0.1},
                "data": {"dataset": "digits"},
                "augmentations": [{"num_crops": 2}],
                "optimizer": {"name": "sgd", "batch_size": 16, "lr": 1.6, "weight_decay": 0.01},
                "scheduler": {"warmup_epochs": 1, "warmup_start_lr": 0.05, "min_lr": 0.01},
                "accelerator": "cpu",
                "devices": devices,
                "accumulate_grad_batches": accumulate,
                "max_epochs": 4,
            }
        )
    )
    monkeypatch.setattr("solo.distributed.world_size", lambda: devices)
    batches = len(train_loader(torch.utils.data.TensorDataset(torch.zeros(960)), 16, 0, seed=1))
    per_epoch, lr = GOLDEN[devices, accumulate]
    assert math.ceil(batches / accumulate) == per_epoch
    assert cfg.optimizer.lr == pytest.approx(lr)
    base = cfg.optimizer.lr * accumulate  # one step sees that many batches
    settings = {"warmup_start_lr": 0.05, "min_lr": 0.01, "warmup_epochs": 1}
    total = 4 * per_epoch
    settings |= {"scheduler": "warmup_cosine", "scheduler_interval": "step"}
    expected = [by_hand(step, total, base, per_epoch, 0.05, 0.01) for step in range(total + 1)]
    assert rates_of(settings, total, base, total + 1, per_epoch) == pytest.approx(expected, abs=1e-12)


def test_by_epoch_stepwise_and_exponential():
    def rates(name, **more):
        settings = {"warmup_start_lr": 0.2, "warmup_epochs": 2, "min_lr": 0.0, "scheduler_gamma": 0.5}
        settings |= {"scheduler": name, "scheduler_interval": "epoch", "lr_decay_steps": [1, 3]}
        return rates_of({**settings, **more}, 8, 1.0, 8, 2)

    assert rates("step") == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert rates("exponential") == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rates("warmup_cosine") == pytest.approx([0.2, 0.2, 1, 1, 1, 1, 0.5, 0.5])
    assert rates("step", lr_decay_steps=None) == [1.0] * 8
