"""Name -> backbone: our own names, then timm's; `timm/NAME`, `torchvision/NAME` with their published weights."""

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from solo import plugin
from solo.backbones import resnet
from solo.errors import UserError, did_you_mean, explained

# Called as `constructor(method, *args, **kwargs)`: `method` chooses the variant of some backbones, or is None.
Constructor = Callable[..., nn.Module]


def _of_timm(module: str, build: str, *args: Any, **kwargs: Any) -> nn.Module:
    """Made in one of the modules that import timm, which takes longer than all of this package."""
    import_module("solo.backbones.from_timm")  # first: it knows how
    made: nn.Module = getattr(import_module(f"solo.backbones.{module}"), build)(*args, **kwargs)
    return made


_timms = partial(_of_timm, "from_timm", "timm_model")
# Swin: Liu et al., https://arxiv.org/abs/2103.14030; ConvNeXt: Liu et al., https://arxiv.org/abs/2201.03545.
_SIZES, _POOLFORMERS = ("tiny", "small", "base", "large"), ("s12", "s24", "s36", "m36", "m48")
BACKBONES: dict[str, Constructor] = {
    **{name: getattr(resnet, name) for name in ("conv3", "resnet10", "resnet18", "resnet50")},
    **{f"vit_{size}": partial(_of_timm, "from_timm", "vit", size) for size in _SIZES},
    **{f"swin_{size}": partial(_timms, f"swin_{size}_patch4_window7_224") for size in _SIZES},
    **{f"convnext_{size}": partial(_timms, f"convnext_{size}") for size in _SIZES},
    **{f"poolformer_{size}": partial(_of_timm, "poolformer", f"poolformer_{size}") for size in _POOLFORMERS},
    **{name: getattr(resnet, name) for name in ("wide_resnet28w2", "wide_resnet28w8")},
}

# What timm's and torchvision's constructors load from a file or an address.
_WEIGHTS = {"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "weights", "cache_dir"}
_WORD = re.compile(r"\w[\w -]{0,60}|")
_LARGEST = 2**17


def find_backbone(name: str, table: Mapping[str, Constructor] = BACKBONES) -> Constructor:
    """The constructor of a backbone: of the table, timm's, or `module:function` of the user's own code.

    The latter is called as timm's are, `function(in_chans=.., **kwargs)`, and what it makes says in `num_features` how
    wide its features are. Raises a `UserError` if neither has the name; says which ones are close.
    """
    if name in table:
        return table[name]
    if plugin.is_path(name):
        found = plugin.load(name, "backbone.name", "a torch.nn.Module")
        offered = {"method", "in_chans", "img_size"} - inspect.signature(found).parameters.keys()

        def construct(method: str | None = None, *args: Any, **kwargs: Any) -> nn.Module:
            given = {"method": method, **kwargs}
            made: nn.Module = found(*args, **{key: value for key, value in given.items() if key not in offered})
            if not isinstance(made, nn.Module):
                raise UserError(f"backbone.name={name} makes a {type(made).__name__}; it must return a torch.nn.Module")
            return made

        return construct
    from solo.backbones.from_timm import timm, timm_model

    if timm.is_model(name.split(".")[0]):
        return partial(timm_model, name)
    known = [*table, *timm.list_models(exclude_filters="test_*")]
    begins = next((other for other in known if name and other.startswith(name)), None)
    hint = f"did you mean {begins!r}? " if begins else did_you_mean(name, known)
    what = f"backbone.name={name!r} is unknown; {hint}choose one of {', '.join(table)} or any model of timm"
    raise UserError(f"{what} (list them with timm.list_models())")


def build_backbone(
    name: str,
    method: str | None = None,
    *,
    channels: int = 3,
    small: bool = False,
    image_size: int | None = None,
    several_sizes: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    table: Mapping[str, Constructor] = BACKBONES,
) -> nn.Module:
    """A backbone without classifier: images (N, channels, H, W) -> features (N, `features_dim(backbone)`).

    `name` is ours or timm's, `method` a registry name, for backbones that differ by it. With `small` a ResNet gets the
    stem for small images. `image_size`, of a side in pixels, counts for models of a fixed size (ViT, Swin, ...), and
    with `several_sizes` others come, too (small views), for which a ViT interpolates its positions. `kwargs` are the
    constructor's, preferred to what follows from `image_size`. Of `table`, constructors by name, those that aren't ours
    get the method and the kwargs only. Raises a `UserError`: an unknown name, or kwargs that the constructor refuses.
    """
    constructor = find_backbone(name, table)
    # A program may add its own, which are called as solo-learn calls them.
    made_in = getattr(getattr(constructor, "func", constructor), "__module__", "")
    ours = name not in table or made_in.startswith("solo.backbones.")
    given = checked_kwargs(kwargs or {}) if ours else dict(kwargs or {})
    if ours and not (name in table and name.startswith("resnet")):
        fixed = plugin.is_path(name) or name.startswith(("vit_", "swin_"))
        if not plugin.is_path(name) and name not in BACKBONES:
            from solo.backbones.from_timm import timm

            config = timm.get_pretrained_cfg(name)
            fixed = config is not None and config.fixed_input_size and config.input_size[-1] != image_size
        size = {"img_size": image_size} if fixed and image_size is not None else {}
        given = {"in_chans": channels, **size, **given}
        if several_sizes and name.startswith("vit_"):
            given = {"dynamic_img_size": True, **given}
    try:
        backbone = constructor(method, **given)
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError, IndexError) as error:
        raise UserError(f"backbone.kwargs={given} don't fit the backbone {name!r}: {error}") from error
    if name in table and name.startswith("resnet") and hasattr(backbone, "fc"):
        backbone.fc = nn.Identity()
    resnet.adapt_stem(backbone, name, channels, small)
    return backbone


