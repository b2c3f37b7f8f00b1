"""Who is a relative of whom in the training set, found once before a run: the eye of `hex.eye`, and what it sees."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from solo.args.fields import unknown
from solo.args.schema import PretrainCfg
from solo.data.batches.loaders import eval_loader
from solo.data.classification_dataloader import prepare_transforms
from solo.data.labels.subsets import level_targets
from solo.data.views.batched import Shown
from solo.errors import UserError
from solo.eval.features import read_features
from solo.eval.knn import nearest_by_cells, nearest_others
from solo.files import replacing, user_cache
from solo.hex.relatives import EYES, VERSION, Eye, FromTable, both, whom
from solo.methods.base import BaseMethod
from solo.run.features import digest, extract
from solo.run.pretrained import load_pretrained
from solo.run.report import say
from solo.untrusted import check_zip

_EXACT = 500_000  # images; of more, all with all would take hours: neighbours are looked for in cells


def find_relatives(cfg: PretrainCfg, model: BaseMethod, images: Callable[[Any], Dataset[Any]]) -> Shown | None:
    """Make the table of relatives, where `hex.policy` or `hex.show` has one, for whoever needs it.

    That is the model's bank, where relatives are pulled, or the loader of the views, for which it is returned. `images`
    makes the training images by a transform. Raises a `UserError` where the eye can't be had, or sees other images.
    """
    policy, bank, data = model.hex.show or model.hex.policy, model.hex.bank, cfg.data
    if not isinstance(policy, FromTable):
        return None
    plain = images(prepare_transforms(data.dataset, data.mean, data.std, data.image_size, data.channels)[1])
    targets = level_targets(plain)
    paths = model.label_paths(targets)
    labels = model.leaf_labels(targets) if cfg.hex.level is None else paths[:, model.group_level]
    known = torch.stack([model.leaf_labels(targets), paths[:, model.group_level]], dim=1)
    if bank is not None:
        bank.labels, bank.known, bank.live = labels, known, cfg.hex.eye == "projection"
        if bank.live:
            bank.table = torch.full((len(targets), policy.among), -1, dtype=torch.int32)
            return None
    by_level = dict(zip(model.levels, paths.T, strict=False))
    eyes = _Eyes(cfg, images, plain, by_level)
    table = policy.table(Eye(eyes.nearest, eyes.rows, labels, torch.Generator().manual_seed(cfg.seed))).to(torch.int32)
    found, others = table >= 0, table.clamp_min(0)
    said = [f"{found.any(dim=1).float().mean():.1%} of {len(table):,} images have relatives"]
    for level, own in by_level.items():
        judged = found & (own[:, None] >= 0) & (own[others] >= 0)
        if judged.any():
            alike = (own[:, None] == own[others]) & judged
            said.append(f"{alike.sum() / judged.sum():.1%} of these have the same {level}")
    say(", ".join(said))
    if bank is not None:
        bank.use(table)
        return None
    shares = {"with_relatives": found.any(dim=1).float().mean(), **whom(table, known)}
    model.hex.whom = {f"shown_{name}": value for name, value in shares.items()}
    return Shown(table, cfg.hex.show_share)


class _Eyes:
    """What `hex.eye` sees of the training images (`plain`: as evaluation does), several that agree where + joins them.

    `labels` (n,) of each level, -1 for unknown: beside another eye a level's name leaves out who is of another node.
    """

    def __init__(
        self, cfg: PretrainCfg, images: Callable[[Any], Dataset[Any]], plain: Dataset[Any], labels: dict[str, Tensor]
    ) -> None:
        self.cfg, self.images, self.plain = cfg, images, plain
        names = cfg.hex.eye.split("+")
        for name in names:
            if name not in labels and name not in EYES and not ("/" in name or name and Path(name).exists()):
                raise UserError(f"hex.eye{unknown(name, [*EYES, *labels])}, or give a file of features or a checkpoint")
        self.names = [name for name in names if name not in labels]
        self.nodes = [labels[name] for name in names if name in labels]
        if not self.names:
            advice = f"join it with another one, hog+{names[0]}, or take type=oracle hex.level={names[0]}"
            raise UserError(f"hex.eye={cfg.hex.eye} knows labels and sees nobody; {advice}")
        self.number = len(plain)  # type: ignore[arg-type]

    def nearest(self, k: int) -> Tensor:
        """The k nearest images of each, (n, k); with several eyes those that all of them count, -1 for the rest."""
        if self.number <= k:
            raise UserError(f"hex.among and hex.skip ask for {k} other images, and there are {self.number}")
        first, *others = [self._kept(eye, k) for eye in self.names]
        for other in others:
            first = both(first, other)
        for nodes in self.nodes:
            found = nodes[first.clamp_min(0)]
            first = first.masked_fill((found != nodes[:, None]) | (found < 0), -1)
        return first

    def rows(self) -> Tensor:
        """Descriptors (n, d) of all eyes beside each other, each centred and at length 1."""
        seen = [self._describe(eye)[1]() for eye in self.names]
        return torch.cat([nn.functional.normalize(each - each.mean(dim=0), dim=1) for each in seen], dim=1)

    def _kept(self, eye: str, k: int) -> Tensor:
        """The nearest by one eye, kept on disk under all that they depend on."""
        started, data = time.perf_counter(), self.cfg.data
        network, describe, also = self._describe(eye)
        settings = [k, also, data.image_size, data.mean, data.std, data.channels]
        file = user_cache() / "neighbours" / f"{digest(network, self.plain, {'eye': settings})}.npz"
        said = f"neighbours by {eye}: {k} each of {self.number:,} images"
        if (kept := kept_rows(file, self.number, k)) is not None:
            say(f"{said}, as kept in {file}")
            return kept
        features = describe()
        if len(features) != self.number:
            text = f"hex.eye={eye} has {len(features):,} rows for {self.number:,} training images; give one for each"
            raise UserError(text)
        where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        centred = (features - features.mean(dim=0)).to(where)
        exact = self.number <= _EXACT
        found = (nearest_others(centred, k)[1] if exact else nearest_by_cells(centred, k)).cpu()
        say(f"{said}, in {time.perf_counter() - started:.1f} s")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary, open(temporary, "wb") as out:
                np.savez(out, rows=found.to(torch.int32).numpy())
        except (UserError, OSError) as error:
            say(f"the neighbours are not kept: {error}")
        return found

    def _describe(self, eye: str) -> tuple[nn.Module | None, Callable[[], Tensor], str]:
        """Its network, if it is one; what computes (n, d) descriptors; what else they depend on."""
        size, workers = self.cfg.optimizer.batch_size, self.cfg.data.workers
        if eye in EYES:
            batches = eval_loader(self.plain, size, workers)
            return None, lambda: torch.cat([EYES[eye](batch) for batch, _ in batches]), f"{eye} {VERSION}"
        if eye.endswith((".npz", ".safetensors")):  # a .pt may be a checkpoint
            features = read_features(eye)
            table = (features.train or features.val).features.float().contiguous()
            return None, lambda: table, hashlib.sha256(table.numpy().tobytes()).hexdigest()
        channels = self.cfg.data.channels if eye.startswith(("timm/", "torchvision/")) else None
        found = load_pretrained(eye, channels=channels)
        loader = eval_loader(self.images(found.transform), size, workers)
        return found.backbone, lambda: extract(found.backbone, loader, found.device, "training").features, eye


def kept_rows(file: Path, count: int, k: int) -> Tensor | None:
    """The table (count, k) of numbers of images that was kept in a file; None if there is none, or a damaged one."""
    try:
        check_zip(file)
        rows = np.load(file, allow_pickle=False)["rows"]
        sound = rows.shape == (count, k) and rows.dtype == np.int32 and 0 <= rows.min() and rows.max() < count
    except Exception:  # NumPy and zipfile raise almost anything
        return None
    return torch.from_numpy(rows).long() if sound else None
