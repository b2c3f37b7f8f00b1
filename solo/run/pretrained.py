"""A trained backbone in one's own code: what evaluation does to an image, and features of whatever holds images."""

import copy
import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from solo.args.check import check
from solo.args.config import freeze
from solo.args.data_schema import EvalDataCfg
from solo.args.eval_schema import EvaluateCfg
from solo.backbones import features_dim
from solo.backbones.registry import published_model
from solo.checkpoint import checkpoint_file, load_checkpoint, saved_settings
from solo.data.catalogue.registry import DATASETS, get_spec
from solo.data.storage.reading import ImageReading
from solo.data.views.pipelines import build_eval_pipeline
from solo.errors import UserError
from solo.export.folder import DESCRIPTION, Bundle, Network, facts_of, model_card, read_exported
from solo.export.hub import OnHub, fetch
from solo.export.targets import Exported, export
from solo.run.inputs import as_image, each_image
from solo.run.predictions import Predictions, predictions
from solo.run.source import pretrained_backbone, small_stem
from solo.taxonomy import Taxonomy
from solo.weights import load_weights

_READING = tuple(item.name for item in dataclasses.fields(ImageReading) if item.name != "channels")


@dataclass(frozen=True)
class PretrainedModel(OnHub):
    """The backbone of a run, with everything that is needed to use it."""

    backbone: nn.Module  # images (B, C, H, W) -> features (B, F); in eval mode, on `device`
    # what evaluation does to one image: `PIL.Image`, or for other than 1 and 3 channels a uint8 array (H, W, C), to a
    # normalised float tensor (C, H, W)
    transform: Callable[[Any], Tensor]
    taxonomy: Taxonomy | None  # the label tree of the data it was trained on; None where nothing is known of it
    settings: dict[str, Any]  # the resolved config of the run; empty where the file has none
    device: torch.device  # where `embed` computes
    network: Network  # how the backbone was built, and what it expects of images
    # features -> logits (B, classes); of a linear evaluation, or the one that pretraining trained beside the backbone;
    # None if the run had no labels
    classifier: nn.Linear | None = None
    # about the run, for its card: name, method, dataset, numbers with their protocol, versions
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """C, the channels of an image."""
        return self.network.channels

    @property
    def reading(self) -> ImageReading:
        """How files become images, as in the run."""
        return ImageReading.of({**self.network.reading, "channels": self.channels})

    @property
    def features_dim(self) -> int:
        """F, the length of a feature vector."""
        return features_dim(self.backbone)

    @torch.no_grad()
    def embed(self, images: Any, batch_size: int = 256) -> Tensor:
        """Features of images, in their order.

        Args:
            images: one image or any iterable of them, mixed as you like, also a generator. An image is a file's path, a
                `PIL.Image`, an array (H, W) or (H, W, C), uint8, 16 bits or floating point in [0, 1], or a float tensor
                (C, H, W) that `transform` has made. A folder stands for all images below it, sorted; a float tensor
                (N, C, H, W) and an array (N, H, W, C) or (N, H, W) hold N images; an array of three axes whose last is
                1, 3, 4 or C long is one image.
            batch_size: images computed at once; memory, not the result, depends on it.

        Returns:
            (N, F) float32, in CPU memory; N = 0 for no images.

        Raises:
            UserError: a path that is no image or doesn't exist, or something that is no image.
        """
        if not (isinstance(batch_size, Integral) and batch_size >= 1):
            raise UserError(f"batch_size={batch_size} must be a whole number of at least 1")
        self.backbone.eval()
        inputs, parts = map(self.read, each_image(images, self.channels)), []
        while batch := list(islice(inputs, min(batch_size, sys.maxsize))):
            if len({image.shape for image in batch}) > 1:
                shapes = " and ".join(sorted({str(tuple(image.shape)) for image in batch})[:3])
                raise UserError(f"tensors of different shapes, {shapes}; let `transform` make them of one size")
            parts.append(self.backbone(torch.stack(batch).to(self.device)).float().cpu())
        return torch.cat(parts) if parts else torch.empty(0, self.features_dim)

    @torch.no_grad()
    def predict(
        self, images: Any, k: int = 5, level: str | None = None, within: str | None = None, batch_size: int = 256
    ) -> Predictions:
        """Class probabilities of images, in their order, at every level of the label tree.

        Args:
            images: as for `embed`.
            k: names for each image in `.best`.
            level: which level they are of; None: the classes.
            within: name of a node; only the classes below it are considered. `LEVEL:NAME` where several have the name.
            batch_size: images computed at once.

        Raises:
            UserError: the run has no classifier, or there is no such level or node; see `embed`.
        """
        return self.classify(self.embed(images, batch_size), k, level, within)

    @torch.no_grad()
    def classify(
        self, features: Tensor, k: int = 5, level: str | None = None, within: str | None = None
    ) -> Predictions:
        """`predict` for features (N, F) that `embed` has given.

        Raises:
            UserError: the run has no classifier, or there is no such level or node.
        """
        if self.classifier is None:
            raise UserError("this run has no classifier; train one with solo linear, and load that run")
        logits = self.classifier(features.to(self.device)).float().cpu()
        tree = self.taxonomy
        if tree is None or tree.num_classes != logits.shape[1]:
            tree = Taxonomy.flat([str(index) for index in range(logits.shape[1])])
        return predictions(logits, tree, k, level, within)

    def read(self, image: Any) -> Tensor:
        """What the backbone sees of one image (a path, `PIL.Image`, array or ready tensor): (C, H, W).

        Raises:
            BrokenImageError: a file that can't be decoded.
            UserError: something that is no image.
        """
        if not isinstance(image, Tensor):
            return self.transform(as_image(image, self.reading))
        if image.ndim != 3 or not image.is_floating_point() or len(image) != self.channels:
            raise UserError(
                f"a tensor {image.dtype} of shape {tuple(image.shape)} is no input; give float ({self.channels}, "
                "H, W) as `transform` makes it, or the image as PIL.Image, array or path"
            )
        if not image.isfinite().all():
            raise UserError("a tensor holds values that are infinite or no numbers")
        return image.float()

    @property
    def card(self) -> str:
        """The model card, Markdown: what was trained on what, with which numbers."""
        return model_card(self.bundle())

    def export(self, to: str, out: str | Path) -> Exported:
        """Write a folder that another program reads, see `solo.export`.

        Args:
            to: `safetensors`, `timm`, `hf`, `torchvision`, `onnx`, `torch_export` or `detectron2`.
            out: the folder.

        Raises:
            UserError: the program doesn't know such a network, or its package is missing.
        """
        return export(self.bundle(), to, out)

    @classmethod
    def load(cls, source: str | Path, **data: Any) -> Any:
        """The same model from a folder, see `solo.load`."""
        return load_pretrained(source, **data)

    def bundle(self) -> Bundle:
        """What `solo.export` needs of it."""
        weights = None if self.classifier is None else {k: v.cpu() for k, v in self.classifier.state_dict().items()}
        return Bundle(
            backbone=copy.deepcopy(self.backbone).cpu().eval(),
            network=self.network,
            features_dim=self.features_dim,
            taxonomy=self.taxonomy,
            classifier=weights,
            facts=self.facts,
        )


