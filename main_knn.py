"""Alias of `solo knn`."""

import sys

from solo.cli import main

if __name__ == "__main__":
    sys.exit(main(["knn", *sys.argv[1:]]))
