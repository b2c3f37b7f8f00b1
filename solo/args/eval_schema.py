"""Every key of the commands that only look at the features of a checkpoint, as in `schema`."""

from dataclasses import dataclass
from typing import Literal

from solo.args.data_schema import OfflineDataCfg, SourceDataCfg
from solo.args.fields import key
from solo.args.schema import LinearBackboneCfg


@dataclass(kw_only=True, frozen=True)
class FolderCfg:
    """Files of a run, in <dir>/<command>/<run id>/."""

    dir: str = key("trained_models", "parent folder of all runs")


@dataclass(kw_only=True, frozen=True)
class FeatureCfg:
    """Keys of every command that only looks at features; one of the first three says where they come from."""

    pretrained_feature_extractor: str | None = key(
        None, "a checkpoint (.ckpt .pth .safetensors ...) or the folder of a run; `checkpoint=PATH` is short for it"
    )
    model: str | None = key(None, "instead: a model of timm or torchvision, timm/NAME or torchvision/NAME")
    features: str | None = key(None, "instead: a file of saved features (.npz .pt .safetensors), see docs/evaluate.md")
    pretrained: bool | str = key(True, "model: its published weights, none (false), or a file with them")
    pretrain_method: str | None = key(None, "method that trained it, where the architecture depends on it (ViT)")
    backbone: LinearBackboneCfg = key(LinearBackboneCfg, "network")
    batch_size: int = key(256, "images computed at once; does not change the result", ge=1, matters=False)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = key("auto", "what to compute on")
    seed: int = key(5, "start of all random numbers", ge=0, le=2**32 - 1)
    cache: bool = key(
        True, "keep the features of a network, and take those that were kept for the same images", matters=False
    )
    cache_dir: str | None = key(
        None, "where features are kept; null: features in the user's cache folder", matters=False
    )
    checkpoint: FolderCfg = key(FolderCfg, "files of a run", matters=False)
    name: str | None = key(None, "name of the run", matters=False)
    data: SourceDataCfg = key(SourceDataCfg, "images")


@dataclass(kw_only=True, frozen=True)
class KnnCfg(FeatureCfg):
    """Settings of `solo knn`; all combinations of the four lists are measured."""

    name: str = key("knn", "name of the run", matters=False)
    feature_type: tuple[Literal["backbone", "projector"], ...] = key(["backbone"], "which features")
    distance_function: tuple[Literal["cosine", "euclidean"], ...] = key(
        ["cosine"], "how neighbours are found and weighed"
    )
    k: tuple[int, ...] = key([20], "numbers of neighbours", ge=1)
    temperature: tuple[float, ...] = key([0.07], "of the weights exp(cosine / temperature); cosine only", gt=0)


@dataclass(kw_only=True, frozen=True)
class UmapCfg(FeatureCfg):
    """All settings of `solo umap`: whose features become points, and how."""

    name: str = key("umap", "name of the run", matters=False)
    feature_type: Literal["backbone", "projector"] = key("backbone", "which features")
    embedding: Literal["umap", "tsne", "pca"] = key("umap", "how features become points")
    max_points: int = key(3000, "images drawn of each set; more are subsampled at random", ge=2)
    color_palette: str = key("hls", "hls, or a colour map of matplotlib")
    plot_name: str | None = key(None, "write <plot_name>_train_<embedding>.pdf, ..; null: into the run's folder")


@dataclass(kw_only=True, frozen=True)
class EvaluateCfg(FeatureCfg):
    """All settings of `solo evaluate`: whose features are measured, by what, on which images."""

    name: str | None = key(None, "name of the run; null: evaluate-<data set>", matters=False)
    data: OfflineDataCfg = key(OfflineDataCfg, "images")
    feature_type: tuple[Literal["backbone", "projector"], ...] = key(["backbone"], "which features")
    k: int = key(20, "kNN: number of neighbours", ge=1)
    temperature: float = key(0.07, "kNN: of the weights exp(cosine / temperature)", gt=0)
    measures: tuple[Literal["linear", "knn", "retrieval", "clustering", "hierarchy"], ...] = key(
        ["linear", "knn", "retrieval", "clustering", "hierarchy"], "what is measured"
    )
    l2: float = key(1e-4, "linear: strength of the L2 penalty", gt=0)
    linear_steps: int = key(1000, "linear: steps of L-BFGS for each level, at most", ge=1)
    top_k: tuple[int, ...] = key([1, 5, 10], "retrieval: whether one of the k most similar images is right", ge=1)
    max_queries: int = key(10_000, "retrieval: images looked up; more are drawn at random", ge=1)
    intervals: bool = key(True, "find the 95 % intervals, too")


@dataclass(kw_only=True, frozen=True)
class AnalyzeDataCfg(OfflineDataCfg):
    """The same where only the validation images are looked at."""

    val_only: bool = key(True, "no training images are needed: neighbours are those among the images analysed")


@dataclass(kw_only=True, frozen=True)
class AnalyzeCfg(FeatureCfg):
    """Settings of `solo analyze`; the sources may be lists, which are compared."""

    name: str = key("analyze", "name of the run", matters=False)
    pretrained_feature_extractor: tuple[str, ...] | None = key(  # type: ignore[assignment]
        None, "checkpoints, or folders of runs, whose checkpoints are a time series; `checkpoint=PATH` is short for it"
    )
    model: tuple[str, ...] | None = key(  # type: ignore[assignment]
        None, "instead: models of timm or torchvision, timm/NAME or torchvision/NAME"
    )
    features: tuple[str, ...] | None = key(  # type: ignore[assignment]
        None, "instead: files of saved features (.npz .pt .safetensors), see docs/evaluate.md"
    )
    data: AnalyzeDataCfg = key(AnalyzeDataCfg, "images")
    title: str | None = key(None, "of the report; null: the names of the runs and the data set")
    names: tuple[str, ...] | None = key(None, "of the runs in the legends, one for each source; null: their own")
    epochs: int = key(8, "of a run's folder: checkpoints to look at, evenly spaced; 1: the last one only", ge=1)
    start: bool = key(True, "of a run's folder: also the network before training, drawn again from the run's seed")
    series: bool = key(False, "the sources are one run over time, in this order, instead of several runs")
    superclass: int | str | None = key(
        None, "level of the superclasses, by name or index; null: the one above the classes, else what emerges"
    )
    inside: str | None = key(None, "name of a superclass whose classes are drawn; null: the one that is poorest inside")
    clusters: int | None = key(
        None, "without labels: clusters to find; null: a twentieth of the images, 10 to 60", ge=2
    )
    embedding: Literal["umap", "tsne", "pca", "none"] = key(
        "umap", "how features become points; none: no such pictures"
    )
    max_points: int = key(2000, "images of each picture of points; more are subsampled at random", ge=2)
    max_images: int | None = key(None, "images to look at; more are subsampled at random; null: all", ge=8)
    max_anchors: int = key(10_000, "images that are compared with all images; more are subsampled at random", ge=2)
    k: int = key(20, "neighbours that vote, and that say how far classes mix", ge=1)
    temperature: float = key(0.07, "of the votes' weights exp(cosine / temperature)", gt=0)
    quantile: float = key(0.99, "of the adaptive threshold", gt=0, le=1)
    lidar_images: int = key(1000, "LiDAR, of checkpoints: images whose augmented views are compared; 0: none", ge=0)
    lidar_views: int = key(10, "LiDAR: views of each, made as in the run's recipe", ge=2)
    output: str | None = key(None, "folder to write into; null: <checkpoint.dir>/analyze/<run id>")
    png: bool = key(True, "write the figures as PNG, too")
