"""Writers of a backbone for other programs, `TARGETS`; each says how its folder is read, and `export` tries it."""

import copy
import importlib.util
import inspect
import json
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solo.errors import UserError
from solo.export.folder import Bundle, model_card, write_description
from solo.files import output_file, replacing, write_text

TimmForm = tuple[str, dict[str, Any]]  # timm's name of an architecture, and arguments of `timm.create_model`
# How an exported folder is read: lines of Python, and what loads a network, images (B, C, H, W) -> features (B, F) for
# any B; None where its package is missing.
Reading = tuple[list[str], Callable[[], Callable[[Tensor], Tensor]] | None]


@dataclass(frozen=True)
class Exported:
    """What was written, and how it is loaded."""

    folder: Path  # where
    usage: list[str]  # lines of Python that load it
    checked: bool  # whether it was read back that way, with the same features (to 1e-5 of the largest)


def export(bundle: Bundle, to: str, folder: str | Path) -> Exported:
    """Write `bundle` for the program `to`, one of `TARGETS`, read it back and compare features; or a `UserError`."""
    if to not in TARGETS:
        raise UserError(f"to={to!r} is unknown; choose one of {', '.join(TARGETS)}")
    folder = Path(folder).expanduser()
    new = not os.path.exists(folder)
    if not new and not folder.is_dir():
        raise UserError(f"out={folder} is a file; give a folder")
    output_file(folder / "README.md")
    try:
        usage, load = TARGETS[to](bundle, folder)
    except UserError:
        if new and not any(folder.iterdir()):
            folder.rmdir()
        raise
    write_description(bundle, folder, model_card(bundle, usage))
    if load is not None:
        images, network = bundle.example(), load()
        with torch.no_grad():
            same = _close(torch.cat([network(image) for image in images[:, None]]), bundle.backbone(images))
        if not same:
            raise UserError(f"{folder}: {to} gives other features than the run; please report this network")
    return Exported(folder, usage, load is not None)


def _close(found: Tensor, wanted: Tensor) -> bool:
    """Whether features are equal to 1e-5 of their largest."""
    bound = 1e-5 * max(float(wanted.abs().max()), 1e-6)
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= bound)


def _write_weights(folder: Path, state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(folder / "model.safetensors") as temporary:
        save_file({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, temporary)


def _no_network(program: str, bundle: Bundle, cure: str) -> UserError:
    kwargs = f" {dict(bundle.network.kwargs)}" if bundle.network.kwargs else ""
    stem = " with the stem for small images" if bundle.network.small_stem else ""
    network = f"{bundle.network.name}{kwargs}{stem} for {bundle.network.channels} channels"
    return UserError(f"{program} has no network like {network}; {cure}")


def _safetensors(bundle: Bundle, folder: Path) -> Reading:
    from safetensors.torch import load_file

    parts = {"backbone": bundle.backbone.state_dict(), "classifier": bundle.classifier or {}}
    _write_weights(folder, {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()})

    def load() -> nn.Module:
        network, state = copy.deepcopy(bundle.backbone), load_file(folder / "model.safetensors")
        network.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})
        return network

    usage = ["import solo", "", f'model = solo.load("{folder.name}")', 'features = model.embed("FOLDER_OF_IMAGES")']
    return usage, load


def _timm_form(bundle: Bundle) -> TimmForm | None:
    """How timm builds a network whose state dict and features are ours; None if it can't."""
    import timm

    form = _candidate(bundle)
    if form is None:
        return None
    try:
        network = timm.create_model(form[0], **form[1]).eval()
        network.load_state_dict(bundle.backbone.state_dict())
    except (RuntimeError, TypeError, ValueError, AssertionError):  # other layers, or arguments it doesn't know
        return None
    with torch.no_grad():
        return form if _close(network(bundle.example()), bundle.backbone(bundle.example())) else None


def _candidate(bundle: Bundle) -> TimmForm | None:
    name, given = bundle.network.name, dict(bundle.network.kwargs)
    common = {"num_classes": 0, "in_chans": bundle.network.channels}
    if name.startswith(("resnet18", "resnet50", "resnet10")) and not bundle.network.small_stem:
        given.pop("zero_init_residual", None)  # at the start only
        given.pop("stem_stride", None)  # of the small stem
        width = given.pop("width", 64)
        if name == "resnet10" and width == 64:
            return ("resnet18", {**common, **given, "layers": [1, 1, 1, 1]})
        return (name, {**common, **given}) if name in ("resnet18", "resnet50") else None
    given.pop("drop_path_rate", None)  # in training only
    if name.startswith("vit_") and name.count("_") == 1:
        heads: dict[str, Any] = {"num_heads": bundle.backbone.blocks[0].attn.num_heads}  # type: ignore[union-attr, index]
        if getattr(bundle.backbone, "cls_token", None) is None:  # features are the mean of the patches'
            heads |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
        sizes = {"patch_size": 16, "img_size": bundle.network.size}
        return (f"{name}_patch16_224", {**common, **heads, **sizes, **given})
    config = getattr(bundle.backbone, "pretrained_cfg", None) or {}
    size = {"img_size": bundle.network.size} if config.get("fixed_input_size") else {}
    architecture = config.get("architecture")
    return (architecture, {**common, **size, **given}) if architecture else None


