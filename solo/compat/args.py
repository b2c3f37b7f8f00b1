"""What solo-learn's modules in `solo.args` held: `parse_cfg`, and call forms with flags, `--dataset cifar10 --k 1 20`.

Programs written for it add these words to their own parsers (`solo.args.dataset`) or read them (`solo.args.knn`,
`solo.args.umap`); our commands turn those of `main_knn.py` and `main_umap.py` into the config that a recipe would give.
"""

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo.args.compose import LineParser
from solo.args.config import fill_defaults, to_plain, write_back
from solo.args.fields import ParseError, keys_of, unknown
from solo.args.origins import COMMAND_LINE
from solo.args.parse import parse
from solo.args.schema import LinearCfg, PretrainCfg
from solo.data.catalogue.registry import DATASETS

_LOG = logging.getLogger("solo")

_N_CLASSES_PER_DATASET = {name: row.num_classes for name, row in DATASETS.items() if row.num_classes is not None}
_SUPPORTED_DATASETS = list(DATASETS)


def parse_pretrain(cfg: DictConfig) -> DictConfig:
    """Check and complete the config of a pretraining in place and return it; a second call changes nothing.

    Keys that only the calling program knows stay as they are, with a warning that names them; so do its own methods,
    optimizers and schedulers. Raises a `ParseError`: (a `ConfigError` and an `AssertionError`) with all problems, one a
    line.
    """
    return _parse(cfg, PretrainCfg)


def parse_linear(cfg: DictConfig) -> DictConfig:
    """`parse_pretrain` for linear evaluation and finetuning."""
    return _parse(cfg, LinearCfg)


def _parse(cfg: DictConfig, schema: type) -> DictConfig:
    values = to_plain(cfg)
    groups = [str(entry) for entry in values.pop("defaults", None) or () if isinstance(entry, dict)]
    values.pop("hydra", None)
    if "augmentations" in keys_of(schema) and "augmentations" not in values and groups:
        raise ParseError(
            f"augmentations is missing: the file's `defaults` name {', '.join(groups)}, which OmegaConf.load doesn't "
            "read; let Hydra compose it (hydra.compose, hydra.main), or write the augmentations into the file"
        )
    parsed = parse(values, schema, from_code=True, fetch=True)
    for note in parsed.notes:
        _LOG.warning(note)
    if parsed.own:
        _LOG.warning("kept as they are, for your own code: %s; the library reads no such keys", ", ".join(parsed.own))
    write_back(cfg, parsed.values)
    for key, value in parsed.own.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    return cfg


def add_and_assert_dataset_cfg(cfg: DictConfig) -> DictConfig:
    """Defaults of the `data` section of a known data set."""
    name = cfg.data.dataset
    if name not in DATASETS:
        raise ParseError(f"data.dataset{unknown(name, DATASETS)}")
    return fill_defaults(cfg, PretrainCfg, "data")


def add_and_assert_wandb_cfg(cfg: DictConfig) -> DictConfig:
    """Defaults of the `wandb` section."""
    return fill_defaults(cfg, PretrainCfg, "wandb")


def add_and_assert_lightning_cfg(cfg: DictConfig) -> DictConfig:
    """Defaults of the keys for Lightning."""
    return fill_defaults(cfg, PretrainCfg, "seed", "resume_from_checkpoint", "strategy", "num_nodes")


# flag -> key, where they differ
_KEYS = {name: f"data.{name}" for name in ("dataset", "no_labels", "mean", "std", "num_workers")}
_KEYS |= {"train_data_path": "data.train_path", "val_data_path": "data.val_path"}
_KEYS |= {"data_format": "data.format", "data_fraction": "data.fraction"}
_KEYS |= dict.fromkeys(("pretrained_checkpoint_dir", "ckpt"), "pretrained_feature_extractor")
_TELLING = ("--dataset", "--ckpt", "--pretrained_checkpoint_dir", "--train_data_path")


