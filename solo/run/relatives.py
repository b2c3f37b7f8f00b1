"""Who is a relative of whom in the training set, found once before a run: the eye of `hex.eye`, and what it sees."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from solo.args.schema import PretrainCfg
from solo.data.batches.loaders import eval_loader
from solo.data.classification_dataloader import prepare_transforms
from solo.data.labels.subsets import level_targets
from solo.errors import UserError
from solo.eval.feature_file import ENDINGS, read_features
from solo.eval.knn import nearest_others
from solo.files import replacing
from solo.hex.eyes import EYES
from solo.hex.relatives import FromTable
from solo.methods.base import BaseMethod
from solo.run.feature_cache import cache_folder, digest
from solo.run.features import extract
from solo.run.pretrained import load_pretrained
from solo.run.report import say

Images = Callable[[Any], Dataset[Any]]


def relatives_table(cfg: PretrainCfg, model: BaseMethod, images: Images) -> Tensor:
    """The table of `hex.policy`: numbers of each training image's relatives, (n, K), -1 for none.

    Args:
        cfg: of the run.
        model: has the policy.
        images: the training images as the run numbers them, each as a transform makes it.

    Raises:
        UserError: the eye can't be had, or sees other images than these.
    """
    policy = model.hex.policy  # type: ignore[union-attr]  # `standard` has no table
    assert isinstance(policy, FromTable)
    data = cfg.data
    plain = images(prepare_transforms(data.dataset, data.mean, data.std, data.image_size, data.channels)[1])
    targets = level_targets(plain)
    paths = model.label_paths(targets)
    labels = model.leaf_labels(targets) if cfg.hex.level is None else paths[:, model.group_level]
    found = policy.table(lambda k: _nearest(cfg, images, plain, k), labels, torch.Generator().manual_seed(cfg.seed))
    _say_what_was_found(found, paths, model)
    return found


def _say_what_was_found(table: Tensor, paths: Tensor, model: BaseMethod) -> None:
    known, others = table >= 0, table.clamp_min(0)
    said = [f"{known.any(dim=1).float().mean():.1%} of {len(table):,} images have relatives"]
    for level, labels in zip(model.levels, paths.T, strict=False):
        judged = known & (labels[:, None] >= 0) & (labels[others] >= 0)
        if judged.any():
            alike = (labels[:, None] == labels[others]) & judged
            said.append(f"{alike.sum() / judged.sum():.1%} of these have the same {level}")
    say(", ".join(said))


def _nearest(cfg: PretrainCfg, images: Images, plain: Dataset[Any], k: int) -> Tensor:
    """The k nearest images of each by `hex.eye`, kept on disk under all that they depend on."""
    eye, n, started = cfg.hex.eye, len(plain), time.perf_counter()  # type: ignore[arg-type]
    if n <= k:
        raise UserError(f"hex.among={cfg.hex.among} with hex.skip={cfg.hex.skip} are too many of {n} images")
    network, describe, seen = _eye(cfg, images, plain)
    data = [cfg.data.image_size, cfg.data.mean, cfg.data.std, cfg.data.channels]
    key = digest(network, plain, {"eye": seen, "k": k, "data": data})
    file = cache_folder(None).parent / "neighbours" / f"{key}.npy"
    if file.is_file():
        kept = np.load(file, allow_pickle=False)
        if kept.shape == (n, k) and 0 <= kept.min() and kept.max() < n:
            say(f"neighbours by {eye}: {k} each of {n:,} images, as kept in {file}")
            return torch.from_numpy(kept).long()
    features = describe()
    if len(features) != n:
        raise UserError(f"hex.eye={eye} has {len(features):,} rows for {n:,} training images; give one for each")
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = nearest_others((features - features.mean(dim=0)).to(where), k)[1].cpu()
    say(f"neighbours by {eye}: {k} each of {n:,} images, in {time.perf_counter() - started:.1f} s")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, open(temporary, "wb") as out:
            np.save(out, found.to(torch.int32).numpy())
    except (UserError, OSError) as error:
        say(f"the neighbours are not kept: {error}")
    return found


def _eye(
    cfg: PretrainCfg, images: Images, plain: Dataset[Any]
) -> tuple[nn.Module | None, Callable[[], Tensor], list[Any]]:
    """The network of `hex.eye`, if it is one; what computes (n, d) descriptors; and whatever else they depend on."""
    eye, size, workers = cfg.hex.eye, cfg.optimizer.batch_size, cfg.data.num_workers
    if eye in EYES:
        batches = eval_loader(plain, size, workers)
        return None, lambda: torch.cat([EYES[eye](batch) for batch, _ in batches]), [eye]
    if eye.endswith(ENDINGS) and Path(eye).expanduser().is_file() and not eye.endswith(".pt"):
        features = read_features(eye)
        table = features.train or features.val
        return None, lambda: table.features.float(), [hashlib.sha256(table.features.numpy().tobytes()).hexdigest()]
    published = eye.startswith(("timm/", "torchvision/"))
    found = load_pretrained(eye, channels=cfg.data.channels) if published else load_pretrained(eye)
    loader = eval_loader(images(found.transform), size, workers)
    return found.backbone, lambda: extract(found.backbone, loader, found.device, "training").features, [eye]
