"""Images inside of larger files: WebDataset's shards, HDF5, data sets of Hugging Face's `datasets`, archives. No torch.

Shards are tar files whose members with one key are a sample: `0001.jpg`, `0001.cls` and `0001.json` are the sample
`0001`. In an HDF5 file `<class>/<image name>` is a 1-D uint8 array, the bytes of an image file.
Archives that nobody has looked at are unpacked with nothing outside of the folder, no links, and not without end.
"""

import functools
import json
import lzma
import os
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from solo.data.storage.facts import Problems, Stored, is_image_name
from solo.errors import BrokenImageError, UserError, explained, reason, some
from solo.files import parse_json, write_text

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LOADED: set[str] = set()  # data sets of the hub
MOST_BYTES = 2**40  # of all files of an archive together: twice what is known
MOST_FILES = 20_000_000
_OF_NAMES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"L", b"K")  # the last two are GNU's
_OF_PYTHON = (EOFError, ValueError, RuntimeError, OverflowError)
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, *_OF_PYTHON)

ShardSample = dict[str, Stored]  # what has one key, by extension: `.jpg`, `.cls`


class StrictInfo(tarfile.TarInfo):
    """A header that `tarfile` takes for the end of the archive, because it is cut off or damaged, is an error."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """Read a header; a `tarfile.ReadError` if it is none, or says that an absurd size follows."""
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it is cut off or damaged: {error}") from error
        if info.size < 0 or (info.type in _OF_NAMES and info.size > 2**20):
            raise tarfile.ReadError(f"a header says that {info.size} bytes follow")
        return info


def read_shards(path: str | Path, problems: Problems | None = None) -> dict[str, ShardSample]:
    """The samples with an image, by shard and key; `problems` is told of shards that can't be read to their end.

    Shards are tar files, not compressed: one, a folder of them, or a name with a range, `train-{000..146}.tar`.
    """
    text = str(Path(path).expanduser())
    braces = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if braces and not os.path.exists(text):  # a name may hold braces of its own
        first, last = braces.groups()
        numbers = range(int(first), int(last) + 1)
        if len(numbers) > 1_000_000:
            raise UserError(f"{text} means {len(numbers):,} shards; at most 1,000,000 can be read")
        files = [f"{text[: braces.start()]}{n:0{len(first)}}{text[braces.end() :]}" for n in numbers]
    elif os.path.isdir(text):
        files = sorted(str(file) for file in Path(text).rglob("*") if file.name.endswith((".tar", *_COMPRESSED)))
    else:
        files = [text]
    wrong = [f"{file} does not exist" for file in files if not os.path.isfile(file)]
    if wrong or not files:
        what = wrong[0] if wrong else f"{text} holds no *.tar file"
        raise UserError(f"{what}; data.format=webdataset needs a tar file, a folder of them, or name-{{000..099}}.tar")
    if compressed := [file for file in files if file.endswith(_COMPRESSED)]:
        raise UserError(f"{compressed[0]} is compressed, and its images can't be read in any order; unpack it to .tar")
    samples, problems = dict[str, ShardSample](), problems or Problems()
    for shard in files:
        found, problem = _members(shard, os.path.getsize(shard), os.stat(shard).st_mtime_ns)
        if problem:
            problems.add(shard, problem)
        samples |= found
    if not samples:
        raise UserError(f"{path} holds no images; members must be named KEY.jpg, KEY.png, .., with KEY.cls or KEY.json")
    return samples


@functools.lru_cache(maxsize=4096)
def _members(shard: str, size: int, changed_ns: int) -> tuple[dict[str, ShardSample], str]:
    """And what is wrong with the shard. Asked several times in a run; reading a large one's heads takes seconds."""
    found: dict[str, ShardSample] = {}
    problem = ""
    try:
        with tarfile.open(shard, "r:", tarinfo=StrictInfo) as tar:
            for info in tar:
                if info.issparse() or info.offset_data + info.size > size:
                    raise tarfile.ReadError(f"the data of {info.name} are cut off")
                folder, _, name = info.name.rpartition("/")
                if not info.isfile() or name.startswith("."):
                    continue
                key, _, extension = name.partition(".")
                extension = f".{extension.lower()}"
                sample, start = found.setdefault(f"{folder}/{key}", {}), info.offset_data
                if extension in sample and is_image_name(name) and str(sample[extension]) != f"{shard}:{info.name}":
                    continue  # x.JPG beside x.jpg: the first one counts
                if extension in sample:
                    raise UserError(f"the shard {shard} holds {info.name} twice; keys must differ")
                place, part = (shard, start, info.size), f"{info.name} {start}"
                sample[extension] = Stored(f"{shard}:{info.name}", shard, part, _member_bytes, place)
        with open(shard, "rb") as file:
            file.seek(tar.offset)
            if file.read(2**16).strip(b"\0"):
                raise tarfile.ReadError("there is more behind its end")
    except UserError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
        problem = f"can't be read to its end ({reason(error)})"
    return {f"{shard}:{key}": sample for key, sample in found.items() if any(map(is_image_name, sample))}, problem


