"""Alias of `solo pretrain`."""

import sys

from solo.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
