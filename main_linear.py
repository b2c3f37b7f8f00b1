"""Alias of `solo linear`."""

import sys

from solo.cli import main

if __name__ == "__main__":
    sys.exit(main(["linear", *sys.argv[1:]]))
