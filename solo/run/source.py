"""The network that a command starts from: a checkpoint says what it is, or a published model is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from solo.args.eval_schema import FeatureCfg
from solo.args.schema import LinearCfg
from solo.backbones import build_backbone
from solo.backbones.published import published_model
from solo.checkpoint import backbone_state, checkpoint_file, load_backbone, load_checkpoint, saved_settings
from solo.data.catalogue.registry import DATASETS, get_spec
from solo.errors import UserError
from solo.methods import METHODS
from solo.methods.base import BaseMethod
from solo.methods.catalogue import vit_variant

Cfg = TypeVar("Cfg", bound=LinearCfg | FeatureCfg)
Features = TypeVar("Features", bound=FeatureCfg)


def source_backbone(cfg: Features) -> tuple[nn.Module, Features]:
    """The backbone of `cfg.model`, where it is set, else that of `cfg.pretrained_feature_extractor`.

    Returns:
        The backbone, and the config with what it left open of backbone and images, so that the run's files say what was
        evaluated.
    """
    return published_backbone(cfg) if cfg.model else pretrained_backbone(cfg)


def published_backbone(cfg: Features) -> tuple[nn.Module, Features]:
    """Build `cfg.model` with the weights that `cfg.pretrained` says; random ones are drawn from `cfg.seed`.

    Raises:
        UserError: see `published_model`; or the weights' file can't be read or doesn't fit.
    """
    model, data = str(cfg.model), cfg.data
    channels = data.channels or 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        found = published_model(model, cfg.pretrained is True, channels=channels, kwargs=cfg.backbone.kwargs)
    if isinstance(cfg.pretrained, str):
        _load_weights(found.network, cfg.pretrained, model)
    own = {"channels": channels, "image_size": found.size, "mean": tuple(found.mean), "std": tuple(found.std)}
    backbone = replace(cfg.backbone, name=model)
    return found.network, replace(cfg, backbone=backbone, data=_filled(data, own))


def _filled(section: Any, values: Mapping[str, Any]) -> Any:
    """A section with these values where it has none."""
    return replace(section, **{key: value for key, value in values.items() if getattr(section, key) is None})


def saved_data(path: str) -> dict[str, Any]:
    """The section `data` of the run that made a checkpoint, empty if it has none; paths are absolute."""
    checkpoint = checkpoint_file(path)
    saved = saved_settings(load_checkpoint(checkpoint), checkpoint)
    places = {name: place for name, place in (saved["data"].get("paths") or {}).items() if Path(place).parent.exists()}
    return {**(saved["cfg"].get("data") or {}), **places}


def pretrained_backbone(cfg: Cfg) -> tuple[nn.Module, Cfg]:
    """Build and load the backbone of `cfg.pretrained_feature_extractor`.

    Returns:
        The backbone, and the config in which the checkpoint, else the data set, has filled in what it left open:
        `backbone`, `pretrain_method`, `data.image_size`, `.channels`, `.mean`, `.std`.

    Raises:
        UserError: the checkpoint can't be read, doesn't fit, or neither side names the backbone.
    """
    path = checkpoint_file(str(cfg.pretrained_feature_extractor))
    checkpoint = load_checkpoint(path)
    saved = saved_settings(checkpoint, path)
    trained = saved["cfg"].get("backbone") or {}
    cfg = _adopt(cfg, saved)
    name = cfg.backbone.name
    if name is None:
        raise UserError(f"checkpoint {path} doesn't name its backbone; set backbone.name, for example resnet18")
    backbone = build_backbone(
        name,
        method=vit_variant(cfg.pretrain_method, name),
        channels=cfg.data.channels or 3,
        small=small_stem(cfg, saved),
        image_size=cfg.data.image_size,
        kwargs=cfg.backbone.kwargs,
    )
    load_backbone(backbone, backbone_state(checkpoint), path=path, name=name, saved=trained.get("name"))
    return backbone, cfg


class BackboneAndProjector(nn.Module):
    """Images -> features of the backbone and of the projector, beside each other: (B, F + P)."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, X: Tensor) -> Tensor:
        """The outputs `feats` and `z` of the method."""
        out = self.method(X)
        return torch.cat([out["feats"], out["z"]], dim=1)


def pretrained_method(cfg: FeatureCfg) -> nn.Module:
    """The whole method of the checkpoint, with its heads, built from the settings it was trained with.

    Backbone and image size are those of `cfg`, after `pretrained_backbone` has filled them in.

    Raises:
        UserError: the checkpoint doesn't say its method, or that has no projector, or it doesn't fit its weights.
    """
    path = checkpoint_file(str(cfg.pretrained_feature_extractor))
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
    settings.backbone = {"name": cfg.backbone.name, "kwargs": cfg.backbone.kwargs}
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


def _adopt(cfg: Cfg, saved: Mapping[str, Any]) -> Cfg:
    trained, backbone = saved["cfg"].get("backbone") or {}, cfg.backbone
    backbone = _filled(backbone, {"name": trained.get("name")})
    if not backbone.kwargs and backbone.name == trained.get("name"):
        backbone = replace(backbone, kwargs=dict(trained.get("kwargs") or {}))
    spec, data = cfg.data.spec, {**(saved["cfg"].get("data") or {}), **saved["data"]}
    row = get_spec(spec.name)
    own = {
        "image_size": row.size,
        "channels": row.channels,
        "mean": row.eval_mean or row.mean,
        "std": row.eval_std or row.std,
    }
    names = {"image_size": "size"}  # the checkpoint's word for it
    for key, default in own.items():
        value = data.get(names.get(key, key), data.get(key))
        own[key] = default if value is None else tuple(value) if isinstance(value, list) else value
    method = saved["cfg"].get("method") if cfg.pretrain_method is None else cfg.pretrain_method
    changed: Any = replace(cfg, backbone=backbone, data=_filled(cfg.data, own), pretrain_method=method)
    return changed  # type: ignore[no-any-return]


def small_stem(cfg: LinearCfg | FeatureCfg, saved: Mapping[str, Any]) -> bool:
    """The stem is that of the images it was trained on."""
    name = saved["data"].get("dataset") or (saved["cfg"].get("data") or {}).get("dataset")
    return DATASETS.get(str(name), cfg.data.spec).small_stem


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
