"""Reading checkpoints: nothing in them can run code, a damaged byte is seen, and stored settings are plain values.

A file of `torch.save` is a zip archive that has a checksum of each record. torch doesn't look at them, and
`load_checkpoint` does, so that files of any age and any library are verified and stay readable for everybody.
"""

import contextlib
import math
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from solo.errors import UserError, explained
from solo.files import check_zip, is_zip, plain_values, read_facts
from solo.weights import STAND_INS, flat, some

FORMAT = 1  # of `checkpoint["solo"]`


def checkpoint_file(path: str | Path) -> Path:
    """The file that an existing `path` means: itself, or in a run's folder `last.ckpt`, else its only checkpoint."""
    path = Path(path).expanduser()
    if path.is_dir():
        if (path / "last.ckpt").is_file():
            return path / "last.ckpt"
        found = sorted(file.name for file in path.glob("*.ckpt") if file.is_file())
        if len(found) == 1:
            return path / found[0]
        raise UserError(
            f"the folder {path} has no last.ckpt (checkpoints in it: {', '.join(found) or 'none'}); "
            "give a .ckpt file or the folder of one run"
        )
    if not path.is_file():
        raise UserError(f"checkpoint {path} doesn't exist; give a .ckpt file or the folder of one run")
    return path


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory, as data only.

    Weights of other libraries, in a dictionary of any kind or in a `.safetensors` file, become its `state_dict`. Raises
    a `UserError`: missing, empty, damaged, of a later version, no weights at all, or a pickle that names code to run.
    """
    file = checkpoint_file(path)
    if file.stat().st_size == 0:
        raise UserError(f"checkpoint {file} is empty (0 bytes); give a complete file or train again")
    with file.open("rb") as stream:
        head = stream.read(40)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"checkpoint {file} is a pointer of Git LFS, not the file itself; git lfs pull fetches it")
    renamed = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size
    if renamed or file.suffix == ".safetensors":
        from safetensors.torch import load_file

        with explained(f"checkpoint {file} is truncated or damaged", "copy it again"):
            loaded: Any = load_file(file)
    else:
        loaded = _read_torch(file)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        record = loaded.get("solo")
        version = record.get("format") if isinstance(record, Mapping) else None
        if isinstance(version, int) and version > FORMAT:
            raise UserError(f"checkpoint {file} is of a later version of this library ({version}); update solo-hex")
        _check_kinds(loaded["state_dict"], file)
        return dict(loaded)
    if found := flat(loaded):
        _check_kinds(found, file)
        return {"state_dict": found}
    held = f"keys {some(list(loaded))}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
    raise UserError(f"{file} is not a checkpoint: it holds {held} and no 'state_dict'; give a run's last.ckpt")


def _check_kinds(state: Mapping[Any, Any], file: Path) -> None:
    """Refuse tensors that would be loaded as something else: without values, or as their real part."""
    for name, value in state.items():
        odd = isinstance(value, Tensor) and (value.is_meta or value.is_complex() or value.is_quantized)
        if odd or (isinstance(value, Tensor) and value.layout != torch.strided):
            kind = "meta" if value.is_meta else f"{str(value.layout)[6:]} {str(value.dtype)[6:]}"
            raise UserError(f"checkpoint {file}: {name} is a {kind} tensor; save the weights as plain numbers")


def _read_torch(file: Path) -> Any:
    try:
        if is_zip(file):
            check_zip(file, stored=True)
        with warnings.catch_warnings(), torch.serialization.safe_globals(STAND_INS):
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # which it then refuses
            return torch.load(file, map_location=lambda storage, _: storage, weights_only=True)
    except Exception as error:  # a broken file can make the unpickler raise almost anything
        raise UserError(_unreadable(file, error)) from error


def _unreadable(file: Path, error: Exception) -> str:
    zipped = is_zip(file)
    named = re.search(r"GLOBAL ([\w.]+)|[Uu]nsupported class ([\w.]+)", str(error))
    called = (named[1] or named[2]) if named else None if zipped else _first_call(file)
    if called:
        return (
            f"checkpoint {file} was refused: loading it would run code ({called}); only tensors and plain values are "
            f"read. If you trust its maker, save its weights alone: c = torch.load({str(file)!r}, weights_only=False); "
            "torch.save({'state_dict': c['state_dict']}, 'weights.pth')"
        )
    with contextlib.suppress(Exception):  # no archive, or one whose list of members is damaged
        if any(name.endswith(("/constants.pkl", ".npy")) for name in zipfile.ZipFile(file).namelist()):
            return f"checkpoint {file} is a TorchScript program or a NumPy archive; give weights saved by torch.save"
    what = "is truncated or damaged" if zipped else "is not a checkpoint"
    reason = f"; {error}" if isinstance(error, UserError) else ""
    size = f"{file.stat().st_size} bytes can't be read{reason}"
    return f"checkpoint {file} {what} ({size}); copy it again or give another file"


def _first_call(file: Path) -> str | None:
    """The first function or class that a plain pickle names, found without running anything."""
    texts: list[str] = []
    with file.open("rb") as stream:
        try:
            for operation, argument, _ in pickletools.genops(stream):
                if operation.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if operation.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if isinstance(argument, str):
                    texts.append(argument)
        except ValueError:  # no pickle, or half of one
            pass
    return None


def saved_settings(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Return what a run stored about itself: `{"cfg": ..., "data": ...}`, plain values.

    Files of other libraries have no such record; then an `args.json` beside the file gives `cfg`, else both are empty.
    Raises a `UserError`: they are no plain values of a sensible size, or name a variable that would be looked up.
    """
    record = checkpoint.get("solo")
    if not isinstance(record, Mapping):
        record = {"cfg": read_facts(checkpoint_file(path).parent / "args.json")}
    with explained(f"the settings stored in {path} can't be used", "train anew, or take them out", ValueError):
        return {part: plain_values(record.get(part) or {}, mapping=True) for part in ("cfg", "data")}


def misfit(saved: Any, own: Any, where: str) -> str | None:
    """Where saved state can't take the place of a program's own, or None: another kind, another size, NaN, infinite.

    Keys that only one has, and None, are not judged.
    """
    numbers = (int, float)
    if isinstance(own, Tensor) and isinstance(saved, Tensor):
        sound = own.shape == saved.shape and (not own.is_floating_point() or bool(saved.isfinite().all()))
    elif isinstance(own, Mapping) and isinstance(saved, Mapping):
        both = (key for key in own if key in saved)
        return next((found for key in both if (found := misfit(saved[key], own[key], f"{where}.{key}"))), None)
    elif isinstance(own, (list, tuple)) and isinstance(saved, (list, tuple)):
        if len(own) != len(saved):
            return f"{where} has {len(saved)} entries for {len(own)}"
        pairs = enumerate(zip(saved, own, strict=True))
        return next((found for i, (a, b) in pairs if (found := misfit(a, b, f"{where}[{i}]"))), None)
    elif isinstance(own, numbers) and not isinstance(own, bool):
        number = isinstance(saved, numbers) and not isinstance(saved, bool)
        sound = number and (math.isfinite(saved) or (math.isinf(own) and not math.isnan(saved)))
    else:
        sound = isinstance(saved, type(own)) or not isinstance(own, (str, bool, Tensor, Mapping, list, tuple))
    return None if sound else f"{where} is {shorten(repr(saved), 60)}"
