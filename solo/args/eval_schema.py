"""Every key of the commands that use trained models or start many runs, as in `schema`.

Those with `positional` need no recipe: their first words are these keys, the others are `key=value`.
"""

from typing import Any, Literal

from solo.args.data_schema import OfflineDataCfg, SourceDataCfg
from solo.args.fields import REQUIRED, Section, idle, key
from solo.args.schema import LinearBackboneCfg


class FolderCfg(Section):
    dir: str = key("trained_models", "parent folder of all runs")


class FeatureCfg(Section):
    """Keys of every command that only looks at features; one of the first three says where they come from."""

    pretrained_feature_extractor: str | None = key(
        None, "a checkpoint (.ckpt .pth .safetensors ...) or the folder of a run; `checkpoint=PATH` is short for it"
    )
    model: str | None = key(None, "instead: a model of timm or torchvision, timm/NAME or torchvision/NAME")
    features: str | None = key(None, "instead: a file of saved features (.npz .pt .safetensors), see docs/evaluate.md")
    pretrained: bool | str = key(True, "model: its published weights, none (false), or a file with them")
    pretrain_method: str | None = key(None, "method that trained it, where the architecture depends on it (ViT)")
    backbone: LinearBackboneCfg = key(LinearBackboneCfg, "network")
    batch_size: int = idle(256, "images computed at once; does not change the result", ge=1)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = key("auto", "what to compute on")
    seed: int = key(5, "start of all random numbers", ge=0, le=2**32 - 1)
    cache: bool = idle(True, "keep the features of a network, and take those that were kept for the same images")
    cache_dir: str | None = idle(None, "where features are kept; null: features in the user's cache folder")
    checkpoint: FolderCfg = idle(FolderCfg, "files of a run")
    name: str | None = idle(None, "name of the run")
    data: SourceDataCfg = key(SourceDataCfg, "images")


class KnnCfg(FeatureCfg):
    """Settings of `solo knn`; all combinations of the four lists are measured."""

    name: str = idle("knn", "name of the run")
    feature_type: tuple[Literal["backbone", "projector"], ...] = key(["backbone"], "which features")
    distance_function: tuple[Literal["cosine", "euclidean"], ...] = key(
        ["cosine"], "how neighbours are found and weighed"
    )
    k: tuple[int, ...] = key([20], "numbers of neighbours", ge=1)
    temperature: tuple[float, ...] = key([0.07], "of the weights exp(cosine / temperature); cosine only", gt=0)


class UmapCfg(FeatureCfg):
    name: str = idle("umap", "name of the run")
    feature_type: Literal["backbone", "projector"] = key("backbone", "which features")
    embedding: Literal["umap", "tsne", "pca"] = key("umap", "how features become points")
    max_points: int = key(3000, "images drawn of each set; more are subsampled at random", ge=2)
    color_palette: str = key("hls", "hls, or a colour map of matplotlib")
    plot_name: str | None = key(None, "write <plot_name>_train_<embedding>.pdf, ..; null: into the run's folder")


class EvaluateCfg(FeatureCfg):
    name: str | None = idle(None, "name of the run; null: evaluate-<data set>")
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


class AnalyzeDataCfg(OfflineDataCfg):
    """The same where only the validation images are looked at."""

    val_only: bool = key(True, "no training images are needed: neighbours are those among the images analysed")


class AnalyzeCfg(FeatureCfg):
    """Settings of `solo analyze`; the sources may be lists, which are compared."""

    name: str = idle("analyze", "name of the run")
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


class TakeCfg(Section):
    run: str = key(
        REQUIRED, "a checkpoint, the folder of a run or of an export, hf://NAME/REPOSITORY, timm/NAME, torchvision/NAME"
    )
    batch_size: int = key(256, "images computed at once; does not change the result", ge=1)
    device: str | None = key(None, "cpu, cuda, cuda:1, mps; null: a GPU where there is one")


class FilesCfg(TakeCfg):
    on_error: Literal["raise", "skip"] = key("raise", "images that can't be read: stop, or go on and list them")


class EmbedCfg(FilesCfg, positional=("run", "images")):
    """Settings of `solo embed RUN FOLDER out=FILE`."""

    images: str = key(REQUIRED, "a folder of images, at any depth, or one image; labels are not needed")
    out: str = key(REQUIRED, "file to write: .npz .npy .parquet; a name without an ending: a folder of .npz files")
    shard: int = key(100_000, "images after which what is done is on disk; a stopped command goes on there", ge=1)


class SearchCfg(FilesCfg, positional=("run",)):
    """Settings of `solo search RUN query=IMAGE among=FOLDER`."""

    query: str = key(REQUIRED, "an image, or a folder of them, to look for")
    among: str | None = key(None, "folder of the images that are searched")
    features: str | None = key(None, "instead: a file that solo embed wrote (.npz) with the same model")
    k: int = key(20, "images found for each query", ge=1)
    out: str | None = key(None, "also write the result: .html with pictures, .png, .csv; null: the screen only")
    index: str | None = key(None, "also write a FAISS index of the searched images, if faiss is installed")


