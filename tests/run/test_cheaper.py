"""Cheaper training: smaller views, activations that are computed again, a running mean of the weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from solo.args.parse import parse
from solo.args.schema import PretrainCfg
from solo.backbones import build_backbone
from solo.callbacks.optional import ResolutionSchedule, WeightAverage, shrunk, shrunk_side
from solo.checkpoint import load_checkpoint
from solo.errors import ConfigError, UserError
from solo.run.machine import save_memory
from tests.run.test_verdict import VALUES, run


def test_views_shrink_in_parts_of_the_run_to_multiples_of_the_patch() -> None:
    schedule, seen = ResolutionSchedule([0.5, 0.75, 1], 4), []
    for epoch in range(7):
        batch = [None, [torch.randn(2, 1, 32, 32), torch.randn(2, 1, 16, 16)], None]
        trainer: Any = SimpleNamespace(max_epochs=7, current_epoch=epoch)
        schedule.on_train_batch_start(trainer, None, batch, 0)  # type: ignore[arg-type]
        seen.append([view.shape[-1] for view in batch[1]])  # type: ignore[attr-defined]
    assert seen == [[16, 8]] * 3 + [[24, 12]] * 2 + [[32, 16]] * 2
    assert [shrunk_side(30, 0.5, patch) for patch in (1, 4, 7, 64)] == [15, 16, 14, 64]


def test_a_shrunk_view_is_the_mean_of_what_comes_together() -> None:
    flat = torch.full((1, 1, 8, 8), 3.0)
    assert torch.equal(shrunk(flat, 0.5, 1), torch.full((1, 1, 4, 4), 3.0))
    assert shrunk(torch.randn(1, 1, 8, 8), 0.5, 1).var() < 0.6  # noise averages out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"resolution_schedule": [0.5]}, "must end with 1"),
        ({"resolution_schedule": [0, 1]}, "resolution_schedule"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(words: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse({**VALUES, "data": {**VALUES["data"], **words}}, PretrainCfg)


def test_gradients_are_the_same_with_less_memory() -> None:
    def gradients(again: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = build_backbone("vit_tiny", image_size=16, kwargs={"patch_size": 8, "depth": 2, "embed_dim": 24})
        if again:
            save_memory(network)
        network.train()(torch.ones(2, 3, 16, 16).requires_grad_()).square().sum().backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    for a, b in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(UserError, match="grad_checkpointing=true is for timm's networks"):
        save_memory(build_backbone("resnet10"))


def test_a_mean_follows_the_weights_step_by_step() -> None:
    model: Any = SimpleNamespace(state_dict=lambda: {"backbone.w": weights, "head.w": weights})
    average, weights = WeightAverage(SimpleNamespace(), 0.75), torch.tensor([8.0])  # type: ignore[arg-type]
    trainer: Any = SimpleNamespace(global_step=0)
    average.on_train_start(trainer, model)
    expected = 8.0
    for step, value in ((1, 4.0), (1, 100.0), (2, 0.0)):  # the second is no optimizer step
        weights.fill_(value)
        new, trainer.global_step = step > trainer.global_step, step
        average.on_train_batch_end(trainer, model)
        expected = 0.75 * expected + 0.25 * value if new else expected
        assert average.mean["w"].item() == expected and set(average.mean) == {"w"}


@pytest.mark.thorough
def test_a_run_with_all_of_them_is_resumed_to_the_last_bit(tmp_path: Path) -> None:
    words: dict[str, Any] = {
        "max_epochs": 2,
        "data": {**VALUES["data"], "resolution_schedule": [0.5, 1]},
        "performance": {"grad_checkpointing": True},
        "checkpoint": {"enabled": True, "keep_prev": True, "ema": 0.9},
    }
    words["checkpoint"]["dir"] = str(tmp_path / "a")
    whole = run(tmp_path, **words)
    first = next(whole.folder.glob("*ep=0.ckpt"))
    words["checkpoint"] = {**words["checkpoint"], "dir": str(tmp_path / "b")}
    again = run(tmp_path, resume_from_checkpoint=str(first), **words)
    for name in ("ema.pth", "last.ckpt"):
        a, b = (load_checkpoint(result.folder / name)["state_dict"] for result in (whole, again))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    last = load_checkpoint(whole.folder)["state_dict"]
    mean = load_checkpoint(whole.folder / "ema.pth")["state_dict"]
    assert mean.keys() == {key for key in last if key.startswith("backbone.")}
