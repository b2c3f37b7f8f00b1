"""Alias of `solo umap`."""

import sys

from solo.cli import main

if __name__ == "__main__":
    sys.exit(main(["umap", *sys.argv[1:]]))
