"""A trained backbone in one's own code: features of whatever holds images, exports, and the Hugging Face hub."""

import copy
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from solo.args.compose import SOURCES
from solo.args.config import freeze
from solo.args.data_schema import EvalDataCfg
from solo.args.eval_schema import EvaluateCfg
from solo.args.fields import check
from solo.backbones import build_backbone, features_dim
from solo.backbones.registry import published_model
from solo.data.catalogue.registry import DATASETS, get_spec
from solo.data.storage.reading import ImageReading
from solo.data.views.pipelines import build_eval_pipeline
from solo.errors import UserError, explained
from solo.export.folder import DESCRIPTION, Bundle, Network, facts_of, model_card, read_exported
from solo.export.targets import Exported, export
from solo.run.inference import Predictions, as_image, each_image, predictions
from solo.run.source import READING, SavedRun, saved_run, source_backbone
from solo.taxonomy import Taxonomy
from solo.weights import load_weights

_OF_THE_HUB = ("revision", "token", "cache_dir", "force_download", "local_files_only")
_STATISTICS = ("image_size", "channels", "mean", "std")


@dataclass(frozen=True)
class PretrainedModel:
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
        """Features (N, F) of images, in their order, float32 in CPU memory; N = 0 for no images.

        Args:
            images: one image or any iterable of them, mixed as you like, also a generator. An image is a file's path, a
                `PIL.Image`, an array (H, W) or (H, W, C), uint8, 16 bits or floating point in [0, 1], or a float tensor
                (C, H, W) that `transform` has made. A folder stands for all images below it, sorted; a float tensor
                (N, C, H, W) and an array (N, H, W, C) or (N, H, W) hold N images; an array of three axes whose last is
                1, 3, 4 or C long is one image.
            batch_size: images computed at once; memory, not the result, depends on it.

        Raises a `UserError` for what is no image.
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
            batch_size: as for `embed`.

        Raises a `UserError`: the run has no classifier, or there is no such level or node; see `embed`.
        """
        return self.classify(self.embed(images, batch_size), k, level, within)

    @torch.no_grad()
    def classify(
        self, features: Tensor, k: int = 5, level: str | None = None, within: str | None = None
    ) -> Predictions:
        """`predict` for features (N, F) that `embed` has given; the same errors."""
        if self.classifier is None:
            raise UserError("this run has no classifier; train one with solo linear, and load that run")
        logits = self.classifier(features.to(self.device)).float().cpu()
        tree = self.taxonomy
        if tree is None or tree.num_classes != logits.shape[1]:
            tree = Taxonomy.flat([str(index) for index in range(logits.shape[1])])
        return predictions(logits, tree, k, level, within)

    def read(self, image: Any) -> Tensor:
        """What the backbone sees of one image (path, `PIL.Image`, array, ready tensor): (C, H, W); or a `UserError`."""
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
        """Write a folder that another program reads: `to` is one of `solo.export.TARGETS`; or a `UserError`."""
        return export(self.bundle(), to, out)

    def bundle(self) -> Bundle:
        """What `solo.export` needs of it."""
        weights = None if self.classifier is None else {k: v.cpu() for k, v in self.classifier.state_dict().items()}
        known: Any = {"network": self.network, "features_dim": self.features_dim, "taxonomy": self.taxonomy}
        backbone = copy.deepcopy(self.backbone).cpu().eval()
        return Bundle(backbone=backbone, classifier=weights, facts=self.facts, **known)

    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **options: Any
    ) -> str | None:
        """Write what `push_to_hub` uploads, and upload it if that is wanted; `solo.load(FOLDER)` reads it."""
        try:
            self.export("hf", save_directory)
        except UserError:  # a network that only solo knows
            self.export("safetensors", save_directory)
        return self.push_to_hub(repo_id or Path(save_directory).name, **options) if push_to_hub else None

    def push_to_hub(self, repo_id: str, *, branch: str | None = None, **options: Any) -> str:
        """Upload backbone, label tree and card to the Hugging Face hub, `solo.load("hf://REPO")` reads it.

        Arguments are those of `huggingface_hub.ModelHubMixin.push_to_hub`; returns the address. Raises a `UserError`.
        """
        from huggingface_hub import HfApi

        options = {"commit_message": "Backbone, label tree and card, written by solo", **options}
        options |= {"revision": branch} if branch is not None else {}
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            with explained(f"{repo_id} can't be written to the hub", "log in with `hf auth login`"):
                api = HfApi(token=options.pop("token", None))
                api.create_repo(repo_id, private=options.pop("private", None), exist_ok=True)
                return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **data: Any) -> "PretrainedModel":
        """`solo.load`, where `NAME/REPOSITORY` alone is a repository of the hub unless there is such a folder.

        Arguments are those of `huggingface_hub.ModelHubMixin.from_pretrained` and those of `solo.load`, as are errors.
        """
        name, options = str(pretrained_model_name_or_path), {key: data.pop(key) for key in _OF_THE_HUB if key in data}
        if not Path(name).expanduser().exists() and name.removeprefix("hf://").partition("://")[2] == "":
            name = str(fetch(name.removeprefix("hf://"), **options))
        return load_pretrained(name, **data)


