"""`strategy=fsdp` against `strategy=ddp`, on two processes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from solo import distributed
from solo.args.parse import parse
from solo.args.schema import PretrainCfg
from solo.doctor.parity import on_processes
from solo.doctor.toy import Case, ToyImages, toy_model, without_dropout
from solo.methods.catalogue import CATALOGUE
from solo.run import machine, pretrain

LARS = {"momentum": 0.9, "eta": 0.02, "exclude_bias_n_norm": True, "clip_lr": True}


def train(root: str) -> dict[str, str]:
    """Two epochs of BYOL on a small ViT by LARS, with clipping, by both strategies, and again from the middle."""
    machine.UNIT = 3000  # of the ViT's layers
    values = {
        "method": "byol",
        "method_kwargs": {"proj_hidden_dim": 16, "proj_output_dim": 8, "pred_hidden_dim": 16},
        "backbone": {"name": "vit_tiny", "kwargs": {"img_size": 16, "patch_size": 8, "depth": 2}},
        "data": {"dataset": "digits", "num_workers": 0},
        "augmentations": [{"num_crops": 2, "crop_size": 16}],
        "optimizer": {"name": "lars", "batch_size": 8, "lr": 0.3, "exclude_bias_n_norm_wd": True, "kwargs": LARS},
        "accelerator": "cpu",
        "devices": 2,
        "gradient_clip_val": 1.0,
        "limit_train_batches": 2,
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
        "max_epochs": 2,
        "progress": "off",
    }
    folders: dict[str, str] = {}
    for name in ("ddp", "fsdp", "ddp from fsdp", "fsdp from ddp"):
        strategy, _, start = name.partition(" from ")
        words = {
            "strategy": strategy,
            "resume_allow": ["strategy"],
            "checkpoint": {"enabled": True, "dir": f"{root}/{name}", "keep_prev": True},
            "resume_from_checkpoint": str(next(Path(folders[start]).glob("*ep=0.ckpt"))) if start else None,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folders[name] = str(pretrain.run(parse({**values, **words}, PretrainCfg).config).folder)
    return folders


def parts(run: dict[str, Any]) -> list[dict[Any, Any]]:
    return [run["state_dict"], *(optimizer["state"] for optimizer in run["optimizer_states"])]


@pytest.mark.thorough
def test_weights_teacher_and_optimizer_are_those_of_ddp_also_after_a_resume_by_the_other(tmp_path: Path) -> None:
    folders = on_processes(train, 2, str(tmp_path))[0]
    runs: dict[str, Any] = {
        name: torch.load(Path(folder, "last.ckpt"), weights_only=True) for name, folder in folders.items()
    }
    ddp = runs.pop("ddp")
    assert ddp["global_step"] == 4 and ddp["optimizer_states"][0]["state"]
    first = torch.load(next(Path(folders["ddp"]).glob("*ep=0.ckpt")), weights_only=True)
    key = "momentum_backbone.blocks.1.attn.qkv.weight"
    assert not torch.equal(first["state_dict"][key], ddp["state_dict"][key])  # the teacher moves
    for run in runs.values():
        for found, wanted in zip(parts(run), parts(ddp), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def step(names: list[str]) -> dict[str, dict[str, Any]]:
    """The weights of each method after two epochs of two steps by both strategies."""
    machine.UNIT = 500
    found: dict[str, dict[str, Any]] = {}
    rank = distributed.rank()
    for name in names:
        for strategy in (DDPStrategy(broadcast_buffers=False), machine.Sharded()):
            torch.manual_seed(0)
            model: Any = without_dropout(toy_model(Case(name), 8, knn_eval__enabled=False))
            views = max(CATALOGUE[name].least_views, min(2, CATALOGUE[name].most_views or 2))
            own = [start + i for start in range(8 * rank, 32, 16) for i in range(8)]
            trainer = Trainer(
                max_epochs=2,
                accelerator="cpu",
                devices=2,
                strategy=strategy,
                use_distributed_sampler=False,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(model, DataLoader(ToyImages(32, views, dtype=torch.float32), batch_size=8, sampler=own))
            found.setdefault(name, {})[type(strategy).__name__] = trainer.strategy.lightning_module_state_dict()
    return found


@pytest.mark.thorough
def test_every_method() -> None:
    for name, weights in on_processes(step, 2, [name for name in CATALOGUE if not CATALOGUE[name].whole])[0].items():
        torch.testing.assert_close(
            weights["Sharded"], weights["DDPStrategy"], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
