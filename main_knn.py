"""Alias of `solo knn`; a program that imports it gets the two functions that solo-learn has here."""

import sys

if __name__ == "__main__":
    from solo.cli import main

    sys.exit(main(["knn", *sys.argv[1:]]))

from solo.compat.misc import extract_features as extract_features
from solo.compat.misc import run_knn as run_knn
