"""A trained backbone in one's own code: features of whatever holds images, exports, and the Hugging Face hub."""

import copy
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from solo.args.compose import SOURCES
from solo.args.data_schema import EvalDataCfg
from solo.args.fields import check
from solo.backbones import build_backbone, features_dim
from solo.backbones.registry import published_model
from solo.data.storage.facts import Problems, image_folders
from solo.data.storage.reading import ImageReading
from solo.data.views.pipelines import build_eval_pipeline
from solo.errors import UserError, explained
from solo.eval.predictions import expected_heights
from solo.export.folder import DESCRIPTION, Bundle, Network, facts_of, model_card, read_exported
from solo.export.targets import Exported, export
from solo.run.source import SavedRun, described_backbone, saved_run
from solo.taxonomy import Taxonomy
from solo.weights import load_weights


def image_files(place: str | Path, problems: Problems) -> list[Path]:
    """The images below a folder, sorted, at least one, or one image; `problems` decides about folders not readable."""
    path = Path(place).expanduser()
    if not path.exists():
        raise UserError(f"{place} doesn't exist; give an image, or a folder of images")
    if not path.is_dir():
        return [path]
    found = [path.joinpath(*parts, name) for parts, names in image_folders(path, problems) for name in names]
    if not found:
        nothing = f"{path} holds no images, neither directly nor in its folders"
        raise UserError("; ".join([nothing, *problems.found[:1]]))
    return found


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of N images."""

    probabilities: Tensor  # (N, C) of the classes; each row sums to 1
    tree: Taxonomy  # of the classes
    level: str | None = None  # which level `best` names; None: the classes
    k: int = 5  # how many it names
    careful: bool = False  # whether `best` have the least `expected_heights` (CRM), not the highest probability

    def __len__(self) -> int:
        return len(self.probabilities)

    def at(self, level: str) -> Tensor:
        """(N, nodes): the probability of a node is the sum of those of the classes below it."""
        place = self.tree.levels.index(level)
        paths = torch.tensor(self.tree.path_table())[:, place]
        known = paths >= 0  # classes that end above this level are below none of its nodes
        summed = self.probabilities.new_zeros(len(self), len(self.tree.names[place]))
        return summed.index_add_(1, paths[known], self.probabilities[:, known])

    @property
    def best(self) -> list[list[tuple[str, float]]]:
        """For each image the `k` most probable names with their probabilities, the best first; see `careful`."""
        names, liking = self.tree.class_names, self.probabilities
        if self.level is not None:
            names, liking = self.tree.names[self.tree.levels.index(self.level)], self.at(self.level)
        table = liking
        if self.careful and self.level is None:
            expected = torch.from_numpy(expected_heights(self.tree, table.double().numpy()))
            liking = -expected.masked_fill(table == 0, torch.inf)
        columns = liking.topk(min(self.k, table.shape[1]), dim=1).indices
        pairs = zip(columns.tolist(), table.gather(1, columns).tolist(), strict=True)
        return [[(names[c], v) for c, v in zip(*row, strict=True)] for row in pairs]

    def paths(self) -> Iterator[tuple[str, ...]]:
        """For each image the way down the tree by the best child at each step; its end may not be the best class."""
        for rows in zip(*(self.at(level).tolist() for level in self.tree.levels), strict=True):
            path: list[str] = []
            nodes = tuple(range(len(self.tree.names[0])))
            while nodes:
                level = len(path)
                best = max(nodes, key=rows[level].__getitem__)
                path.append(self.tree.names[level][best])
                nodes = self.tree.children[level][best]
            yield tuple(path)


def predictions(
    logits: Tensor, tree: Taxonomy, k: int = 5, level: str | None = None, within: str | None = None
) -> Predictions:
    """Softmax of logits (N, C) over the classes, or those below one node, `within`; or a `UserError`."""
    if k < 1:
        raise UserError(f"k={k} must be at least 1")
    if level is not None and level not in tree.levels:
        raise UserError(f"level={level!r} is unknown; choose one of {', '.join(tree.levels)}")
    logits = logits.float()
    if within is not None:
        outside = torch.ones(logits.shape[1], dtype=torch.bool)
        outside[list(_below(tree, within))] = False
        logits = logits.masked_fill(outside, -torch.inf)
    return Predictions(logits.softmax(dim=1), tree, level, k)


def _below(tree: Taxonomy, name: str) -> tuple[int, ...]:
    """The classes below the node of this name; of several the coarsest, or with `LEVEL:NAME` that one."""
    level, _, rest = name.partition(":")
    wanted = [(level, rest)] if level in tree.levels and rest else [(known, name) for known in tree.levels]
    for known, node in wanted:
        place = tree.levels.index(known)
        if node in tree.names[place]:
            return tree.leaves_under(place, tree.names[place].index(node))
    raise UserError(f"within={name!r} is no node of the label tree; its coarsest are {', '.join(tree.names[0][:10])}")


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
        inputs, parts = map(self.read, self._each(images)), []
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

    def _each(self, images: Any) -> Iterable[Any]:
        if isinstance(images, (str, Path)):
            return image_files(images, Problems())
        if isinstance(images, Tensor):
            alone = images.ndim < 4
        elif isinstance(images, np.ndarray):
            alone = images.ndim < 3 or (images.ndim == 3 and images.shape[2] in (1, 3, 4, self.channels))
        else:
            alone = isinstance(images, Image.Image)
        if not alone and not isinstance(images, Iterable):
            raise UserError(f"a {type(images).__name__} holds no images; give PIL images, arrays, tensors or paths")
        return [images] if alone else images

    def read(self, image: Any) -> Tensor:
        """What the backbone sees of one image (path, `PIL.Image`, array, ready tensor): (C, H, W); or a `UserError`."""
        if isinstance(image, (str, Path)):
            return self.transform(self.reading.read(Path(image).expanduser()))
        if isinstance(image, (np.ndarray, Image.Image)):
            return self.transform(self._as_from_file(image))
        if not isinstance(image, Tensor):
            raise UserError(f"a {type(image).__name__} is no image; give PIL images, arrays, tensors or paths")
        if image.ndim != 3 or not image.is_floating_point() or len(image) != self.channels:
            cure = f"give float ({self.channels}, H, W) as `transform` makes it, or a PIL.Image, an array or a path"
            raise UserError(f"a tensor {image.dtype} of shape {tuple(image.shape)} is no input; {cure}")
        if not image.isfinite().all():
            raise UserError("a tensor holds values that are infinite or no numbers")
        return image.float()

    def _as_from_file(self, image: Any) -> Any:
        """What the transform takes, of an array or picture: a `PIL.Image`, or an array of more channels."""
        pictures = self.channels in (1, 3)
        try:
            if isinstance(image, Image.Image):
                return self.reading.picture(image) if pictures else image
            if image.ndim not in (2, 3):
                raise ValueError(f"its shape is {image.shape}, not (H, W) or (H, W, C)")
            image = self.reading.eight_bits(image)
            plane = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
            return self.reading.flat(Image.fromarray(plane)) if pictures else image
        except (ValueError, TypeError, OSError) as error:
            what = "an array" if isinstance(image, np.ndarray) else "a picture"
            raise UserError(f"{what} can't be read as an image: {error}") from error

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
        of_the_hub = {"revision", "token", "cache_dir", "force_download", "local_files_only"}
        name = str(pretrained_model_name_or_path)
        options = {key: data.pop(key) for key in of_the_hub & set(data)}
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
    if unknown := sorted(set(given) - {"dataset", "image_size", "channels", "mean", "std"}):
        raise UserError(f"{unknown[0]!r} can't be set; choose dataset, image_size, channels, mean, std")
    if problems := check({**given, "dataset": "custom"}, EvalDataCfg)[1]:
        raise UserError("; ".join(f"{key}{text}" for key, text in problems))
    with explained(f"device={device} can't be used", "leave it out, or give cpu"):
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=where).cpu()  # `meta` has no numbers
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
        run = SavedRun(folder, {}, {}, {}, small_stem=False) if published else saved_run(source)
        settings = run.cfg
        backbone, network, tree = described_backbone("model" if published else SOURCES[0], str(source), run, given)
        facts = {"name": network.name, "dataset": "see its publisher"}
        known = {"taxonomy": tree, "facts": facts if published else facts_of(run.file.parent, settings)}
        weights = {key: run.state.get(f"classifier.{key}") for key in ("weight", "bias")}
    classifier, weight, bias = None, weights.get("weight"), weights.get("bias")
    if weight is not None and bias is not None and len(weight) > 1:  # one class: a run without labels
        classifier = nn.Linear(weight.shape[1], len(weight), device=where)
        classifier.load_state_dict({"weight": weight, "bias": bias})
    transform = build_eval_pipeline(network.size, network.mean, network.std, network.channels, network.resize)
    seen, tree = cast(Callable[[Any], Tensor], transform), known["taxonomy"]
    return PretrainedModel(backbone.to(where).eval(), seen, tree, settings, where, network, classifier, known["facts"])


def mteb_encoder(model: PretrainedModel, name: str = "solo/backbone") -> Any:
    """What `mteb.evaluate(mteb_encoder(model), tasks)` takes as a model: features as of `model.embed`, by cosine.

    Args:
        model: of `solo.load`.
        name: `OWNER/NAME`, by which mteb files its results.

    Raises a `UserError`: mteb isn't installed, or a task has texts.
    """
    with explained("mteb can't be imported", "`pip install mteb` (2.0 or newer)", ImportError):
        from mteb.models.abs_encoder import AbsEncoder
        from mteb.models.model_meta import ModelMeta, ScoringFunction

    about = {"name": name, "framework": ["PyTorch"], "modalities": ["image"], "embed_dim": model.features_dim}

    class ImageEncoder(AbsEncoder):  # type: ignore[misc]
        mteb_model_meta = ModelMeta.create_empty({**about, "similarity_fn_name": ScoringFunction.COSINE})

        def encode(self, inputs: Any, *, task_metadata: Any, **options: Any) -> Any:
            if "image" not in inputs.dataset.column_names:
                raise UserError(f"{task_metadata.name} has inputs without images; a backbone embeds images only")
            images = (image for batch in inputs for image in batch["image"])
            return model.embed(images, batch_size=options.get("batch_size", 256)).numpy()

    return ImageEncoder()
