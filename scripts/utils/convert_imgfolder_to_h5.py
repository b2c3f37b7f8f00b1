"""Store an image folder (one sub-folder per class) as one HDF5 file for `data.format=h5`.

python scripts/utils/convert_imgfolder_to_h5.py --folder_path FOLDER --h5_path FILE.h5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from solo.data.storage.containers import open_h5
from solo.data.storage.facts import class_folders, is_image_name
from solo.errors import UserError
from solo.files import replacing


def write_h5(folder: Path, path: Path) -> int:
    """Store a folder with one sub-folder per class, and return how many images it has; files stay encoded.

    Images at any depth belong to their first folder; deeper folders become part of the name, joined by `__`.
    """
    if path.exists():
        raise UserError(f"{path} exists already; remove it or choose another name")
    if not (names := class_folders(folder) if folder.is_dir() else []):
        raise UserError(f"{folder} has no class folders; expected one folder per class with images inside")
    count = 0
    with replacing(path) as temporary, open_h5(temporary, "w") as file:
        for name in names:
            images = sorted(p for p in (folder / name).rglob("*") if p.is_file() and is_image_name(p.name))
            if not images:
                raise UserError(f"{folder / name} holds no images; put some there or remove it")
            for image in images:
                key = f"{name}/{'__'.join(image.relative_to(folder / name).parts)}"
                data = np.frombuffer(image.read_bytes(), np.uint8)
                file.create_dataset(key, data=data, compression="gzip", compression_opts=9)
            count += len(images)
    return count


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
