"""What became of the weights that a run started from: features of the same images, before and after."""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from solo.args.schema import PretrainCfg
from solo.data.batches.loaders import worker_options
from solo.data.labels.subsets import Subset
from solo.eval.features import FeatureTable
from solo.eval.rows import draw
from solo.eval.suite import Protocol
from solo.eval.verdict import Tables, verdict
from solo.methods.base import BaseMethod
from solo.run.features import extract
from solo.run.report import say

_MOST = {"training": 20_000, "validation": 10_000}  # images; of more, as many are drawn

Images = Callable[[str], "Dataset[Any] | None"]  # "training" or "validation" -> what evaluation sees of them


def verdict_on(cfg: PretrainCfg, model: BaseMethod, images: Images, device: torch.device) -> Callable[[], Any]:
    """Look at a model's backbone now; what is returned compares it with what it has become, see `solo.eval.verdict`."""
    parts = {name: found for name in _MOST if (found := images(name)) is not None}
    if len(parts) < len(_MOST) or str(cfg.strategy).startswith("fsdp"):
        say("no verdict at the end: it needs labelled validation images, and another strategy than fsdp")
        return lambda: None
    workers = cfg.data.workers
    chosen: dict[str, DataLoader[Any]] = {  # the first process alone looks at all of them
        name: DataLoader(_some(part, _MOST[name], cfg.seed), cfg.optimizer.batch_size, **worker_options(workers, 0))
        for name, part in parts.items()
    }

    def tables() -> Tables:
        backbone = copy.deepcopy(model.backbone)  # which is left in its mode
        found = [extract(backbone, loader, device, name) for name, loader in chosen.items()]
        bank, judged = (FeatureTable(x.features, model.leaf_labels(x.targets.cpu())[:, None]) for x in found)
        return bank.rows(bank.labels[:, 0] >= 0), judged

    before = tables()
    return lambda: verdict(before, tables(), Protocol(seed=cfg.seed), device)


def _some(images: Dataset[Any], most: int, seed: int) -> Dataset[Any]:
    count = len(cast(Any, images))
    return images if count <= most else Subset(images, draw(count, most, seed).tolist())