def checked_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's settings, which somebody else may have stored; a `UserError` unless plain, without files."""
    for key, value in kwargs.items():
        if key in _WEIGHTS or not _is_plain(value):
            what = f"{key}={str(value)[:60]!r} is refused: numbers below {_LARGEST:,} and words are allowed, no files"
            cure = "finetune_from and pretrained_feature_extractor load weights"
            raise UserError(f"backbone.kwargs: {what}, addresses or weights; {cure}")
    return dict(kwargs)


def _is_plain(value: Any, depth: int = 4) -> bool:
    if isinstance(value, (Mapping, list, tuple)):
        parts = [*value, *value.values()] if isinstance(value, Mapping) else value
        return depth > 0 and len(parts) < 1000 and all(_is_plain(part, depth - 1) for part in parts)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, (bool, int, float)):
        return abs(value) < _LARGEST
    return value is None or callable(value)  # which only code can give


def features_dim(backbone: nn.Module) -> int:
    """Width of a backbone's features; a `UserError` if it has neither `inplanes` nor `num_features`."""
    # Some timm models (MobileNetV3, ...) widen their features after `num_features`, inside the pooled head.
    for attribute in ("inplanes", "head_hidden_size", "num_features"):
        value = getattr(backbone, attribute, None)
        if isinstance(value, int):
            return value
    what = f"the width of the features of {type(backbone).__name__} is unknown"
    raise UserError(f"{what}; give the backbone an attribute `num_features` (int)")


@dataclass(frozen=True)
class Published:
    """A model without classifier, and what its weights expect of images."""

    network: nn.Module  # images (N, C, H, W) -> features (N, d)
    size: int  # pixels
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]  # likewise


def published_model(
    name: str, fetch: bool = True, *, channels: int = 3, kwargs: Mapping[str, Any] | None = None
) -> Published:
    """Build `timm/NAME` or `torchvision/NAME`, without its classifier; `kwargs` are the library's.

    `fetch` gets its published weights; else they are random. Torchvision's models take 3 channels. Raises a `UserError`
    for an unknown library or model, weights that can't be fetched, kwargs that it refuses.
    """
    library, _, model = name.partition("/")
    if library not in ("timm", "torchvision") or not model:
        raise UserError(f"model={name!r} is unknown; give timm/NAME or torchvision/NAME, for example timm/resnet18")
    build, given = _timm if library == "timm" else _torchvision, checked_kwargs(kwargs or {})
    what, cure = f"model={name} can't be built", "other backbone.kwargs may help"
    if fetch:
        what = f"the weights of model={name} can't be fetched"
        cure = "set pretrained=FILE to a file with them, or pretrained=false for random ones"
    with explained(what, cure):  # whatever the two and their ways to fetch raise
        try:
            return build(model, fetch, channels, given)
        except TypeError as error:
            raise UserError(f"backbone.kwargs={given} don't fit model={name}: {error}") from error