def load_pretrained(source: str | Path, device: str | torch.device | None = None, **data: Any) -> PretrainedModel:
    """Build a backbone and load its weights.

    Args:
        source: a checkpoint of ours or of solo-learn, the folder of a run, a folder that `solo export` wrote,
            `hf://NAME/REPOSITORY` with such a folder, `timm/NAME` or `torchvision/NAME`.
        device: default: a GPU where there is one.
        data: what the file doesn't say or is to be changed: `dataset`, `image_size`, `channels`, `mean`, `std`.

    Raises:
        UserError: the file can't be read, holds no backbone, or doesn't say which one; there is no such device.
    """
    given: dict[str, Any] = {key: list(x) if isinstance(x, tuple) else x for key, x in data.items() if x is not None}
    if unknown := sorted(set(given) - {"dataset", "image_size", "channels", "mean", "std"}):
        raise UserError(f"{unknown[0]!r} can't be set; choose dataset, image_size, channels, mean, std")
    if problems := check({**given, "dataset": "custom"}, EvalDataCfg)[1]:
        raise UserError("; ".join(f"{problem.key}{problem.text}" for problem in problems))
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=where).cpu()  # `meta` has no numbers
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device={device} can't be used ({reason}); leave it out, or give cpu") from error
    if str(source).startswith("hf://"):
        source = fetch(str(source).removeprefix("hf://"))
    changed = {("size" if k == "image_size" else k): x for k, x in given.items() if k in ("image_size", "mean", "std")}
    if str(source).startswith(("timm/", "torchvision/")):
        name, channels = str(source), given.get("channels", 3)
        found = published_model(name, channels=channels)
        size = round(found.size / 0.875)
        network = Network(name, {}, None, False, channels, found.size, size, found.mean, found.std)
        network = dataclasses.replace(network, **changed)
        return _model(found.network, network, None, {}, {"name": name, "dataset": "see its publisher"}, where, {})
    if (Path(source).expanduser() / DESCRIPTION).is_file():
        description, state, classifier = read_exported(Path(source).expanduser())
        network = dataclasses.replace(description.network, **changed)
        backbone = network.build()
        load_weights(backbone, state, path=source, name=network.name)
        return _model(backbone, network, description.taxonomy, classifier, description.facts, where, {})
    return _trained(source, where, given)


