"""A backbone as a program of its own, without this package: ONNX and torch.export, any batch size."""

import importlib.util
import inspect
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from solo.export.folder import Bundle, Reading
from solo.files import replacing


def onnx(bundle: Bundle, folder: Path) -> Reading:
    """Write `model.onnx`, for batches of any size."""
    file, example = folder / "model.onnx", bundle.example()
    batch = torch.export.Dim("batch", min=1)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), replacing(file) as temporary:
            warnings.simplefilter("ignore")  # the exporter's own, about its own code
            program = torch.onnx.export(
                bundle.backbone,
                (example,),
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes={_argument(bundle.backbone): {0: batch}},
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.save(temporary, external_data=False)
    finally:
        quiet.setLevel(level)
    usage = ["import onnxruntime", "", f'model = onnxruntime.InferenceSession("{folder.name}/model.onnx")']
    usage.append('(features,) = model.run(None, {"images": images})  # float32 (B, C, H, W), any B')
    if importlib.util.find_spec("onnxruntime") is None:
        return Reading(usage, None)

    def features(images: Tensor) -> Tensor:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        parts = [session.run(None, {"images": part.numpy()})[0] for part in (images[:1], images[1:])]  # any batch size
        return torch.cat([torch.from_numpy(part) for part in parts])

    return Reading(usage, features)


def torch_export(bundle: Bundle, folder: Path) -> Reading:
    """Write `model.pt2`, for batches of any size."""
    file, example = folder / "model.pt2", bundle.example()
    shapes = {_argument(bundle.backbone): {0: torch.export.Dim("batch", min=1)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(bundle.backbone, (example,), dynamic_shapes=shapes)
        torch.export.save(program, file)
    usage = [
        "import torch",
        "",
        f'model = torch.export.load("{folder.name}/model.pt2").module()',
        "features = model(images)",
    ]

    def features(images: Tensor) -> Tensor:
        network = torch.export.load(file).module()
        return torch.cat([network(images[:1]), network(images[1:])])

    return Reading(usage, features)


def _argument(network: nn.Module) -> str:
    """The name of the forward method's first argument, which torch.export asks for."""
    return next(iter(inspect.signature(network.forward).parameters))
