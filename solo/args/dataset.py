"""solo-learn's command-line words about data and augmentations, for programs that read them with argparse."""

from __future__ import annotations

from argparse import ArgumentParser

from solo.data.catalogue.registry import DATASETS


def dataset_args(parser: ArgumentParser) -> None:
    """Add which data set, and where it is."""
    parser.add_argument("--dataset", choices=sorted(DATASETS), required=True, help="name of the data set")
    parser.add_argument("--train_data_path", help="folder of the training images; not needed where it can be fetched")
    parser.add_argument("--val_data_path", help="folder of the validation images, likewise")
    parser.add_argument("--data_format", default="image_folder", choices=["image_folder", "dali", "h5"])
    parser.add_argument("--data_fraction", type=float, default=-1.0, help="share of the training images; -1: all")


def augmentations_args(parser: ArgumentParser) -> None:
    """Add how the views of pretraining are made; several values stand for several pipelines."""
    _floats(parser, "--brightness", "--contrast", "--saturation", "--hue")
    _floats(parser, "--color_jitter_prob", "--gray_scale_prob", "--gaussian_prob", "--solarization_prob")
    _floats(parser, "--equalization_prob", "--horizontal_flip_prob", "--min_scale", "--max_scale")
    parser.add_argument("--num_crops_per_aug", type=int, nargs="+", default=[2], help="views of each pipeline")
    parser.add_argument("--crop_size", type=int, nargs="+", default=[224], help="pixels")
    parser.add_argument("--debug_augmentations", action="store_true", help="print the pipelines")


def linear_augmentations_args(parser: ArgumentParser) -> None:
    """Add how the images of an evaluation are normalised."""
    parser.add_argument("--mean", type=float, nargs="+", help="per channel; left out: the checkpoint's")
    parser.add_argument("--std", type=float, nargs="+", help="per channel; left out: the checkpoint's")


def custom_dataset_args(parser: ArgumentParser) -> None:
    """Add what only own images need."""
    parser.add_argument("--no_labels", action="store_true", help="a flat folder of images without labels")


def _floats(parser: ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, type=float, nargs="+")