def _trained(source: str | Path, where: torch.device, data: dict[str, Any]) -> PretrainedModel:
    file = checkpoint_file(source)
    checkpoint = load_checkpoint(file)
    saved = saved_settings(checkpoint, file)
    name = data.get("dataset") or saved["data"].get("dataset") or (saved["cfg"].get("data") or {}).get("dataset")
    facts = {"dataset": name if name in DATASETS else "custom"}
    asked = {key: data.get(key) for key in ("image_size", "channels", "mean", "std")}
    values, _ = check({"pretrained_feature_extractor": str(file), "data": {**facts, **asked}}, EvaluateCfg)
    values["data"]["resolved"] = spec = get_spec(facts["dataset"])
    backbone, cfg = pretrained_backbone(freeze(values, EvaluateCfg))  # which fills in what is left open
    images, size = cfg.data, cfg.data.image_size or spec.size
    told = {**(saved["cfg"].get("data") or {}), **saved["data"]}
    network = Network(
        name=str(cfg.backbone.name),
        kwargs=cfg.backbone.kwargs,
        method=cfg.pretrain_method,
        small_stem=small_stem(cfg, saved),
        channels=images.channels or 3,
        size=size,
        resize=round(spec.resize * size / spec.size) if spec.resize else None,
        mean=images.mean or spec.mean,
        std=images.std or spec.std,
        reading={key: told[key] for key in _READING if told.get(key) is not None},
    )
    tree = Taxonomy.from_dict(told["taxonomy"]) if told.get("taxonomy") else spec.taxonomy
    weights = {key: checkpoint["state_dict"].get(f"classifier.{key}") for key in ("weight", "bias")}
    return _model(backbone, network, tree, weights, facts_of(file.parent, saved["cfg"]), where, saved["cfg"])


def _model(
    backbone: nn.Module,
    network: Network,
    tree: Taxonomy | None,
    weights: Mapping[str, Tensor | None],
    facts: Mapping[str, Any],
    where: torch.device,
    settings: dict[str, Any],
) -> PretrainedModel:
    classifier, weight, bias = None, weights.get("weight"), weights.get("bias")
    if weight is not None and bias is not None and len(weight) > 1:  # one class: a run without labels
        classifier = nn.Linear(weight.shape[1], len(weight))
        classifier.load_state_dict({"weight": weight, "bias": bias})
        classifier.to(where).eval()
    transform = build_eval_pipeline(network.size, network.mean, network.std, network.channels, network.resize)
    seen = cast(Callable[[Any], Tensor], transform)
    return PretrainedModel(backbone.to(where).eval(), seen, tree, settings, where, network, classifier, facts)
