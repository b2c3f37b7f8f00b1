"""`python -m solo COMMAND ...`."""

import sys

from solo.cli import main

if __name__ == "__main__":
    sys.exit(main())
