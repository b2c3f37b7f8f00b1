"""solo-learn's command-line words of the kNN evaluation; `flags` turns them into a config."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from solo.args.umap import checkpoint_args


def knn_args(parser: ArgumentParser) -> ArgumentParser:
    """Add the words of `main_knn.py`, and return the parser."""
    checkpoint_args(parser)
    parser.add_argument("--k", type=int, nargs="+", help="numbers of neighbours")
    parser.add_argument("--temperature", type=float, nargs="+", help="of the votes, with cosine")
    parser.add_argument("--distance_function", nargs="+", choices=["euclidean", "cosine"])
    parser.add_argument("--feature_type", nargs="+", choices=["backbone", "projector"])
    return parser


def parse_args_knn() -> Namespace:
    """The words of the running program's command line; what was left out is None."""
    return knn_args(ArgumentParser()).parse_args()