def _timm(bundle: Bundle, folder: Path) -> Reading:
    import timm

    form = _timm_form(bundle)
    if form is None:
        raise _no_network("timm", bundle, "to=hf brings its code; to=onnx, torch_export and safetensors need none")
    _write_timm(bundle, form, folder)
    usage = ["import timm", "", f'model = timm.create_model("local-dir:{folder.name}", pretrained=True).eval()']
    usage.append("transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))")
    return usage, lambda: timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def _write_timm(bundle: Bundle, form: TimmForm, folder: Path) -> None:
    """`config.json` in timm's form, which transformers reads, too, and the weights."""
    import timm

    network, (architecture, arguments) = bundle.network, form
    known: Any = timm.create_model(architecture, **arguments).pretrained_cfg
    config = {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": bundle.features_dim,
        "model_args": {key: value for key, value in arguments.items() if key != "num_classes"},
        "pretrained_cfg": {
            "input_size": [network.channels, network.size, network.size],
            "fixed_input_size": bool(known.get("fixed_input_size")),
            "interpolation": "bilinear",
            "crop_pct": network.size / network.resize if network.resize else 1.0,
            "crop_mode": "center" if network.resize else "squash",
            "mean": list(network.mean),
            "std": list(network.std),
            "num_classes": 0,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    _write_weights(folder, bundle.backbone.state_dict())


def _hf(bundle: Bundle, folder: Path) -> Reading:
    form, trust = _timm_form(bundle), ""
    if form is not None:
        _write_timm(bundle, form, folder)
    elif _write_code(bundle, folder):
        trust = ", trust_remote_code=True"
    else:
        raise _no_network("transformers", bundle, "take to=onnx, torch_export, safetensors")
    load_line = f'model = AutoModel.from_pretrained("{folder.name}"{trust}).eval()'
    usage = ["from transformers import AutoModel", "", load_line, "features = model(pixel_values=images).pooler_output"]
    if importlib.util.find_spec("transformers") is None:
        return usage, None

    def load() -> Callable[[Tensor], Tensor]:
        from transformers import AutoModel
        from transformers.utils import logging as hf_logging

        hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        network = AutoModel.from_pretrained(str(folder), **({"trust_remote_code": True} if trust else {})).eval()
        return lambda images: network(pixel_values=images).pooler_output  # type: ignore[no-any-return]

    return usage, load


_STEM = """
        self.backbone.fc = nn.Identity()
        adapt_stem(self.backbone, "{name}", config.channels, config.small_stem)"""


def _write_code(bundle: Bundle, folder: Path) -> bool:
    """The backbone's own file and a class of transformers around it, `modeling_solo.py`; False where there is none."""
    name = bundle.network.name
    family = next((own for own in ("resnet", "poolformer", "wide_resnet") if name.startswith(own)), None)
    module = import_module(f"solo.backbones.{'resnet' if family == 'wide_resnet' else family}") if family else None
    if module is None or not hasattr(module, name):
        return False
    resnet = family == "resnet"
    kwargs = dict(bundle.network.kwargs) if resnet else {"in_chans": bundle.network.channels, **bundle.network.kwargs}
    wrapper = resources.files("solo.export").joinpath("modeling_solo.txt").read_text(encoding="utf-8")
    code = f"{inspect.getsource(module)}\n\n{wrapper.format(name=name, stem=_STEM.format(name=name) if resnet else '')}"
    config = {
        "architectures": ["SoloModel"],
        "model_type": "solo",
        "auto_map": {"AutoConfig": "modeling_solo.SoloConfig", "AutoModel": "modeling_solo.SoloModel"},
        "backbone_kwargs": kwargs,
        "channels": bundle.network.channels,
        "small_stem": bundle.network.small_stem,
        "hidden_size": bundle.features_dim,
    }
    write_text(folder / "modeling_solo.py", code)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    _write_weights(folder, {f"backbone.{key}": value for key, value in bundle.backbone.state_dict().items()})
    return True


def _torchvision(bundle: Bundle, folder: Path) -> Reading:
    name, width = bundle.network.name, bundle.network.kwargs.get("width", 64)
    plain = name in ("resnet18", "resnet50") or (name == "resnet10" and width == 64)
    if not plain or bundle.network.small_stem or bundle.network.channels != 3:
        has = "it has resnet18, resnet50 and resnet10 of width 64 with three channels and the stem for large images"
        raise _no_network("torchvision", bundle, f"{has}; to=hf brings the code along")
    with replacing(folder / "model.pth") as temporary:
        torch.save(bundle.backbone.state_dict(), temporary)
    where, build = f"torchvision.models import {name}", f"{name}()"
    if name == "resnet10":
        where, build = "torchvision.models.resnet import BasicBlock, ResNet", "ResNet(BasicBlock, [1, 1, 1, 1])"
    usage = ["import torch", f"from {where}", "", f"model = {build}", "model.fc = torch.nn.Identity()"]
    usage.append(f'model.load_state_dict(torch.load("{folder.name}/model.pth", weights_only=True))')

    def load() -> nn.Module:
        from torchvision.models import resnet

        network = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]) if name == "resnet10" else getattr(resnet, name)()
        network.fc = nn.Identity()
        network.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
        return network.eval()  # type: ignore[no-any-return]

    return usage, load


