"""Name -> backbone. Our own names come first, every other name is timm's."""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from solo import plugin
from solo.backbones import resnet, small, wide_resnet
from solo.backbones.resnet import adapt_stem
from solo.errors import UserError
from solo.suggest import did_you_mean

# Called as `constructor(method, *args, **kwargs)`: `method` chooses the variant of some backbones, or is None.
Constructor = Callable[..., nn.Module]


def _of_timm(module: str, name: str, method: str | None = None, *args: Any, **kwargs: Any) -> nn.Module:
    """One of a module that imports timm, which takes longer than all of this package."""
    import_module("solo.backbones.from_timm")  # first: it knows how
    made: nn.Module = getattr(import_module(f"solo.backbones.{module}"), name)(method, *args, **kwargs)
    return made


BACKBONES: dict[str, Constructor] = {
    name: partial(_of_timm, module, name) if isinstance(module, str) else getattr(module, name)
    for module, names in (
        (small, "conv3"),
        (resnet, "resnet10 resnet18 resnet50"),
        ("vit", "vit_tiny vit_small vit_base vit_large"),
        ("from_timm", "swin_tiny swin_small swin_base swin_large"),
        ("from_timm", "convnext_tiny convnext_small convnext_base convnext_large"),
        ("poolformer", "poolformer_s12 poolformer_s24 poolformer_s36 poolformer_m36 poolformer_m48"),
        (wide_resnet, "wide_resnet28w2 wide_resnet28w8"),
    )
    for name in names.split()
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
        found = plugin.load_callable(name, "backbone.name", "a torch.nn.Module")
        offered = {"method", "in_chans", "img_size"} - inspect.signature(found).parameters.keys()

        def construct(method: str | None = None, *args: Any, **kwargs: Any) -> nn.Module:
            """Of these three, what the constructor takes."""
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

    Args:
        name: ours or timm's.
        method: registry name of the method, for backbones that differ by it.
        channels: channels of the images.
        small: give a ResNet the stem for small images.
        image_size: side of the images in pixels; only used by models with a fixed size (ViT, Swin, ...).
        several_sizes: images of other sizes come, too (small views), for which a ViT interpolates its positions.
        kwargs: passed to the constructor, and preferred to what follows from `image_size`.
        table: the constructors by name; one that isn't ours is called with the method and the kwargs only.

    Raises:
        UserError: if the name is unknown or the constructor refuses the kwargs.
    """
    constructor = find_backbone(name, table)
    # A program may add its own, which are called as solo-learn calls them.
    made_in = getattr(getattr(constructor, "func", constructor), "__module__", "")
    ours = name not in table or made_in.startswith("solo.backbones.")
    given = checked_kwargs(kwargs or {}) if ours else dict(kwargs or {})
    if ours and not (name in table and name.startswith("resnet")):
        if plugin.is_path(name):
            fixed = True
        elif name in BACKBONES:
            fixed = name.startswith(("vit_", "swin_"))
        else:
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
    adapt_stem(backbone, name, channels, small)
    return backbone


def checked_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's settings, which may come from somebody else's checkpoint or recipe: plain values, no files.

    Raises a `UserError`: one of them names weights to load, or is no number, short word, or list or mapping of them.
    """
    for key, value in kwargs.items():
        if key in _WEIGHTS or not _is_plain(value):
            raise UserError(
                f"backbone.kwargs: {key}={str(value)[:60]!r} is refused: numbers below {_LARGEST:,} and words are "
                "allowed, no files, addresses or weights; finetune_from and pretrained_feature_extractor load weights"
            )
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
    """Width of a backbone's features.

    Raises a `UserError` if the backbone has neither `inplanes` nor `num_features`.
    """
    # Some timm models (MobileNetV3, ...) widen their features after `num_features`, inside the pooled head.
    for attribute in ("inplanes", "head_hidden_size", "num_features"):
        value = getattr(backbone, attribute, None)
        if isinstance(value, int):
            return value
    what = f"the width of the features of {type(backbone).__name__} is unknown"
    raise UserError(f"{what}; give the backbone an attribute `num_features` (int)")