def dataset_args(parser: ArgumentParser) -> None:
    """Add the words that say which data set is meant and where it is."""
    parser.add_argument("--dataset", choices=sorted(DATASETS), required=True, help="name of the data set")
    parser.add_argument("--train_data_path", help="folder of the training images; not needed where it can be fetched")
    parser.add_argument("--val_data_path", help="folder of the validation images, likewise")
    parser.add_argument("--data_format", default="image_folder", choices=["image_folder", "dali", "h5"])
    parser.add_argument("--data_fraction", type=float, default=-1.0, help="share of the training images; -1: all")


def augmentations_args(parser: ArgumentParser) -> None:
    """Add how the views of pretraining are made; several values stand for several pipelines."""
    probabilities = "color_jitter gray_scale gaussian solarization equalization horizontal_flip"
    names = ["brightness", "contrast", "saturation", "hue", *(f"{name}_prob" for name in probabilities.split())]
    for name in (*names, "min_scale", "max_scale"):
        parser.add_argument(f"--{name}", type=float, nargs="+")
    parser.add_argument("--num_crops_per_aug", type=int, nargs="+", default=[2], help="views of each pipeline")
    parser.add_argument("--crop_size", type=int, nargs="+", default=[224], help="pixels")
    parser.add_argument("--debug_augmentations", action="store_true", help="print the pipelines")


def linear_augmentations_args(parser: ArgumentParser) -> None:
    """Add how the images of an evaluation are normalised."""
    parser.add_argument("--mean", type=float, nargs="+", help="per channel; left out: the checkpoint's")
    parser.add_argument("--std", type=float, nargs="+", help="per channel; left out: the checkpoint's")


def custom_dataset_args(parser: ArgumentParser) -> None:
    """Add the words that only own images need."""
    parser.add_argument("--no_labels", action="store_true", help="a flat folder of images without labels")


def _with_words(parser: ArgumentParser, command: str) -> ArgumentParser:
    dataset_args(parser)
    custom_dataset_args(parser)
    linear_augmentations_args(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--pretrained_checkpoint_dir", help="folder with args.json and a .ckpt file")
    source.add_argument("--ckpt", help="a checkpoint file")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=10)
    if command == "umap":
        parser.add_argument("--plot_name", default="im100", help="start of the pictures' names")
        return parser
    parser.add_argument("--k", type=int, nargs="+", help="numbers of neighbours")
    parser.add_argument("--temperature", type=float, nargs="+", help="of the votes, with cosine")
    parser.add_argument("--distance_function", nargs="+", choices=["euclidean", "cosine"])
    parser.add_argument("--feature_type", nargs="+", choices=["backbone", "projector"])
    return parser


def parse_args_knn() -> Namespace:
    """The words of `main_knn.py` on the running program's command line; what was left out is None."""
    return _with_words(ArgumentParser(), "knn").parse_args()


def parse_args_umap() -> Namespace:
    """The words of `main_umap.py` on the running program's command line; what was left out is None."""
    return _with_words(ArgumentParser(), "umap").parse_args()


def has_flags(command: str, words: Sequence[str]) -> bool:
    """Whether the words are in the form with flags."""
    return command in ("knn", "umap") and any(word.split("=")[0] in _TELLING for word in words)


def read_flags(command: str, words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The config as a recipe would give it, and the place of each key; a `ConfigError` for other words."""
    given = vars(_with_words(LineParser(add_help=False, allow_abbrev=False), command).parse_args(list(words)))
    values: dict[str, Any] = {}
    origins = {"": COMMAND_LINE}
    for flag, value in given.items():
        if value is None or value is False:
            continue
        section, _, name = _KEYS.get(flag, flag).rpartition(".")
        target = values.setdefault(section, {}) if section else values
        target[name] = value
        origins[_KEYS.get(flag, flag)] = f"{COMMAND_LINE}, --{flag}"
    return values, origins
