"""The network that a command starts from, whole or its weights: of a checkpoint, or a published model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from solo.args.config import freeze
from solo.args.eval_schema import EvaluateCfg, FeatureCfg
from solo.args.fields import check
from solo.args.schema import LinearCfg
from solo.backbones import build_backbone
from solo.backbones.registry import check_sizes, published_model
from solo.checkpoint import checkpoint_file, load_checkpoint, saved_settings
from solo.data.catalogue.registry import DATASETS, get_spec
from solo.errors import UserError
from solo.export.folder import Network
from solo.methods import METHODS
from solo.methods.base import BaseMethod
from solo.methods.catalogue import vit_variant
from solo.nn.networks import freeze_layers
from solo.nn.vit import add_adapters
from solo.taxonomy import Taxonomy
from solo.weights import load_weights

Cfg = TypeVar("Cfg", bound=LinearCfg | FeatureCfg)
Features = TypeVar("Features", bound=FeatureCfg)
READING = ("range", "exif", "background", "max_pixels")  # how files become images, beside their channels


class SavedRun(NamedTuple):
    """What a checkpoint holds, see `saved_run`."""

    file: Path
    state: Mapping[str, Tensor]  # the weights
    cfg: dict[str, Any]  # settings of the run, empty where the file has none
    data: dict[str, Any]  # section `data` of these, and what the run found out of its images
    small_stem: bool | None  # whether the stem is one for small images; None where nothing is known of these


def saved_run(path: str | Path) -> SavedRun:
    """Read a checkpoint, or that of a run's folder; a `UserError` where it can't be read."""
    file = checkpoint_file(path)
    checkpoint = load_checkpoint(file)
    saved = saved_settings(checkpoint, file)
    data = {**(saved["cfg"].get("data") or {}), **saved["data"]}
    small, spec = data.get("small_stem"), DATASETS.get(str(data.get("dataset")))
    if small is None and spec is not None:
        small = spec.small_stem
    return SavedRun(file, checkpoint["state_dict"], saved["cfg"], data, None if small is None else bool(small))


def saved_data(path: str) -> dict[str, Any]:
    """The section `data` of the run that made a checkpoint, empty if it has none; paths are absolute."""
    run = saved_run(path)
    places = {name: place for name, place in (run.data.get("paths") or {}).items() if Path(place).parent.exists()}
    return {**(run.cfg.get("data") or {}), **places}


def source_backbone(cfg: Features) -> tuple[nn.Module, Features]:
    """The backbone of `cfg.model` or a checkpoint, and the config with what that says of backbone and images."""
    if not cfg.model:
        return pretrained_backbone(cfg)
    model, channels = str(cfg.model), cfg.data.channels or 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        found = published_model(model, cfg.pretrained is True, channels=channels, kwargs=cfg.backbone.kwargs)
    if isinstance(cfg.pretrained, str):
        state = load_checkpoint(cfg.pretrained)["state_dict"]
        load_weights(found.network, state, path=f"pretrained={cfg.pretrained}", name=f"model={model}")
    own = {"channels": channels, "image_size": found.size, "mean": tuple(found.mean), "std": tuple(found.std)}
    return found.network, replace(cfg, backbone=replace(cfg.backbone, name=model), data=_filled(cfg.data, own))


def _filled(section: Any, values: Mapping[str, Any]) -> Any:
    return replace(section, **{key: value for key, value in values.items() if getattr(section, key) is None})


def pretrained_backbone(cfg: Cfg) -> tuple[nn.Module, Cfg]:
    """The backbone of a checkpoint, and the config with what it, else the data set, says where it is open."""
    run = saved_run(str(cfg.pretrained_feature_extractor))
    cfg = _adopt(cfg, run)
    name = cfg.backbone.name
    if name is None:
        raise UserError(f"checkpoint {run.file} doesn't name its backbone; set backbone.name, for example resnet18")
    size, channels = cfg.data.image_size, cfg.data.channels or 3
    small = cfg.data.spec.small_stem if run.small_stem is None else run.small_stem
    options: Any = {"channels": channels, "small": small, "image_size": size, "kwargs": cfg.backbone.kwargs}
    backbone = build_backbone(name, method=vit_variant(cfg.pretrain_method, name), **options)
    trained = (run.cfg.get("backbone") or {}).get("name")
    load_weights(backbone, run.state, path=f"checkpoint {run.file}", name=f"backbone.name='{name}'", saved=trained)
    if size is not None:
        check_sizes(backbone, name, {size: "data.image_size"}, channels)
    return backbone, cfg


def described_backbone(
    key: str, source: str, run: SavedRun, data: Mapping[str, Any]
) -> tuple[nn.Module, Network, Taxonomy | None]:
    """A backbone by the setting that names it, how it was built, and its label tree; `data` is known better."""
    name = data.get("dataset") or run.data.get("dataset")
    given = {**data, "dataset": name if name in DATASETS else "custom"}
    values, _ = check({key: source, "data": given}, EvaluateCfg)
    values["data"]["resolved"] = spec = get_spec(given["dataset"])
    backbone, cfg = source_backbone(freeze(values, EvaluateCfg))  # which fills in what is left open
    images, size = cfg.data, cfg.data.image_size or spec.size
    network = Network(
        name=str(cfg.backbone.name),
        kwargs=cfg.backbone.kwargs,
        method=cfg.pretrain_method,
        small_stem=spec.small_stem if run.small_stem is None else run.small_stem,
        channels=images.channels or 3,
        size=size,
        resize=round(spec.resize * size / spec.size) if spec.resize else None,
        mean=images.mean or spec.mean,
        std=images.std or spec.std,
        reading={key: run.data[key] for key in READING if run.data.get(key) is not None},
    )
    tree = run.data.get("taxonomy")
    return backbone, network, Taxonomy.from_dict(tree) if tree else spec.taxonomy


def _adopt(cfg: Cfg, run: SavedRun) -> Cfg:
    trained = run.cfg.get("backbone") or {}
    backbone = _filled(cfg.backbone, {"name": trained.get("name")})
    if not backbone.kwargs and backbone.name == trained.get("name"):
        backbone = replace(backbone, kwargs=dict(trained.get("kwargs") or {}))
    row = get_spec(cfg.data.spec.name)
    own = {"image_size": row.size, "channels": row.channels, **dict.fromkeys(READING)}
    own |= {"mean": row.eval_mean or row.mean, "std": row.eval_std or row.std}
    for key in own:
        value = run.data.get({"image_size": "size"}.get(key, key), run.data.get(key))  # the checkpoint's word for it
        if value is not None:
            own[key] = tuple(value) if isinstance(value, list) else value
    filled = _filled(cfg.data, own)  # and a data set whose files are read as the keys say
    keys = {key: getattr(filled, key) for key in READING if getattr(filled, key) is not None}
    spec = filled.spec if filled.channels in (None, 1, 3) else replace(filled.spec, channels=filled.channels)
    read = replace(spec, reading=replace(spec.reading, **keys, channels=spec.channels))
    method = run.cfg.get("method") if cfg.pretrain_method is None else cfg.pretrain_method
    changed: Any = replace(cfg, backbone=backbone, data=replace(filled, resolved=read), pretrain_method=method)
    return changed  # type: ignore[no-any-return]


def pretrained_method(cfg: FeatureCfg) -> nn.Module:
    """The whole method of the checkpoint, of its own settings, for the images of `cfg`; or a `UserError`."""
    run = saved_run(str(cfg.pretrained_feature_extractor))
    name = run.cfg.get("method")
    if name is None or name not in METHODS:
        cure = "put the args.json of its run beside it, or leave projector out of feature_type"
        what = f"projector features need the method's settings, and {run.file} has none (method={name!r})"
        raise UserError(f"{what}; {cure}")
    if METHODS[name].heads is BaseMethod.heads:
        raise UserError(f"method {name!r} of {run.file} has no projector; use feature_type=backbone")
    settings = OmegaConf.create(run.cfg)
    settings.backbone = {"name": cfg.backbone.name, "kwargs": cfg.backbone.kwargs}
    settings.data.image_size, settings.data.channels = cfg.data.image_size, cfg.data.channels
    if "classifier.weight" in run.state:
        settings.data.num_classes = len(run.state["classifier.weight"])
    method: nn.Module = METHODS[name](settings)
    called = f"the method {name!r} built from its own settings"
    load_weights(method, run.state, path=f"checkpoint {run.file}", name=called)
    return method


def start_from(model: BaseMethod, source: str, channels: int) -> None:
    """Load a method's backbone, and a slow copy, from `timm/NAME`, `torchvision/NAME` or a file; or a `UserError`."""
    try:
        if source.startswith(("timm/", "torchvision/")):
            try:
                with torch.random.fork_rng(devices=[]):  # the method's own weights don't depend on it
                    state = published_model(source, channels=channels).network.state_dict()
            except UserError as error:
                reason = str(error).split("; set pretrained=")[0]
                raise UserError(f"{source}: {reason}; a file with the weights is possible, too") from error
        else:
            state = load_checkpoint(source)["state_dict"]
        load_weights(model.backbone, state, path=source, name=f"backbone.name='{model.backbone_name}'")
    except UserError as error:
        raise UserError(f"finetune_from: {error}") from error
    for online, slow in getattr(model, "momentum_pairs", []):
        slow.load_state_dict(online.state_dict())


def adapt(model: BaseMethod, rank: int) -> None:
    """Freeze the backbone but for `finetune_layers`, and train adapters of its attention (timm's) instead."""
    model.frozen_layers = freeze_layers(model.backbone, model.config.finetune_layers or ())
    if not add_adapters(model, "backbone", rank):
        cure = f"{model.backbone_name!r} has none, take finetune_layers or leave it out"
        raise UserError(f"finetune_lora={rank} needs a backbone with attention (a ViT, Swin, ... of timm); {cure}")
