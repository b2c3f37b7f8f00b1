"""solo-learn's command-line words of the UMAP program; `flags` turns them into a config."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from solo.args.dataset import custom_dataset_args, dataset_args, linear_augmentations_args


def checkpoint_args(parser: ArgumentParser) -> ArgumentParser:
    """Add data, checkpoint and loader, which kNN and UMAP share, and return the parser."""
    dataset_args(parser)
    custom_dataset_args(parser)
    linear_augmentations_args(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--pretrained_checkpoint_dir", help="folder with args.json and a .ckpt file")
    source.add_argument("--ckpt", help="a checkpoint file")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=10)
    return parser


def umap_args(parser: ArgumentParser) -> ArgumentParser:
    """Add the words of `main_umap.py`, and return the parser."""
    checkpoint_args(parser)
    parser.add_argument("--plot_name", default="im100", help="start of the pictures' names")
    return parser


def parse_args_umap() -> Namespace:
    """The words of the running program's command line; what was left out is None."""
    return umap_args(ArgumentParser()).parse_args()
