"""`accumulate: exact`: the big batch's gradient, in whatever way a run trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from solo import distributed
from solo.doctor.main import all_cases
from solo.doctor.parity import on_processes
from solo.doctor.toy import Case, ToyImages, toy_model, without_dropout
from solo.errors import UserError
from solo.methods import SimCLR
from solo.methods.catalogue import CATALOGUE
from tests.doctor import faults
from tests.doctor.exact import exactness, without_norms

CASES = all_cases()
EXACT = {"accumulate": "exact", "accumulate_grad_batches": 4}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}-{case.type}")
def test_the_gradient_is_that_of_one_big_batch(case: Case) -> None:
    outcome = exactness(case)
    assert outcome.ok, outcome.detail
    refused = CATALOGUE[case.method].per_image and case.type == "standard"
    assert refused == ("its loss is a mean over images" in outcome.detail)


@pytest.mark.parametrize("bug", [faults.every_part_a_loss, faults.last_part_lost])
def test_a_planted_bug_turns_the_outcome_red(bug: Any) -> None:
    with bug():
        outcome = exactness(Case("simclr"))
    assert not outcome.ok and "differs by" in outcome.detail


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="accumulate=exact is for several batches, and accumulate_grad_batches=1"):
        toy_model(Case("simclr"), 4, accumulate="exact")


def test_a_method_with_steps_of_its_own_is_refused() -> None:
    class Own(SimCLR):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx)

    cfg = toy_model(Case("simclr"), 4).cfg
    cfg.update(EXACT)
    with pytest.raises(UserError, match="method 'simclr' has a training_step"):
        Own(cfg)


def batch_of(rows: int) -> list[Any]:
    images = ToyImages(rows)
    return [torch.arange(rows), list(images.images), images.labels]


def test_dropout_is_the_same_in_both_passes_and_statistics_move_once_a_part() -> None:
    model: Any = toy_model(Case("simclr"), 4, **EXACT).double()
    model.backbone = nn.Sequential(model.backbone, nn.Dropout(0.5), nn.BatchNorm1d(64)).double()
    seen: list[Tensor] = []
    model.projector.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    model.training_step(batch_of(16), 0).backward()
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(seen) == 16 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert model.backbone[2].num_batches_tracked == 8  # 4 parts with 2 views
    assert model.backbone[2].track_running_stats and not model.silent and model.knn_eval
    assert sum(len(rows) for rows in model.knn.train_features) == 32
    seen.clear()
    model.training_step(batch_of(16), 0)  # drops others
    assert not torch.equal(seen[0], first[0]) and torch.equal(seen[0], seen[8])


class TrainingDiagnosis(Callback):
    """Gradients before they are clipped."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        self.steps.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})


def fit(settings: dict[str, Any]) -> dict[str, Any]:
    """Two optimizer steps of nnclr under a trainer on this process's share of batches of 32."""
    processes, rank = distributed.world_size(), distributed.rank()
    parts = settings.pop("parts")
    rows = 32 // processes
    torch.manual_seed(0)
    words = {"accumulate": "exact", "accumulate_grad_batches": parts} if parts > 1 else {}
    made = toy_model(Case("nnclr"), rows // parts, knn_eval__enabled=False, **words)
    model: Any = without_norms(without_dropout(made))
    model.lr = model.classifier_lr = 0.05  # which are scaled by the number of batches
    images = ToyImages(64, dtype=torch.float64 if settings["precision"] == "64-true" else torch.float32)
    own = [start + i for start in range(rank * rows, 64, 32) for i in range(rows)]
    watch = TrainingDiagnosis()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=processes,
        strategy=DDPStrategy() if processes > 1 else "auto",
        use_distributed_sampler=False,
        gradient_clip_val=0.1,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(model, DataLoader(images, batch_size=rows, sampler=own))
    weights = {name: value.double() for name, value in model.state_dict().items()}
    grads = {f"{i} {name}": grad.double() for i, step in enumerate(watch.steps) for name, grad in step.items()}
    return {"weights": weights, "grads": grads, "steps": trainer.global_step}


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.thorough), 2])
def test_under_a_trainer_with_clipping_on_one_and_two_processes(processes: int) -> None:
    (whole,) = on_processes(fit, 1, {"parts": 1, "precision": "64-true"})
    parts = on_processes(fit, processes, {"parts": 2, "precision": "64-true"})[0]
    assert parts["steps"] == whole["steps"] == 2
    for kind in ("grads", "weights"):
        for name, value in whole[kind].items():
            torch.testing.assert_close(
                parts[kind][name], value, rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_in_mixed_precision() -> None:
    precise, whole, parts = (
        torch.cat([grad.flatten() for name, grad in run["grads"].items() if name.startswith("0 ")])
        for run in (
            on_processes(fit, 1, {"parts": 1, "precision": "32-true"})[0],
            on_processes(fit, 1, {"parts": 1, "precision": "bf16-mixed"})[0],
            on_processes(fit, 1, {"parts": 4, "precision": "bf16-mixed"})[0],
        )
    )
    error = (whole - precise).norm()
    assert 1e-3 * precise.norm() < error < 0.2 * precise.norm()
    assert (parts - precise).norm() < 1.2 * error