def _member_bytes(shard: str, offset: int, size: int) -> bytes:
    """Fewer if the shard is cut off. It is opened each time: a handful of shards may be thousands."""
    with open(shard, "rb", buffering=0) as file:
        return os.pread(file.fileno(), size, offset)


def is_h5(path: str | Path) -> bool:
    """Whether `path` is a file that begins as HDF5 files do."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def open_h5(path: Path, mode: str = "r") -> Any:
    """The file as h5py's `File`. Raises a `UserError`: h5py is not installed, or the file is missing or damaged."""
    with explained("reading and writing HDF5 files needs h5py", 'pip install "solo-hex[h5]"', ImportError):
        import h5py
    what = "can't be read as HDF5" if mode == "r" else "can't be written"
    with explained(f"{path} {what}", "check data.train_path and data.val_path", OSError):
        return h5py.File(path, mode)


def read_index(path: Path) -> dict[str, list[str]]:
    """Class -> names of its images, both sorted. It is kept beside the file: listing a million names takes a minute."""
    cache, state = path.with_name(path.name + ".index.json"), list[int]()
    with suppress(OSError, ValueError, KeyError, TypeError):  # there is none yet, or a damaged one
        state = [path.stat().st_size, path.stat().st_mtime_ns]
        stored = parse_json(cache.read_bytes())
        if stored["file"] == [*state, zlib.crc32(json.dumps(stored["index"]).encode())]:
            return dict(stored["index"])

    def text(name: str | bytes) -> str:
        """A name, as Python holds names of files that are no UTF-8."""
        return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")

    kinds = (OSError, KeyError, RuntimeError, AttributeError, TypeError)
    with open_h5(path) as file, explained(f"{path} is damaged", "write it again", *kinds):
        items = {text(name): item for name, item in sorted(file.items(), key=lambda item: text(item[0]))}
        away = [name for name, item in items.items() if item is None or item.file.filename != file.filename]
        index = {name: sorted(map(text, item)) for name, item in items.items() if hasattr(item, "keys")}
    strange = [f"the array {name!r}" for name in sorted(set(items) - set(index))]
    strange += [f"the empty group {name!r}" for name, images in index.items() if not images]
    if away:
        raise UserError(f"{path}: {away[0]!r} is a link to another file; write the images into one file")
    if strange or not index:
        what = f"{path} holds {strange[0] if strange else 'nothing'}; expected one group per class with encoded images"
        raise UserError(f"{what} inside, as scripts/utils/convert_imgfolder_to_h5.py writes them")
    state.append(zlib.crc32(json.dumps(index).encode()))
    with suppress(UserError):  # of a read-only folder: the next run lists the file again
        write_text(cache, json.dumps({"file": state, "index": index}))
    return index


class H5File:
    """A file that is opened by each process for itself: a handle from before a fork reads other processes' bytes."""

    def __init__(self, path: Path) -> None:
        self.path, self._handle, self._owner = path, None, -1

    def image(self, part: str) -> Stored:
        """One image; reading it raises a BrokenImageError if it isn't there, lies in another file, or is no file."""
        return Stored(f"{self.path}: {part}", str(self.path), part, H5File.read, (self, part))

    def read(self, part: str) -> bytes:
        """The bytes of an image file."""
        try:
            if self._owner != os.getpid():
                self._handle, self._owner = open_h5(self.path), os.getpid()
            handle: Any = self._handle
            item = handle[part.encode("utf-8", "surrogateescape")]
            if item.file.filename != handle.filename or item.is_virtual or item.external:
                raise ValueError("it leads to another file")
            if item.dtype != "uint8" or item.ndim != 1 or item.size > 2**30:
                raise ValueError(f"it holds {item.dtype} of shape {item.shape}")
            return bytes(item[()].tobytes())
        except UserError:
            raise
        except (OSError, KeyError, ValueError, AttributeError, TypeError, RuntimeError, MemoryError) as error:
            what = f"{self.path}: {part} can't be read as an image ({reason(error)})"
            raise BrokenImageError(f"{what}; write the file again") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_handle": None, "_owner": -1}


