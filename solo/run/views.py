"""Features of several augmented views of some images: what LiDAR compares. Views are those of the run's own recipe."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from solo.args.eval_schema import FeatureCfg
from solo.data.batches.loaders import eval_loader
from solo.data.views.pipelines import build_transform_pipeline
from solo.run.feature_source import find_network
from solo.run.features import extract, stored_images

Pipeline = Callable[[Any], Tensor]


def load_views(
    cfg: FeatureCfg,
    kinds: Sequence[str],
    device: torch.device,
    augmentations: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
    count: int,
) -> dict[str, Tensor]:
    """Features (n, count, d) of `count` augmented views of validation images, for each of `kinds`, of a checkpoint.

    Of the entries of `augmentations`, as in a recipe, those of the largest crop make the views, by turns.
    """
    network, cfg = find_network(cfg, kinds)
    data = cfg.data
    images = stored_images(data)
    largest = max(int(entry["crop_size"]) for entry in augmentations)
    pipelines = [
        build_transform_pipeline(data.spec.name, entry, mean=data.mean, std=data.std, channels=data.channels)
        for entry in augmentations
        if int(entry["crop_size"]) == largest
    ]
    views = AugmentedViews(images, rows, pipelines, count, cfg.seed)
    found = extract(network.module, eval_loader(views, cfg.batch_size, data.workers), device, "augmented").features
    return {kind: found[:, part].reshape(len(rows), count, -1) for kind, part in network.columns.items()}


class AugmentedViews(Dataset[tuple[Tensor, int]]):
    """`count` views of some images one after the other, with the image's place; the same ones in every process.

    View v comes from `pipelines[v % len(pipelines)]`, which draws from Python's `random`.
    """

    def __init__(self, images: Any, rows: Sequence[int], pipelines: Sequence[Pipeline], count: int, seed: int) -> None:
        self.images = images
        self.rows = rows
        self.pipelines = pipelines
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows) * self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        place, view = divmod(index, self.count)
        before = random.getstate()
        random.seed(f"{self.seed} {self.rows[place]} {view}")
        try:
            return self.pipelines[view % len(self.pipelines)](self.images[self.rows[place]][0]), place
        finally:
            random.setstate(before)
