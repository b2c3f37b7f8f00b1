"""WebDataset shards (https://github.com/webdataset/webdataset): tar files whose members with one key are a sample.

`0001.jpg`, `0001.cls` and `0001.json` are the sample `0001`. The members' places are looked up once, so that any image
can be read at any time, by any number of processes. No torch.
"""

import functools
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solo.data.storage.archives import StrictInfo
from solo.data.storage.folders import Problems, is_image_name
from solo.data.storage.stored import Stored
from solo.data.storage.tables import as_text
from solo.errors import UserError, reason
from solo.untrusted import parse_json

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 1_000_000
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def _read(shard: str, offset: int, size: int) -> bytes:
    """The bytes of a member; fewer if the shard is cut off."""
    # Opened each time: workers are forked, and a handful of shards may be thousands.
    handle = os.open(shard, os.O_RDONLY)
    try:
        return os.pread(handle, size, offset)
    finally:
        os.close(handle)


@dataclass
class Sample:
    """The image of a key, and what else has it."""

    image: Stored | None = None
    others: dict[str, Stored] = field(default_factory=dict)  # by extension


def shard_files(path: str | Path) -> list[str]:
    """The shards, not compressed, of a tar file, a folder of them, or a name with a range: `train-{000..146}.tar`."""
    text = str(Path(path).expanduser())
    found = None if os.path.exists(text) else _BRACES.search(text)  # a name may hold braces of its own
    if found:
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        if len(numbers) > _MOST_SHARDS:
            raise UserError(f"{text} means {len(numbers):,} shards; at most {_MOST_SHARDS:,} can be read")
        files = [f"{text[: found.start()]}{n:0{len(first)}}{text[found.end() :]}" for n in numbers]
    elif os.path.isdir(text):
        files = sorted(str(file) for file in Path(text).rglob("*") if file.name.endswith((".tar", *_COMPRESSED)))
    else:
        files = [text]
    missing = [file for file in files if not os.path.isfile(file)]
    if missing or not files:
        what = f"{missing[0]} does not exist" if missing else f"{text} holds no *.tar file"
        raise UserError(f"{what}; data.format=webdataset needs a tar file, a folder of them, or name-{{000..099}}.tar")
    compressed = next((file for file in files if file.endswith(_COMPRESSED)), None)
    if compressed:
        raise UserError(f"{compressed} is compressed, and its images can't be read in any order; unpack it to .tar")
    return files


def read_shards(path: str | Path, problems: Problems | None = None) -> dict[str, Sample]:
    """The samples with an image, by shard and key, in their order.

    `problems` is told of shards that can't be read to their end; without it they are refused. Raises a `UserError`
    where a shard is damaged or holds a key twice, or there is no image.
    """
    samples: dict[str, Sample] = {}
    for shard in shard_files(path):
        stat = os.stat(shard)
        found, problem = _members(shard, stat.st_size, stat.st_mtime_ns)
        if problem:
            (problems or Problems()).add(shard, problem)
        samples |= found
    if not samples:
        raise UserError(f"{path} holds no images; members must be named KEY.jpg, KEY.png, .., with KEY.cls or KEY.json")
    return samples


@functools.lru_cache(maxsize=4096)
def _members(shard: str, size: int, changed_ns: int) -> tuple[dict[str, Sample], str]:
    """And what is wrong with the shard. Asked several times in a run; reading a large one's heads takes seconds."""
    found: dict[str, Sample] = {}
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
                sample, start = found.setdefault(f"{folder}/{key}", Sample()), info.offset_data
                place = (shard, start, info.size)
                member = Stored(f"{shard}:{info.name}", shard, f"{info.name} {start}", _read, place)
                if extension in sample.others or (sample.image and sample.image.name == member.name):
                    raise UserError(f"the shard {shard} holds {info.name} twice; keys must differ")
                if is_image_name(extension):  # the first of several is the image
                    sample.image = sample.image or member
                else:
                    sample.others[extension] = member
        with open(shard, "rb") as file:
            file.seek(tar.offset)
            if file.read(2**16).strip(b"\0"):
                raise tarfile.ReadError("there is more behind its end")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        problem = f"can't be read to its end ({reason(error)})"
    return {f"{shard}:{key}": sample for key, sample in found.items() if sample.image}, problem


def label_table(samples: Sequence[Sample]) -> dict[str, list[str]]:
    """Columns of texts: `cls` from `KEY.cls`, and the plain values of `KEY.json`, of which a damaged one is refused."""
    rows = [_fields(sample) for sample in samples]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [as_text(row.get(name)) for row in rows] for name in names}


def _fields(sample: Sample) -> Mapping[str, Any]:
    row: dict[str, Any] = {}
    for extension, member in sample.others.items():
        if extension == ".cls":
            row["cls"] = member.read().decode(errors="replace").strip()
        elif extension == ".json":
            try:
                content = parse_json(member.read())
            except ValueError as error:
                raise UserError(f"{member} is no JSON ({error}); correct it, or take it out") from error
            if isinstance(content, dict):
                row |= {name: value for name, value in content.items() if isinstance(value, (str, int, float))}
    return row
