"""Store an image folder (one sub-folder per class) as one HDF5 file for `data.format=h5`.

python scripts/utils/convert_imgfolder_to_h5.py --folder_path FOLDER --h5_path FILE.h5
"""

from __future__ import annotations

import argparse
from pathlib import Path

from solo.data.storage.containers import write_h5
from solo.errors import UserError


def main() -> None:
    """Convert, and say what was stored."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder_path", type=Path, required=True, help="folder with one sub-folder per class")
    parser.add_argument("--h5_path", type=Path, required=True, help="the file to write")
    words = parser.parse_args()
    try:
        count = write_h5(words.folder_path, words.h5_path)
    except UserError as error:
        parser.error(str(error))
    size = words.h5_path.stat().st_size / 1e6
    parser.exit(message=f"{words.h5_path}: {count:,} images, {size:,.1f} MB\n")


if __name__ == "__main__":
    main()