def fetch(repo: str, **options: Any) -> Path:
    """The folder of a repository, `NAME/NAME[@REVISION]`, downloaded once; none of its code is run."""
    from huggingface_hub import snapshot_download

    name, _, revision = repo.partition("@")
    options["revision"] = options.get("revision") or revision or None
    with explained(f"hf://{repo} can't be fetched", "check the name and the network"):
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.md", "*.py"], **options))


def load_pretrained(source: str | Path, device: str | torch.device | None = None, **data: Any) -> PretrainedModel:
    """Backbone, transform, label tree and what else is known of a model, see `solo.load`."""
    given: dict[str, Any] = {key: list(x) if isinstance(x, tuple) else x for key, x in data.items() if x is not None}
    if unknown := sorted(set(given) - {"dataset", *_STATISTICS}):
        raise UserError(f"{unknown[0]!r} can't be set; choose dataset, image_size, channels, mean, std")
    if problems := check({**given, "dataset": "custom"}, EvalDataCfg)[1]:
        raise UserError("; ".join(f"{key}{text}" for key, text in problems))
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=where).cpu()  # `meta` has no numbers
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"device={device} can't be used ({why}); leave it out, or give cpu") from error
    if str(source).startswith("hf://"):
        source = fetch(str(source).removeprefix("hf://"))
    published, folder = str(source).startswith(("timm/", "torchvision/")), Path(source).expanduser()
    settings: dict[str, Any] = {}
    weights: Mapping[str, Tensor | None]
    if not published and (folder / DESCRIPTION).is_file():
        known, state = read_exported(folder)
        network, weights = known["network"], known["classifier"]
        if size := given.pop("image_size", None):
            network = replace(network, size=size, resize=network.resize and round(network.resize * size / network.size))
        network = replace(network, **{key: given[key] for key in ("mean", "std") if key in given})
        how: dict[str, Any] = {"channels": network.channels, "kwargs": network.kwargs}
        if "/" in network.name:
            backbone = published_model(network.name, fetch=False, **how).network
        else:
            how |= {"small": network.small_stem, "image_size": network.size}
            backbone = build_backbone(network.name, network.method, **how)
        load_weights(backbone, state, path=source, name=network.name)
    else:
        run = SavedRun(folder, {}, {}, {}, None) if published else saved_run(source)
        settings = run.cfg
        backbone, network, tree = _built("model" if published else SOURCES[0], str(source), run, given)
        facts = {"name": network.name, "dataset": "see its publisher"}
        known = {"taxonomy": tree, "facts": facts if published else facts_of(run.file.parent, settings)}
        weights = {key: run.state.get(f"classifier.{key}") for key in ("weight", "bias")}
    classifier, weight, bias = None, weights.get("weight"), weights.get("bias")
    if weight is not None and bias is not None and len(weight) > 1:  # one class: a run without labels
        classifier = nn.Linear(weight.shape[1], len(weight))
        classifier.load_state_dict({"weight": weight, "bias": bias})
        classifier.to(where).eval()
    transform = build_eval_pipeline(network.size, network.mean, network.std, network.channels, network.resize)
    seen, tree = cast(Callable[[Any], Tensor], transform), known["taxonomy"]
    return PretrainedModel(backbone.to(where).eval(), seen, tree, settings, where, network, classifier, known["facts"])


def _built(key: str, source: str, run: SavedRun, data: Mapping[str, Any]) -> tuple[nn.Module, Network, Taxonomy | None]:
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


def mteb_encoder(model: PretrainedModel, name: str = "solo/backbone") -> Any:
    """What `mteb.evaluate(mteb_encoder(model), tasks)` takes as a model: features as of `model.embed`, by cosine.

    Args:
        model: of `solo.load`.
        name: `OWNER/NAME`, by which mteb files its results.

    Raises a `UserError`: mteb isn't installed, or a task has texts.
    """
    try:
        from mteb.models.abs_encoder import AbsEncoder
        from mteb.models.model_meta import ModelMeta, ScoringFunction
    except ImportError as error:
        raise UserError("mteb can't be imported: `pip install mteb` (2.0 or newer)") from error

    about = {"name": name, "framework": ["PyTorch"], "modalities": ["image"], "embed_dim": model.features_dim}

    class ImageEncoder(AbsEncoder):  # type: ignore[misc]
        mteb_model_meta = ModelMeta.create_empty({**about, "similarity_fn_name": ScoringFunction.COSINE})

        def encode(self, inputs: Any, *, task_metadata: Any, **options: Any) -> Any:
            if "image" not in inputs.dataset.column_names:
                raise UserError(f"{task_metadata.name} has inputs without images; a backbone embeds images only")
            images = (image for batch in inputs for image in batch["image"])
            return model.embed(images, batch_size=options.get("batch_size", 256)).numpy()

    return ImageEncoder()
