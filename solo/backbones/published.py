"""Models of timm and torchvision with their published weights: `timm/NAME`, `torchvision/NAME`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from solo.backbones.registry import checked_kwargs
from solo.errors import UserError
from solo.suggest import did_you_mean

_IMAGENET: tuple[tuple[float, ...], tuple[float, ...]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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

    `fetch` says whether it gets its published weights, or random ones; torchvision's models take 3 channels. Raises a
    `UserError`: an unknown library or model, weights that can't be fetched, kwargs that it refuses.
    """
    library, _, model = name.partition("/")
    if library not in ("timm", "torchvision") or not model:
        raise UserError(f"model={name!r} is unknown; give timm/NAME or torchvision/NAME, for example timm/resnet18")
    build, given = _timm if library == "timm" else _torchvision, checked_kwargs(kwargs or {})
    try:
        return build(model, fetch, channels, given)
    except UserError:
        raise
    except TypeError as error:
        raise UserError(f"backbone.kwargs={given} don't fit model={name}: {error}") from error
    except Exception as error:  # whatever the two and their ways to fetch raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if not fetch:
            raise UserError(f"model={name} can't be built ({reason}); other backbone.kwargs may help") from error
        what = f"the weights of model={name} can't be fetched ({reason}); set pretrained=FILE to a file with them"
        raise UserError(f"{what}, or pretrained=false for random ones") from error


def _timm(name: str, fetch: bool, channels: int, kwargs: dict[str, Any]) -> Published:
    from solo.backbones.from_timm import timm, timm_model

    if not timm.is_model(name.split(".")[0]):
        hint = f"{did_you_mean(name, timm.list_models())}timm.list_models() lists them"
        raise UserError(f"model=timm/{name} is unknown to timm; {hint}")
    network = timm_model(name, None, pretrained=fetch, in_chans=channels, **kwargs)
    known: dict[str, Any] = dict(getattr(network, "pretrained_cfg", None) or {})
    mean, std = (tuple(known.get(key) or default) for key, default in zip(("mean", "std"), _IMAGENET, strict=True))
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    size = kwargs.get("img_size") or (known.get("input_size") or (3, 224, 224))[-1]
    return Published(network, int(size), mean, std)


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