def _onnx(bundle: Bundle, folder: Path) -> Reading:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"to=onnx needs {' and '.join(missing)}; install them with pip install 'solo-hex[export]'")
    file, quiet = folder / "model.onnx", logging.getLogger("torch.onnx")
    names: Any = {"input_names": ["images"], "output_names": ["features"], "dynamic_shapes": _any_batch(bundle)}
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), replacing(file) as temporary:
            warnings.simplefilter("ignore")  # the exporter's own, about its own code
            program = torch.onnx.export(bundle.backbone, (bundle.example(),), dynamo=True, verbose=False, **names)
            assert program is not None
            program.save(temporary, external_data=False)
    finally:
        quiet.setLevel(level)
    usage = ["import onnxruntime", "", f'model = onnxruntime.InferenceSession("{folder.name}/model.onnx")']
    usage.append('(features,) = model.run(None, {"images": images})  # float32 (B, C, H, W), any B')
    if importlib.util.find_spec("onnxruntime") is None:
        return usage, None

    def load() -> Callable[[Tensor], Tensor]:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return usage, load


def _torch_export(bundle: Bundle, folder: Path) -> Reading:
    file = folder / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(bundle.backbone, (bundle.example(),), dynamic_shapes=_any_batch(bundle))
        torch.export.save(program, file)
    usage = ["import torch", "", f'model = torch.export.load("{folder.name}/model.pt2").module()']
    return [*usage, "features = model(images)"], lambda: torch.export.load(file).module()


def _any_batch(bundle: Bundle) -> dict[str, Any]:
    """The dynamic shape of the forward method's first argument, by its name."""
    return {next(iter(inspect.signature(bundle.backbone.forward).parameters)): {0: torch.export.Dim("batch", min=1)}}


def _detectron2(bundle: Bundle, folder: Path) -> Reading:
    if bundle.network.name not in ("resnet18", "resnet50") or bundle.network.small_stem or bundle.network.channels != 3:
        has = "it has resnet18 and resnet50 with three channels and the stem for large images"
        raise _no_network("detectron2", bundle, has)
    # `layer1.0.bn1.weight` of torchvision is `res2.0.conv1.norm.weight` there.
    renamed = {f"layer{stage}": f"res{stage + 1}" for stage in range(1, 5)}
    renamed |= {f"bn{place}": f"conv{place}.norm" for place in range(1, 4)}
    renamed |= {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
    named = {}
    for key, value in bundle.backbone.state_dict().items():
        name = key if key.startswith("layer") else f"stem.{key}"
        for old, new in renamed.items():
            name = name.replace(old, new)
        named[name] = value.cpu().numpy()
    with replacing(folder / "model.pkl") as temporary:
        # detectron2's own form of weights; it is written here, and never read.
        temporary.write_bytes(pickle.dumps({"model": named, "__author__": "solo", "matching_heuristics": True}))
    return [f'cfg.MODEL.WEIGHTS = "{folder.name}/model.pkl"  # and MODEL.PIXEL_MEAN, PIXEL_STD of the card'], None


TARGETS: dict[str, Callable[[Bundle, Path], Reading]] = {
    "safetensors": _safetensors,
    "timm": _timm,
    "hf": _hf,
    "torchvision": _torchvision,
    "onnx": _onnx,
    "torch_export": _torch_export,
    "detectron2": _detectron2,
}
