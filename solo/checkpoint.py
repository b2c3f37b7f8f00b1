"""Reading checkpoints: nothing in them can run code, and nothing is loaded in part."""

from __future__ import annotations

import json
import pickletools
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solo.errors import UserError

_BACKBONE_KEY = re.compile(r"(?:_orig_mod\.|module\.|model\.)*(backbone|encoder)\.(?:_orig_mod\.)?(.+)")
_SHOWN = 3  # keys named in an error; the rest is counted


def checkpoint_file(path: str | Path) -> Path:
    """Return the file that `path` means: itself, or in a run's folder its `last.ckpt`, else its only checkpoint.

    Raises:
        UserError: there is no such file, or the folder holds none or several.
    """
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
    """Read a checkpoint (or a plain state dict, as `state_dict`) into CPU memory, as data only.

    Raises:
        UserError: missing, empty, truncated, no checkpoint at all, or a pickle that names code to run.
    """
    file = checkpoint_file(path)
    if file.stat().st_size == 0:
        raise UserError(f"checkpoint {file} is empty (0 bytes); give a complete file or train again")
    try:
        with warnings.catch_warnings():  # about a pickle that it then refuses
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            loaded = torch.load(file, map_location=lambda storage, _: storage, weights_only=True)
    except Exception as error:  # a broken file can make the unpickler raise almost anything
        raise UserError(_unreadable(file, error)) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        return dict(loaded)
    if isinstance(loaded, Mapping) and loaded and all(isinstance(value, Tensor) for value in loaded.values()):
        return {"state_dict": dict(loaded)}
    held = f"keys {_some(list(loaded))}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
    raise UserError(f"{file} is not a checkpoint: it holds {held} and no 'state_dict'; give a run's last.ckpt")


def _unreadable(file: Path, error: Exception) -> str:
    with file.open("rb") as stream:
        zipped = stream.read(2) == b"PK"
    named = re.search(r"GLOBAL ([\w.]+)|[Uu]nsupported class ([\w.]+)", str(error))
    called = (named[1] or named[2]) if named else None if zipped else _first_call(file)
    if called:
        return (
            f"checkpoint {file} was refused: loading it would run code ({called}); "
            "only tensors and plain values are read, give a checkpoint written by this library"
        )
    what = "is truncated or damaged" if zipped else "is not a checkpoint"
    return f"checkpoint {file} {what} ({file.stat().st_size} bytes can't be read); copy it again or give another file"


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


def backbone_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the online backbone's weights without their prefix (`backbone.`; `encoder.` in old checkpoints).

    Raises:
        UserError: there are none, so that a random backbone would be used.
    """
    found: dict[str, dict[str, Tensor]] = {"backbone": {}, "encoder": {}}
    for key, value in checkpoint["state_dict"].items():
        if match := _BACKBONE_KEY.fullmatch(key):
            found[match[1]][match[2]] = value
    state = found["backbone"] or found["encoder"]
    if not state:
        held = _some(list(checkpoint["state_dict"]))
        raise UserError(
            f"the checkpoint has no weights named 'backbone.*' or 'encoder.*' (it has {held}): "
            "this would evaluate a random backbone; give a checkpoint of a pretraining run"
        )
    return state


def load_backbone(
    backbone: nn.Module, state: Mapping[str, Tensor], *, path: str | Path, name: str, saved: str | None = None
) -> None:
    """Load `state` into `backbone`, all of it or nothing.

    Args:
        backbone: the module to fill.
        state: from `backbone_state`.
        path: the checkpoint's path, for the error.
        name: the backbone's name in the configuration, for the error.
        saved: the name that the checkpoint was trained with, where it is known.

    Raises:
        UserError: names missing, unexpected and mismatching keys and both backbones.
    """
    own = backbone.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if not (missing or unexpected or shapes):
        backbone.load_state_dict(dict(state))
        return
    fits = len(own) - len(missing) - len(shapes)
    trained = f"trained with '{saved}'" if saved else "its backbone's name isn't stored"
    random = "nothing matches, this would evaluate a random backbone: " if fits == 0 else ""
    raise UserError(
        f"checkpoint {path} ({trained}) doesn't fit backbone.name='{name}': {random}{len(missing)} keys missing "
        f"({_some(missing)}), {len(unexpected)} unexpected ({_some(unexpected)}), {len(shapes)} of another shape "
        f"({_some(shapes)}); set backbone.name and backbone.kwargs to the checkpoint's"
    )


def saved_settings(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Return what a run stored about itself: `{"cfg": ..., "data": ...}`, plain values.

    Files of other libraries have no such record; then an `args.json` beside the file gives `cfg`, else both are empty.
    """
    record = checkpoint.get("solo")
    if isinstance(record, Mapping):
        return {"cfg": dict(record.get("cfg") or {}), "data": dict(record.get("data") or {})}
    args = checkpoint_file(path).parent / "args.json"
    try:
        cfg = json.loads(args.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # optional help, and not ours
        cfg = {}
    return {"cfg": cfg if isinstance(cfg, dict) else {}, "data": {}}


def _some(keys: Sequence[object]) -> str:
    shown = ", ".join(str(key) for key in keys[:_SHOWN])
    return (shown or "none") + (", ..." if len(keys) > _SHOWN else "")
