"""One function for each program that a backbone is exported to; all of them are in `TARGETS`.

A target writes its files into a folder and returns how they are read back: lines of Python for people, and a function
that gives the features of images, which `export` compares before it says that all is well.
"""

import importlib.util
import json
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solo.errors import UserError
from solo.export.folder import Bundle, Reading, model_card, write_description
from solo.export.forms import TimmForm, close, remote_code, remote_config, timm_form
from solo.export.programs import onnx, torch_export
from solo.files import output_file, replacing, write_text


@dataclass(frozen=True)
class Target:
    """A program that reads the folder."""

    write: Callable[[Bundle, Path], Reading]  # writes the files, says how they are read
    needs: tuple[str, ...]  # packages without which it can't be written
    help: str  # one line for people


@dataclass(frozen=True)
class Exported:
    """What was written, and how it is loaded."""

    folder: Path  # where
    usage: list[str]  # lines of Python that load it
    checked: bool  # whether it was read back that way, with the same features (to 1e-5 of the largest)


def export(bundle: Bundle, to: str, folder: str | Path) -> Exported:
    """Write `bundle` for the program `to`, one of `TARGETS`, read it back and compare the features.

    The folder is made if it isn't there; files of the same names are replaced.

    Raises:
        UserError: an unknown target, a network that it doesn't know, a package that is missing, or other features
            after reading it back.
    """
    if to not in TARGETS:
        raise UserError(f"to={to!r} is unknown; choose one of {', '.join(TARGETS)}")
    target, folder = TARGETS[to], Path(folder).expanduser()
    missing = [name for name in target.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"to={to} needs {' and '.join(missing)}; install them with pip install 'solo-hex[export]'")
    if os.path.exists(folder) and not folder.is_dir():
        raise UserError(f"out={folder} is a file; give a folder")
    new = not os.path.exists(folder)
    output_file(folder / "README.md")
    try:
        reading = target.write(bundle, folder)
    except UserError:
        if new and not any(folder.iterdir()):
            folder.rmdir()
        raise
    write_description(bundle, folder, model_card(bundle, reading.usage))
    if reading.features is not None:
        images = bundle.example()
        with torch.no_grad():
            found = reading.features(images)
        if not close(found, bundle.features(images)):
            raise UserError(f"{folder}: {to} gives other features than the run; please report this network")
    return Exported(folder, reading.usage, reading.features is not None)


def _weights(folder: Path, state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(folder / "model.safetensors") as temporary:
        save_file({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, temporary)


def _safetensors(bundle: Bundle, folder: Path) -> Reading:
    from safetensors.torch import load_file

    classifier = {f"classifier.{key}": value for key, value in (bundle.classifier or {}).items()}
    backbone = {f"backbone.{key}": value for key, value in bundle.backbone.state_dict().items()}
    _weights(folder, {**backbone, **classifier})
    usage = ["import solo", "", f'model = solo.load("{folder.name}")', 'features = model.embed("FOLDER_OF_IMAGES")']

    def features(images: Tensor) -> Tensor:
        import copy

        network = copy.deepcopy(bundle.backbone)
        state = load_file(folder / "model.safetensors")
        network.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})
        return network(images)  # type: ignore[no-any-return]

    return Reading(usage, features)


def _timm(bundle: Bundle, folder: Path) -> Reading:
    form = timm_form(bundle)
    if form is None:
        raise UserError(
            f"timm has no network like {_described(bundle)}; to=hf brings its code along, to=onnx, torch_export and "
            "safetensors need none"
        )
    _write_timm(bundle, form, folder)
    usage = ["import timm", "", f'model = timm.create_model("local-dir:{folder.name}", pretrained=True).eval()']
    usage.append("transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))")

    def features(images: Tensor) -> Tensor:
        import timm

        network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return network(images)  # type: ignore[no-any-return]

    return Reading(usage, features)


