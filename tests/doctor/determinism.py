"""The same seed gives the same run: views, order and weights, to the last bit, with any number of loader processes."""

from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from solo.args.config import to_plain
from solo.args.parse import parse
from solo.args.schema import PretrainCfg
from solo.doctor.toy import Case, Outcome, quietly, toy_cfg, toy_trainer
from solo.methods import METHODS
from solo.methods.catalogue import CATALOGUE
from solo.run.pretrain import train_loader

BATCH, STEPS = 16, 4


def determinism(case: Case) -> Outcome:
    """Train twice on the digits with one seed, the second time with a loader process, and once with another seed."""
    first = train_once(case, seed=5)
    again = train_once(case, seed=5, workers=1)
    other = train_once(case, seed=6)
    differing = [name for name in first if not torch.equal(first[name], again[name])]
    if differing:
        return Outcome(False, f"the same seed gives other weights: {len(differing)} of {len(first)} ({differing[0]})")
    if all(torch.equal(first[name], other[name]) for name in first):
        return Outcome(False, "another seed gives the same weights: the seed isn't used")
    return Outcome(True, f"{len(first)} tensors are the same to the last bit after {STEPS} steps")


def train_once(case: Case, seed: int, workers: int = 0) -> dict[str, Tensor]:
    """The weights after a short run of a case, made in this process and said nothing about."""
    with quietly():
        cfg = _cfg(case, seed, workers)
        seed_everything(seed, workers=True, verbose=False)
        model = METHODS[case.method](cfg)
        trainer = toy_trainer(max_steps=STEPS, accelerator="auto", devices=1)
        trainer.fit(model, train_loader(cfg, trainer.strategy.root_device))
        return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _cfg(case: Case, seed: int, workers: int) -> PretrainCfg:
    changes: dict[str, Any] = {
        "data": {"dataset": "digits", "num_workers": workers, "augment": "batch"},
        "augmentations": [
            {"num_crops": CATALOGUE[case.method].least_views, "color_jitter": {"prob": 0.8, "contrast": 0.4}}
        ],
        "seed": seed,
        "knn_eval": {"enabled": False},
    }
    parsed: PretrainCfg = parse(to_plain(toy_cfg(case, BATCH, **changes)), PretrainCfg).config
    return parsed