@functools.lru_cache(maxsize=8)
def read_hub(path: str, train: bool = True) -> Any:
    """A split of a data set: `train`, else `validation`, or `test` where there is none; of `NAME:SPLIT` that one."""
    with explained("data.format=hf needs the package datasets", 'pip install "solo-hex[hf]"', ImportError):
        import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
    name, _, split = path.partition(":")
    folder = Path(name).expanduser()
    with explained(f"datasets can't load {name}", "give a name on the hub or a folder"):
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():  # left by `save_to_disk`
            data = datasets.load_from_disk(str(folder))
        else:
            data = datasets.load_dataset(str(folder) if folder.is_dir() else name)
    _LOADED.add(path)
    if not isinstance(data, Mapping):
        return data
    wanted = [split] if split else ["train"] if train else ["validation", "valid", "val", "test"]
    found = [name for name in wanted if name in data]
    if not found:
        raise UserError(f"{path} has no split {' or '.join(wanted)}; add one of {some(data, 20)}: NAME:SPLIT")
    return data[found[0]]


def is_here(path: str) -> bool:
    """Whether a data set of the hub can be read without a network: a folder, or loaded by this process already."""
    return Path(path.partition(":")[0]).expanduser().is_dir() or path in _LOADED


@contextmanager
def guarded() -> Iterator[None]:
    """Let torchvision's data sets unpack what they have fetched by these functions."""
    from unittest.mock import patch  # takes a while

    from torchvision.datasets import utils

    ours = {
        ".tar": lambda source, folder, compression: extract_tar(Path(source), Path(folder)),
        ".zip": lambda source, folder, compression: extract_zip(Path(source), Path(folder)),
    }
    with patch.dict(utils._ARCHIVE_EXTRACTORS, ours):
        yield


def extract_tar(source: Path, folder: Path, most: int = MOST_BYTES) -> None:
    """Unpack the files and folders of a tar file of at most so many bytes; anything else in it is refused."""
    with _room(source, folder, most) as free, tarfile.open(source, tarinfo=StrictInfo) as tar:
        size = 0
        for count, member in enumerate(tar, start=1):
            size += max(member.size, 0)
            _require_bound(source, size, count, free)
            place = _require_inside(source, member.name, folder)
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.unlink(missing_ok=True)
                with place.open("xb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)  # type: ignore[arg-type]
                place.chmod(0o755 if member.mode & 0o100 else 0o644)
            else:
                what = f"{member.name!r} is neither file nor folder, and no link is ever made"
                raise UserError(f"{source}: {what}; if you trust it, unpack it by other means")


def extract_zip(source: Path, folder: Path, most: int = MOST_BYTES) -> None:
    """Unpack a zip file, whose links become small files; what is damaged, too large or leaves the folder is refused."""
    with _room(source, folder, most) as free, zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        _require_bound(source, sum(member.file_size for member in members), len(members), free)
        for member in members:
            _require_inside(source, member.filename, folder)
        archive.extractall(folder)


@contextmanager
def _room(source: Path, folder: Path, most: int) -> Iterator[int]:
    """How many bytes may be written into the folder; an archive that is damaged becomes a `UserError`."""
    folder.mkdir(parents=True, exist_ok=True)
    with explained(f"{source} is no complete archive", "remove it and fetch it again", *_DAMAGED):
        yield min(most, shutil.disk_usage(folder).free)


def _require_bound(source: Path, size: int, count: int, most: int) -> None:
    if size > most or count > MOST_FILES:
        bytes_ = f"{size:,} bytes of at most {most:,} (free on the disk, or allowed)"
        text = bytes_ if size > most else f"more than {MOST_FILES:,} files"
        raise UserError(f"{source} is too large to unpack: {text}; free the disk or look at the archive")


def _require_inside(source: Path, name: str, folder: Path) -> Path:
    """The place of a member, with the links that are there already: in the folder."""
    root = os.path.realpath(folder)
    place = os.path.realpath(os.path.join(root, name.replace("\\", "/")))
    if place != root and not place.startswith(root + os.sep):
        raise UserError(f"{source}: {name!r} would be written outside of {folder}; fetch the archive again")
    return Path(place)
