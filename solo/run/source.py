"""The network that a command starts from: a checkpoint says what it is, or a published model is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from solo.backbones import build_backbone
from solo.backbones.published import published_model
from solo.checkpoint import backbone_state, checkpoint_file, load_backbone, load_checkpoint, saved_settings
from solo.data.catalogue.registry import DATASETS, get_spec
from solo.errors import UserError
from solo.methods import METHODS
from solo.methods.base import BaseMethod
from solo.methods.catalogue import vit_variant


def source_backbone(cfg: DictConfig) -> nn.Module:
    """The backbone of `cfg.model`, where it is set, else that of `cfg.pretrained_feature_extractor`.

    What `cfg` leaves out of its images is filled in, in place.
    """
    return published_backbone(cfg) if cfg.get("model") else pretrained_backbone(cfg)


def published_backbone(cfg: DictConfig) -> nn.Module:
    """Build `cfg.model` with the weights that `cfg.pretrained` says; random ones are drawn from `cfg.seed`.

    Raises:
        UserError: see `published_model`; or the weights' file can't be read or doesn't fit.
    """
    if cfg.data.channels is None:
        cfg.data.channels = 3
    kwargs: Any = OmegaConf.to_container(cfg.backbone.kwargs, resolve=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        found = published_model(cfg.model, cfg.pretrained is True, channels=cfg.data.channels, kwargs=kwargs)
    if isinstance(cfg.pretrained, str):
        _load_weights(found.network, cfg.pretrained, cfg.model)
    cfg.backbone.name = cfg.model
    for key, value in {"image_size": found.size, "mean": list(found.mean), "std": list(found.std)}.items():
        if cfg.data[key] is None:
            cfg.data[key] = value
    return found.network


def saved_data(path: str) -> dict[str, Any]:
    """The section `data` of the run that made a checkpoint; empty if it has none."""
    checkpoint = checkpoint_file(path)
    return dict(saved_settings(load_checkpoint(checkpoint), checkpoint)["cfg"].get("data") or {})


def pretrained_backbone(cfg: DictConfig) -> nn.Module:
    """Build and load the backbone of `cfg.pretrained_feature_extractor`.

    What `cfg` leaves out is the checkpoint's, else the data set's; it is written back into `cfg`, so that the run's
    files say what was evaluated: `backbone`, `pretrain_method`, `data.image_size`, `.channels`, `.mean`, `.std`.

    Raises:
        UserError: the checkpoint can't be read, doesn't fit, or neither side names the backbone.
    """
    path = checkpoint_file(cfg.pretrained_feature_extractor)
    checkpoint = load_checkpoint(path)
    saved = saved_settings(checkpoint, path)
    trained = saved["cfg"].get("backbone") or {}
    _adopt(cfg, saved)
    if cfg.backbone.name is None:
        raise UserError(f"checkpoint {path} doesn't name its backbone; set backbone.name, for example resnet18")
    backbone = build_backbone(
        cfg.backbone.name,
        method=vit_variant(cfg.pretrain_method, cfg.backbone.name),
        channels=cfg.data.channels,
        small=small_stem(cfg, saved),
        image_size=cfg.data.image_size,
        kwargs=OmegaConf.to_container(cfg.backbone.kwargs, resolve=True),  # type: ignore[arg-type]
    )
    load_backbone(backbone, backbone_state(checkpoint), path=path, name=cfg.backbone.name, saved=trained.get("name"))
    return backbone


class BackboneAndProjector(nn.Module):
    """Images -> features of the backbone and of the projector, beside each other: (B, F + P)."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, X: Tensor) -> Tensor:
        """The outputs `feats` and `z` of the method."""
        out = self.method(X)
        return torch.cat([out["feats"], out["z"]], dim=1)


def pretrained_method(cfg: DictConfig) -> nn.Module:
    """The whole method of the checkpoint, with its heads, built from the settings it was trained with.

    Backbone and image size are those of `cfg`, after `pretrained_backbone` has filled them in.

    Raises:
        UserError: the checkpoint doesn't say its method, or that has no projector, or it doesn't fit its weights.
    """
    path = checkpoint_file(cfg.pretrained_feature_extractor)
    checkpoint = load_checkpoint(path)
    saved, state = saved_settings(checkpoint, path)["cfg"], checkpoint["state_dict"]
    name = saved.get("method")
    if name is None or name not in METHODS:
        raise UserError(
            f"projector features need the method's settings, and {path} has none (method={name!r}); put the args.json "
            "of its run beside it, or leave projector out of feature_type"
        )
    if METHODS[name].heads is BaseMethod.heads:
        raise UserError(f"method {name!r} of {path} has no projector; use feature_type=backbone")
    settings = OmegaConf.create(saved)
    settings.backbone = cfg.backbone
    settings.data.image_size, settings.data.channels = cfg.data.image_size, cfg.data.channels
    if "classifier.weight" in state:
        settings.data.num_classes = len(state["classifier.weight"])
    method: nn.Module = METHODS[name](settings)
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} doesn't fit the method {name!r} built from its own settings: {reason}") from error
    return method


def _adopt(cfg: DictConfig, saved: Mapping[str, Any]) -> None:
    backbone = saved["cfg"].get("backbone") or {}
    if cfg.backbone.name is None:
        cfg.backbone.name = backbone.get("name")
    if not cfg.backbone.kwargs and cfg.backbone.name == backbone.get("name"):
        cfg.backbone.kwargs = backbone.get("kwargs") or {}
    if cfg.pretrain_method is None:
        cfg.pretrain_method = saved["cfg"].get("method")
    spec, data = get_spec(cfg.data.dataset), {**(saved["cfg"].get("data") or {}), **saved["data"]}
    own = {
        "image_size": spec.size,
        "channels": spec.channels,
        "mean": spec.eval_mean or spec.mean,
        "std": spec.eval_std or spec.std,
    }
    names = {"image_size": "size"}  # the checkpoint's word for it
    for key, default in own.items():
        if cfg.data[key] is None:
            value = data.get(names.get(key, key), data.get(key))
            cfg.data[key] = default if value is None else value


def small_stem(cfg: DictConfig, saved: Mapping[str, Any]) -> bool:
    """The stem is that of the images it was trained on."""
    name = saved["data"].get("dataset") or (saved["cfg"].get("data") or {}).get("dataset")
    return DATASETS.get(str(name), get_spec(cfg.data.dataset)).small_stem


def _load_weights(network: nn.Module, file: str, model: str) -> None:
    """All weights of `network` from a file; what else is in it, a classifier, is left out."""
    state, own = weights_of(Path(file).expanduser(), "pretrained"), network.state_dict()
    missing = [key for key in own if key not in state]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or shapes:
        raise UserError(
            f"pretrained={file} doesn't fit model={model}: {len(missing)} keys missing "
            f"({', '.join(missing[:3]) or '-'}), {len(shapes)} of another shape ({', '.join(shapes[:3]) or '-'}); "
            "give weights of this very model"
        )
    network.load_state_dict({key: state[key] for key in own})


def weights_of(path: Path, key: str) -> dict[str, Tensor]:
    """The weights in a file, a checkpoint or safetensors; `key` is the setting that names it, for the error.

    Raises:
        UserError: it is missing or can't be read.
    """
    if path.suffix != ".safetensors":
        return dict(load_checkpoint(path)["state_dict"])
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{key}={path} doesn't exist; give a file with the weights")
    try:
        return load_file(path)
    except Exception as error:  # safetensors' own
        raise UserError(f"{key}={path} can't be read ({error}); give a file with the weights") from error