def _timm(name: str, fetch: bool, channels: int, kwargs: dict[str, Any]) -> Published:
    from solo.backbones.from_timm import timm, timm_model

    if not timm.is_model(name.split(".")[0]):
        hint = f"{did_you_mean(name, timm.list_models())}timm.list_models() lists them"
        raise UserError(f"model=timm/{name} is unknown to timm; {hint}")
    network = timm_model(name, None, pretrained=fetch, in_chans=channels, **kwargs)
    data: Any = timm.data
    known = data.resolve_model_data_config(network)
    mean, std = known["mean"], known["std"]
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return Published(network, int(kwargs.get("img_size") or known["input_size"][-1]), mean, std)


def _torchvision(name: str, fetch: bool, channels: int, kwargs: dict[str, Any]) -> Published:
    from torchvision import models

    if name not in (known := models.list_models(module=models)):
        hint = f"{did_you_mean(name, known)}torchvision.models.list_models() lists them"
        raise UserError(f"model=torchvision/{name} is unknown to torchvision; {hint}")
    if channels != 3:
        raise UserError(f"model=torchvision/{name} takes images of 3 channels, not {channels}; set data.channels=3")
    network: nn.Module = models.get_model(name, weights="DEFAULT" if fetch else None, **kwargs)
    last = [place for place, module in network.named_modules() if isinstance(module, nn.Linear)][-1:]
    if not last:
        raise UserError(f"model=torchvision/{name} has no linear classifier to take off; take timm's {name}")
    parent, _, child = last[0].rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    chosen: Any = models.get_model_weights(name).DEFAULT.transforms()
    size = chosen.crop_size[0] if isinstance(chosen.crop_size, (list, tuple)) else chosen.crop_size
    return Published(network, int(size), tuple(chosen.mean), tuple(chosen.std))


def side_of_patch(backbone: Any) -> int:
    """Pixels of which an image's side has to be a multiple; 1 for networks that take any."""
    embed: Any = getattr(backbone, "patch_embed", None)
    patches = getattr(embed, "patch_size", None)
    pads = getattr(embed, "dynamic_img_pad", False) or not hasattr(embed, "num_patches")
    return int(patches[0]) if isinstance(patches, tuple) and not pads else 1


@torch.no_grad()
def check_sizes(backbone: nn.Module, name: str, sizes: Mapping[int, str], channels: int) -> None:
    """Raise a `UserError` if a backbone, left as it is, takes no images of these sizes (pixels -> their setting)."""
    side = side_of_patch(backbone)
    modes = [(module, module.training) for module in backbone.modules()]
    device = next((parameter.device for parameter in backbone.parameters()), torch.device("cpu"))
    try:
        backbone.eval()
        for size, key in sizes.items():
            if size % side:
                near = " or ".join(str(count * side) for count in (size // side, size // side + 1) if count)
                what = f"{key}={size} is no multiple of the {side} pixels of a patch of backbone.name={name!r}"
                raise UserError(f"{what}; choose {near}, or another backbone.kwargs.patch_size")
            what = f"{key}={size} doesn't fit backbone.name={name!r}"
            kinds = (ValueError, TypeError, IndexError)
            with explained(what, "choose another size, or other backbone.kwargs", RuntimeError, AssertionError, *kinds):
                features = backbone(torch.zeros(1, channels, size, size, device=device))
            if not isinstance(features, Tensor) or features.ndim != 2:
                shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
                raise UserError(f"backbone.name={name!r} gives {shape} for one image; it must give features (N, width)")
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def check_single(backbone: nn.Module, size: int, channels: int) -> None:
    """Raise a `UserError` if a backbone can't be trained on one image: its BatchNorm has a single value a channel."""
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(backbone).train()(torch.zeros(1, channels, size, size))
        except ValueError as error:
            what = "optimizer.batch_size=1 is too small: BatchNorm of this backbone has one value a channel"
            raise UserError(f"{what} in an image of {size} pixels; give at least 2") from error
