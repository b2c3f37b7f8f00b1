"""Every key of the commands that use a trained model on images of one's own, as in `schema`.

They need no recipe: the first words are the keys in `POSITIONAL`, the others are `key=value`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from solo.args.fields import REQUIRED, key


@dataclass(kw_only=True, frozen=True)
class TakeCfg:
    """Keys of all of them."""

    run: str = key(
        REQUIRED, "a checkpoint, the folder of a run or of an export, hf://NAME/REPOSITORY, timm/NAME, torchvision/NAME"
    )
    batch_size: int = key(256, "images computed at once; does not change the result", ge=1)
    device: str | None = key(None, "cpu, cuda, cuda:1, mps; null: a GPU where there is one")


@dataclass(kw_only=True, frozen=True)
class FilesCfg(TakeCfg):
    """Keys of those that read image files."""

    on_error: Literal["raise", "skip"] = key("raise", "images that can't be read: stop, or go on and list them")


@dataclass(kw_only=True, frozen=True)
class EmbedCfg(FilesCfg):
    """Settings of `solo embed RUN FOLDER out=FILE`."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("run", "images")

    images: str = key(REQUIRED, "a folder of images, at any depth, or one image; labels are not needed")
    out: str = key(REQUIRED, "file to write: .npz .npy .parquet; a name without an ending: a folder of .npz files")
    shard: int = key(100_000, "images after which what is done is on disk; a stopped command goes on there", ge=1)


@dataclass(kw_only=True, frozen=True)
class SearchCfg(FilesCfg):
    """Settings of `solo search RUN query=IMAGE among=FOLDER`."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("run",)

    query: str = key(REQUIRED, "an image, or a folder of them, to look for")
    among: str | None = key(None, "folder of the images that are searched")
    features: str | None = key(None, "instead: a file that solo embed wrote (.npz) with the same model")
    k: int = key(20, "images found for each query", ge=1)
    out: str | None = key(None, "also write the result: .html with pictures, .png, .csv; null: the screen only")
    index: str | None = key(None, "also write a FAISS index of the searched images, if faiss is installed")


@dataclass(kw_only=True, frozen=True)
class PredictCfg(FilesCfg):
    """Settings of `solo predict RUN FOLDER out=FILE`."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("run", "images")

    images: str = key(REQUIRED, "a folder of images, at any depth, or one image")
    out: str = key(REQUIRED, "table to write: .csv or .parquet")
    k: int = key(5, "best classes written for each image", ge=1)
    level: str | None = key(None, "level of the label tree that the best ones are of; null: the classes")
    within: str | None = key(None, "only classes below this node; LEVEL:NAME where several have the name")
    decision: Literal["likely", "crm"] = key(
        "likely", "which are the best: the most probable, or those expected to be least wrong in the label tree"
    )


@dataclass(kw_only=True, frozen=True)
class ExportCfg(TakeCfg):
    """Settings of `solo export RUN to=TARGET out=FOLDER`."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("run",)

    to: Literal["safetensors", "timm", "hf", "torchvision", "onnx", "torch_export", "detectron2"] = key(
        REQUIRED, "program that the folder is for"
    )
    out: str = key(REQUIRED, "folder to write")
