"""Small networks, images and settings on which every method can be tried in a second, and how records are compared."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import Dataset

from solo import distributed
from solo.args.fields import keys_of
from solo.backbones import build_backbone
from solo.methods import METHODS
from solo.methods.catalogue import CATALOGUE
from solo.methods.linear import LinearModel
from solo.run.machine import ddp_strategy


@dataclass(frozen=True)
class Case:
    """A method with an objective, which is checked."""

    method: str  # a name of `METHODS`
    type: str = "standard"  # the objective, as a user writes it: `standard`, `HEX_adaptive`, ...

    def __str__(self) -> str:
        return self.method if self.type == "standard" else f"{self.method} {self.type}"


@dataclass(frozen=True)
class Outcome:
    """What came out of a check of one case."""

    ok: bool  # whether the guarantee holds
    detail: str  # one line with the figure that decides, e.g. `gradient differs by 3e-16 (allowed: 1e-6)`


def failure(error: Exception) -> Outcome:
    """What a check has come to that raised an error."""
    return Outcome(False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


Record = dict[str, dict[str, Tensor]]

ALLOWED = 1e-6


def compare(one: Record | str, other: Record | str) -> Outcome:
    """Whether two ways to train are the same, with the largest relative difference of each kind (loss, gradient, ...).

    A value is compared with its own size; one that is zero but for rounding, with a ten millionth of the largest. A
    text instead of a record says why there is none.
    """
    if isinstance(one, str) or isinstance(other, str):
        return Outcome(False, one if isinstance(one, str) else str(other))
    parts = []
    ok = True
    for kind, values in one.items():
        differing = values.keys() ^ other[kind].keys()
        if differing:
            return Outcome(False, f"{kind} of {sorted(differing)[0]} exists on one side only")
        largest = max((float(value.double().norm()) for value in values.values()), default=0.0)
        apart = ((_difference(value, other[kind][name], 1e-7 * largest), name) for name, value in values.items())
        worst, where = max(apart, default=(0.0, ""))
        ok &= worst <= ALLOWED
        parts.append(f"{kind} {worst:.0e}" + (f" ({where})" if worst > ALLOWED else ""))
    return Outcome(ok, f"differs by: {', '.join(parts)} (allowed: {ALLOWED:.0e})")


def _difference(a: Tensor, b: Tensor, small: float) -> float:
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        return float("inf")
    a, b = a.double().nan_to_num(), b.double().nan_to_num()
    return float((a - b).norm() / (a.norm() + small + 1e-300))


SIDE = 12
_VIT = {"name": "vit_tiny", "kwargs": {"patch_size": 4, "img_size": SIDE, "embed_dim": 24, "num_heads": 2, "depth": 1}}
_RESNET: dict[str, Any] = {"name": "resnet10", "kwargs": {"width": 8}}
_BASE = {"max_epochs": 2, "data": {"dataset": "fashion_mnist"}, "scheduler": {"name": "none"}}
# For whichever of these keys a method has: value -> keys.
_GIVEN: tuple[tuple[Any, str], ...] = (
    (32, "queue_size"),
    (16, "proj_hidden_dim pred_hidden_dim decoder_embed_dim predictor_embed_dim num_slices"),
    (10, "num_prototypes"),
    (8, "proj_output_dim"),
    (4, "whitening_size"),
    (2, "whitening_iters decoder_num_heads predictor_num_heads"),
    (1, "decoder_depth predictor_depth"),
    (0, "epoch_queue_starts freeze_prototypes_epochs freeze_last_layer"),
    (0.5, "clip_grad"),
    (0.2, "temperature whitening_eps"),
    (0.1, "temperature_q"),
    (0.04, "temperature_k"),
    (-2.0, "bias"),
    (True, "iternorm use_bn_in_head"),
    (False, "norm_last_layer"),
    ("TiCoLoss", "loss"),
)
_KWARGS = {key: value for value, keys in _GIVEN for key in keys.split()}


def toy_cfg(case: Case, batch_size: int, **changes: Any) -> DictConfig:
    """A config of the case's method, with everything small; `changes` are dotted keys with `__` for the dot."""
    facts = CATALOGUE[case.method]
    keys = keys_of(facts.kwargs) if facts.kwargs else {}
    known = {key: [3, 3] if keys[key].type == list[int] else value for key, value in _KWARGS.items() if key in keys}
    cfg = OmegaConf.create(
        {
            **_BASE,
            "knn_eval": {"enabled": True, "k": 3},
            "method": case.method,
            "backbone": _VIT if facts.masked else _RESNET,
            "optimizer": {"name": "sgd", "batch_size": batch_size, "lr": 0.05, "classifier_lr": 0.1},
            "method_kwargs": known,
        }
    )
    if case.type != "standard":
        # A quantile that leaves the rows of a small batch some hierarchy negatives beside a row's own entry.
        words = {"hex": {"quantile": 0.7}, "type": case.type, "warm_epoch": 0, "distance_thresh": 0.5}
        changes = words | changes
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, merge=False, force_add=True)
    return cfg


class ToyImages(Dataset[Any]):
    """Ten blurry patterns; an item is `(id, [view, ...], label)`, without views `(image, label)`.

    `unknown`: every so many labels are unknown (-1); 0 for none.
    """

    def __init__(self, length: int, views: int = 2, unknown: int = 0, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(1)
        self.views = views
        self.labels = torch.randint(0, 10, (length,), generator=generator)
        patterns = torch.randn(10, 1, SIDE, SIDE, generator=generator, dtype=dtype)
        shape = (max(views, 1), length, 1, SIDE, SIDE)
        self.images = patterns[self.labels] + 0.5 * torch.randn(shape, generator=generator, dtype=dtype)
        if unknown:
            self.labels[::unknown] = -1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        label: Tensor = self.labels[index]
        views = list(self.images[:, index])
        return (index, views, label) if self.views else (views[0], label)


def toy_model(case: Case, batch_size: int, **changes: Any) -> LightningModule:
    """The case's model on `toy_cfg`; `linear` finetunes a backbone."""
    if case.method != "linear":
        model: LightningModule = METHODS[case.method](toy_cfg(case, batch_size, **changes))
        return model
    optimizer = {"name": "sgd", "batch_size": batch_size, "lr": 0.05}
    cfg = OmegaConf.create({**_BASE, "backbone": _RESNET, "optimizer": optimizer, "finetune": True})
    return LinearModel(build_backbone(_RESNET["name"], channels=1, small=True, kwargs=_RESNET["kwargs"]), cfg)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Nothing is said, of such small runs, and no random number of the caller is taken."""
    with warnings.catch_warnings(), torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "solo")]
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def toy_trainer(**options: Any) -> Trainer:
    """A trainer of this group's processes that writes and shows nothing."""
    nothing = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    group: dict[str, Any] = {"accelerator": "cpu", "devices": distributed.world_size()}
    if distributed.is_distributed():
        group["strategy"] = ddp_strategy()
    return Trainer(**{**nothing, "enable_model_summary": False, **group, **options})


def without_dropout(model: nn.Module) -> nn.Module:
    """Switch dropout off, in place."""
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.MultiheadAttention)):
            setattr(module, "p" if isinstance(module, nn.Dropout) else "dropout", 0.0)
    return model