class PredictCfg(FilesCfg, positional=("run", "images")):
    """Settings of `solo predict RUN FOLDER out=FILE`."""

    images: str = key(REQUIRED, "a folder of images, at any depth, or one image")
    out: str = key(REQUIRED, "table to write: .csv or .parquet")
    k: int = key(5, "best classes written for each image", ge=1)
    level: str | None = key(None, "level of the label tree that the best ones are of; null: the classes")
    within: str | None = key(None, "only classes below this node; LEVEL:NAME where several have the name")
    decision: Literal["likely", "crm"] = key(
        "likely", "which are the best: the most probable, or those expected to be least wrong in the label tree"
    )


class ExportCfg(TakeCfg, positional=("run",)):
    """Settings of `solo export RUN to=TARGET out=FOLDER`."""

    to: Literal["safetensors", "timm", "hf", "torchvision", "onnx", "torch_export", "detectron2"] = key(
        REQUIRED, "program that the folder is for"
    )
    out: str = key(REQUIRED, "folder to write")


class ExperimentCfg(Section, positional=("file",)):
    """Settings of `solo experiment FILE`; all other words are given to every run, such as `data.train_path=FOLDER`."""

    file: str = key(REQUIRED, "file with the arms, see docs/experiment.md")
    do: Literal["run", "cost", "report"] = key("run", "or only say what it costs, or report what is there")
    out: str | None = key(None, "folder of rows.jsonl, the report and the runs; null: the file's name without .yaml")
    jobs: int = key(1, "runs at once, each in a process of its own; they share the cores and the GPUs", ge=1)
    seeds: tuple[int, ...] | int | None = key(None, "how many, or which; null: the file's", ge=0)
    arms: tuple[str, ...] | None = key(None, "only these, and the baseline; null: all")
    keep: bool = key(True, "keep the folder of each run, with its checkpoints, after its row is written")


class ChooseCfg(Section):
    """How the settings of arms with a `grid` are chosen: on a part of the training images, `data.holdout`."""

    share: float = key(0.2, "of the training images: they are left out, and measured", gt=0, lt=1)
    seeds: tuple[int, ...] | int = key(2, "how many, or which", ge=0)
    words: tuple[str, ...] = key([], "of these runs only, behind all others")


class ArmCfg(Section):
    """One arm; a list of words is short for `words`."""

    words: tuple[str, ...] = key([], "overrides of the recipe, as on the command line")
    grid: dict[str, Any] | str | None = key(
        None, "key -> list of values to choose from, all combinations; or the arm whose choice is taken over"
    )
    recipe: str | None = key(None, "another recipe than the file's")
    shift: int = key(0, "added to the seeds: other draws; of the baseline's words, a control of what noise does", ge=0)
    placebo: bool = key(False, "can't help: its interval should hold 0, and the report says whether it does")


class ExperimentFile(Section):
    title: str | None = key(None, "above the report; null: the file's name")
    recipe: str = key(REQUIRED, "as on the command line of solo pretrain: DATASET NAME, or a path")
    words: tuple[str, ...] = key([], "overrides of every run, as on the command line of solo pretrain")
    evaluate: tuple[str, ...] = key(["measures=[knn,linear]", "intervals=false"], "words of solo evaluate")
    measures: tuple[str, ...] = key(
        REQUIRED, "[classes:]level/number of evaluate.json, such as class/knn_acc1 or unseen:class/map_at_r"
    )
    seeds: tuple[int, ...] | int = key(
        5, "how many, or which: the same for every arm, so that differences are paired", ge=0
    )
    baseline: str = key(REQUIRED, "the arm that the others are compared with")
    budgets: dict[str, list[str]] | None = key(None, "name -> words: everything is done for each; null: one")
    choose: ChooseCfg = key(ChooseCfg, "settings of arms with a grid")
    arms: dict[str, Any] = key(REQUIRED, "name -> list of words, or the keys of an arm")


class BenchmarkCfg(Section, positional=("runs",)):
    """Settings of `solo benchmark RUN ...`; other words are those of solo evaluate, for every cell: accelerator=cpu."""

    runs: tuple[str, ...] = key(
        REQUIRED, "checkpoints, folders of runs, timm/NAME or torchvision/NAME; the others are compared with the first"
    )
    data: tuple[str, ...] | str = key(
        REQUIRED, "data sets, [digits,glyphs=PATH], or a YAML file: NAME: [words of solo evaluate]"
    )
    protocols: tuple[Literal["knn", "linear", "shots1", "shots10", "labels1", "labels10"], ...] = key(
        ["knn", "linear", "shots1", "shots10", "labels1", "labels10"], "what is measured, see docs/benchmark.md"
    )
    do: Literal["run", "cost", "report"] = key("run", "or only say what it costs, or report what is there")
    out: str = key("benchmark", "folder of rows.jsonl and the report")
    names: tuple[str, ...] | None = key(None, "of the runs in the table; null: of their folders")
    draws: int = key(5, "of few training images; results are averaged", ge=1, le=254)
    k: int = key(20, "kNN: number of neighbours", ge=1)
    temperature: float = key(0.07, "kNN: of the weights exp(cosine / temperature)", gt=0)
    l2: float = key(1e-4, "linear: strength of the L2 penalty where too few images are there to choose it", gt=0)
    linear_steps: int = key(300, "linear: steps of L-BFGS at most", ge=1)
    seed: int = key(0, "of the draws: the same images for every run", ge=0, le=2**32 - 1)