def _write_timm(bundle: Bundle, form: TimmForm, folder: Path) -> None:
    """`config.json` in timm's form, which transformers reads, too, and the weights."""
    import timm

    known: Any = timm.create_model(form.architecture, **form.kwargs).pretrained_cfg
    config = {
        "architecture": form.architecture,
        "num_classes": 0,
        "num_features": bundle.features_dim,
        "model_args": {key: value for key, value in form.kwargs.items() if key != "num_classes"},
        "pretrained_cfg": {
            "input_size": [bundle.network.channels, bundle.network.size, bundle.network.size],
            "fixed_input_size": bool(known.get("fixed_input_size")),
            "interpolation": "bilinear",
            "crop_pct": bundle.network.size / bundle.network.resize if bundle.network.resize else 1.0,
            "crop_mode": "center" if bundle.network.resize else "squash",
            "mean": list(bundle.network.mean),
            "std": list(bundle.network.std),
            "num_classes": 0,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    _weights(folder, bundle.backbone.state_dict())


def _hf(bundle: Bundle, folder: Path) -> Reading:
    form = timm_form(bundle)
    code = None if form else remote_code(bundle)
    if form is not None:
        _write_timm(bundle, form, folder)
    elif code is not None:
        write_text(folder / "modeling_solo.py", code)
        write_text(folder / "config.json", json.dumps(remote_config(bundle), indent=2) + "\n")
        _weights(folder, {f"backbone.{key}": value for key, value in bundle.backbone.state_dict().items()})
    else:
        known = "take to=onnx, torch_export, safetensors"
        raise UserError(f"transformers has no network like {_described(bundle)}; {known}")
    trust = ", trust_remote_code=True" if code else ""
    usage = ["from transformers import AutoModel", ""]
    usage += [f'model = AutoModel.from_pretrained("{folder.name}"{trust}).eval()']
    usage += ["features = model(pixel_values=images).pooler_output"]
    if importlib.util.find_spec("transformers") is None:
        return Reading(usage, None)

    def features(images: Tensor) -> Tensor:
        from transformers import AutoModel
        from transformers.utils import logging as hf_logging

        hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        network = AutoModel.from_pretrained(str(folder), **({"trust_remote_code": True} if code else {})).eval()
        return network(pixel_values=images).pooler_output  # type: ignore[no-any-return]

    return Reading(usage, features)


def _torchvision(bundle: Bundle, folder: Path) -> Reading:
    name, width = bundle.network.name, bundle.network.kwargs.get("width", 64)
    plain = name in ("resnet18", "resnet50") or (name == "resnet10" and width == 64)
    if not plain or bundle.network.small_stem or bundle.network.channels != 3:
        raise UserError(
            f"torchvision has no network like {_described(bundle)}; it has resnet18, resnet50 and resnet10 of width 64 "
            "with three channels and the stem for large images; to=hf brings the code along"
        )
    with replacing(folder / "model.pth") as temporary:
        torch.save(bundle.backbone.state_dict(), temporary)
    where, build = f"torchvision.models import {name}", f"{name}()"
    if name == "resnet10":
        where, build = "torchvision.models.resnet import BasicBlock, ResNet", "ResNet(BasicBlock, [1, 1, 1, 1])"
    usage = ["import torch", f"from {where}", "", f"model = {build}", "model.fc = torch.nn.Identity()"]
    usage.append(f'model.load_state_dict(torch.load("{folder.name}/model.pth", weights_only=True))')

    def features(images: Tensor) -> Tensor:
        from torchvision.models import resnet

        network = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]) if name == "resnet10" else getattr(resnet, name)()
        network.fc = nn.Identity()
        network.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
        return network.eval()(images)  # type: ignore[no-any-return]

    return Reading(usage, features)


def _detectron2(bundle: Bundle, folder: Path) -> Reading:
    if bundle.network.name not in ("resnet18", "resnet50") or bundle.network.small_stem or bundle.network.channels != 3:
        raise UserError(
            f"detectron2 reads resnet18 and resnet50 with three channels and the stem for large images, not "
            f"{_described(bundle)}"
        )
    named = {_detectron_key(key): value.cpu().numpy() for key, value in bundle.backbone.state_dict().items()}
    with replacing(folder / "model.pkl") as temporary:
        # detectron2's own form of weights; it is written here, and never read.
        temporary.write_bytes(pickle.dumps({"model": named, "__author__": "solo", "matching_heuristics": True}))
    usage = f'cfg.MODEL.WEIGHTS = "{folder.name}/model.pkl"  # and MODEL.PIXEL_MEAN, PIXEL_STD of the card'
    return Reading([usage], None)


def _detectron_key(key: str) -> str:
    """The name of torchvision's weight in detectron2's ResNet: `layer1.0.bn1.weight` -> `res2.0.conv1.norm.weight`."""
    key = key if key.startswith("layer") else f"stem.{key}"
    renamed = {f"layer{stage}": f"res{stage + 1}" for stage in range(1, 5)}
    renamed |= {f"bn{place}": f"conv{place}.norm" for place in range(1, 4)}
    renamed |= {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
    for old, new in renamed.items():
        key = key.replace(old, new)
    return key


def _described(bundle: Bundle) -> str:
    kwargs = f" {dict(bundle.network.kwargs)}" if bundle.network.kwargs else ""
    stem = " with the stem for small images" if bundle.network.small_stem else ""
    return f"{bundle.network.name}{kwargs}{stem} for {bundle.network.channels} channels"


TARGETS: dict[str, Target] = {
    "safetensors": Target(_safetensors, (), "weights for solo.load and any program that names them itself"),
    "timm": Target(_timm, (), "timm.create_model('local-dir:FOLDER'), and the hub as hf-hub:"),
    "hf": Target(_hf, (), "transformers' AutoModel; its code comes along where needed"),
    "torchvision": Target(_torchvision, (), "state dict of torchvision's ResNets"),
    "onnx": Target(onnx, ("onnx", "onnxscript"), "any runtime of ONNX, any batch size"),
    "torch_export": Target(torch_export, (), "a program of torch.export, any batch size"),
    "detectron2": Target(_detectron2, (), "ResNet weights of detectron2, for VOC and COCO"),
}
