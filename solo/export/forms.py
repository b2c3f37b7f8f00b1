"""`modeling_solo.py`: a network that neither timm nor transformers knows, as code that travels with its weights.

It is the source of the backbone's own file and a class of transformers around it, so that
`AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` needs torch, torchvision, timm and transformers only.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, resources
from typing import Any

import torch

from solo.export.folder import Bundle

_STEM = """
        self.backbone.fc = nn.Identity()
        adapt_stem(self.backbone, "{name}", config.channels, config.small_stem)"""


def remote_code(bundle: Bundle) -> str | None:
    """The file's text; None for backbones that have no file of their own."""
    name = bundle.network.name
    module = import_module(f"solo.backbones.{'poolformer' if name.startswith('poolformer') else 'resnet'}")
    if not hasattr(module, name):
        return None
    stem = _STEM.format(name=name) if name.startswith("resnet") else ""
    wrapper = resources.files("solo.export").joinpath("modeling_solo.txt").read_text(encoding="utf-8")
    return f"{inspect.getsource(module)}\n\n{wrapper.format(name=name, stem=stem)}"


def remote_config(bundle: Bundle) -> dict[str, object]:
    """The `config.json` that lies beside the remote code."""
    kwargs = dict(bundle.network.kwargs)
    if not bundle.network.name.startswith("resnet"):
        kwargs = {"in_chans": bundle.network.channels, **kwargs}
    return {
        "architectures": ["SoloModel"],
        "model_type": "solo",
        "auto_map": {"AutoConfig": "modeling_solo.SoloConfig", "AutoModel": "modeling_solo.SoloModel"},
        "backbone_kwargs": kwargs,
        "channels": bundle.network.channels,
        "small_stem": bundle.network.small_stem,
        "hidden_size": bundle.features_dim,
    }


TOLERANCE = 1e-5  # of features, relative to their largest


@dataclass(frozen=True)
class TimmForm:
    """How timm builds a backbone whose state dict is ours."""

    architecture: str  # timm's name
    kwargs: dict[str, Any]  # for `timm.create_model`


def timm_form(bundle: Bundle) -> TimmForm | None:
    """The form that gives the same features; None if timm can't build this network."""
    import timm

    for form in _candidates(bundle):
        try:
            network = timm.create_model(form.architecture, **form.kwargs).eval()
            network.load_state_dict(bundle.backbone.state_dict())
        except (RuntimeError, TypeError, ValueError, AssertionError):  # other layers, or arguments it doesn't know
            continue
        with torch.no_grad():
            if close(network(bundle.example()), bundle.features(bundle.example())):
                return form
    return None


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether features are equal to 1e-5 of their largest."""
    bound = TOLERANCE * max(float(wanted.abs().max()), 1e-6)
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= bound)


def _candidates(bundle: Bundle) -> Iterator[TimmForm]:
    name, given = bundle.network.name, dict(bundle.network.kwargs)
    common = {"num_classes": 0, "in_chans": bundle.network.channels}
    if name.startswith(("resnet18", "resnet50", "resnet10")) and not bundle.network.small_stem:
        given.pop("zero_init_residual", None)  # at the start only
        given.pop("stem_stride", None)  # of the small stem
        width = given.pop("width", 64)
        if name == "resnet10" and width == 64:
            yield TimmForm("resnet18", {**common, **given, "layers": [1, 1, 1, 1]})
        elif name in ("resnet18", "resnet50"):
            yield TimmForm(name, {**common, **given})
    elif name.startswith("vit_") and name.count("_") == 1:
        heads: dict[str, Any] = {"num_heads": bundle.backbone.blocks[0].attn.num_heads}  # type: ignore[union-attr, index]
        if getattr(bundle.backbone, "cls_token", None) is None:  # features are the mean of the patches'
            heads |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
        patch = {"patch_size": given.pop("patch_size", 16)}
        size = {"img_size": given.pop("img_size", bundle.network.size)}
        given.pop("drop_path_rate", None)  # in training only
        yield TimmForm(f"{name}_patch16_224", {**common, **heads, **patch, **size, **given})
    else:
        config = getattr(bundle.backbone, "pretrained_cfg", None) or {}
        architecture = config.get("architecture")
        if architecture:
            size = {"img_size": bundle.network.size} if config.get("fixed_input_size") else {}
            given.pop("drop_path_rate", None)
            yield TimmForm(architecture, {**common, **size, **given})
            yield TimmForm(architecture, {**common, **given})
