"""Which of the weights in a file are a network's: its prefix is found by fitting the names, whoever wrote the file.

At the end are stand-ins for harmless classes that others store beside their weights: `torch.load(weights_only=True)`
looks each name up there and gets plain values, tensors, or an object without behaviour; nothing of NumPy or OmegaConf
is called.
"""

import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solo.errors import UserError

_LOG = logging.getLogger("solo")
_SHOWN = 3  # keys named in an error; the rest is counted
_MOST = 2_000_000  # tensors that are looked at, in a file with cycles, too
_DEEPEST = 6  # dictionaries in dictionaries
# torch.compile, FSDP and activation checkpointing put these between the names.
_INSERTED = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Of two copies that fit, the one that the authors evaluate: DINO's and iBOT's teacher, the online network of others.
_TEACHER = re.compile(r"(?:^|\.)teacher[._]")
_SLOW = re.compile(r"(?:^|[._])(?:momentum|target|ema|slow|key|encoder_k)(?:[._]|$)")
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}  # of a ResNet
_NUMBER = re.compile(r"(^|\.)([014-7])\.")
_CHUNK = re.compile(r"(?<=blocks\.)\d+\.(\d+)(?=\.)")
# What may stand beside a backbone's own names: classifiers, projectors, decoders, queues, and tables that are computed.
_BESIDE = re.compile(
    r"(?:fc|heads?|head_dist|classifier|last_linear|linear|projector|projection_head|predictor|prototypes|queue\w*"
    r"|momentum\w*|decoder\w*|mask_token|pre_logits|lora)(?:\..*)?|.*(?:attn_mask|relative_position_index"
    r"|relative_coords_table|num_batches_tracked)"
)


def flat(loaded: object, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """All tensors in dictionaries of dictionaries, under dotted names."""
    found: dict[str, Tensor] = {}
    if not isinstance(loaded, Mapping) or depth > _DEEPEST:
        return found
    for key, value in loaded.items():
        if isinstance(value, Array):
            value = value.tensor()
        if isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.", depth + 1)
        if len(found) > _MOST:
            raise UserError(f"a file of weights holds more than {_MOST:,} tensors; give another one")
    return found


def own_weights(state: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of `state` that stand under `names` behind one prefix, without it, and what else is behind it.

    The prefix is the one with most names: `module.`, `backbone.`, ... or none. Of several with about as many, a teacher
    goes first (DINO), any other slow copy last.
    """
    state, wanted = {_INSERTED.sub("", key): value for key, value in flat(state).items()}, set(names)
    found, left = _behind_prefix(state, wanted)
    if len(found) < len(wanted):
        # `Sequential(*resnet.children())`, as lightly's examples have it: children are numbered.
        children = {_NUMBER.sub(lambda at: f"{at[1]}{_CHILDREN[at[2]]}.", key, 1): x for key, x in state.items()}
        for other in (children, _dinov2(state)):
            more, unknown = _behind_prefix(other, wanted)
            if len(more) > len(found):
                found, left = more, unknown
    return found, left


def _dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's own names as timm's: no chunks of blocks; with registers, the class token has its position in it."""
    found = {_CHUNK.sub(r"\1", key).replace("register_tokens", "reg_token"): value for key, value in state.items()}
    for key in [key for key in found if key.endswith("reg_token")]:
        token, places = (f"{key.removesuffix('reg_token')}{name}" for name in ("cls_token", "pos_embed"))
        if token in found and places in found:
            found[token], found[places] = found[token] + found[places][:, :1], found[places][:, 1:]
    return found


def _behind_prefix(state: Mapping[str, Tensor], wanted: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    counts: Counter[str] = Counter()
    for key in state:
        places = [0, *(place + 1 for place, letter in enumerate(key) if letter == ".")]
        counts.update(key[:place] for place in places if key[place:] in wanted)

    most = max(counts.values(), default=0)

    def rank(prefix: str) -> tuple[object, ...]:
        slow, teacher = _SLOW.search(prefix) is not None, _TEACHER.search(prefix) is not None
        return 2 * counts[prefix] > most, teacher, not slow, counts[prefix], -len(prefix)

    best = max(counts, key=rank, default="")
    alike = sorted(prefix for prefix in counts if counts[best] == len(wanted) and rank(prefix)[:4] == rank(best)[:4])
    if alike[1:]:
        _LOG.warning(f"the file holds {len(alike)} copies of the weights, {some(alike)}: {best} is read")
    inside = {key[len(best) :]: value for key, value in state.items() if key.startswith(best)}
    left = [key for key in inside if key not in wanted and not _BESIDE.fullmatch(key)]
    return {key: value for key, value in inside.items() if key in wanted}, left


def load_weights(
    network: nn.Module, state: Mapping[str, Any], *, path: str | Path, name: str, saved: str | None = None
) -> None:
    """Load the weights of a file into `network`, all of them or nothing.

    The rest is for the `UserError`: the file (which may begin with its setting), what the network is
    (`backbone.name='resnet18'`), and the backbone that the file was trained with.
    """
    own = network.state_dict()
    found, unexpected = own_weights(state, list(own))
    found, changed = resized(network, found)
    missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
        for key, value in found.items()
        if value.shape != own[key].shape
    ]
    if broken := [key for key, value in found.items() if not value.float().isfinite().all()]:
        raise UserError(
            f"{path} holds weights that are infinite or no numbers ({some(broken)}); give an earlier checkpoint"
        )
    if not (missing or unexpected or shapes):
        network.load_state_dict({**own, **found})
        if changed:
            _LOG.warning(f"{path}: position embeddings are interpolated to this image size ({some(changed)})")
        return
    trained = f"trained with '{saved}'" if saved else "its backbone's name isn't stored"
    random = "" if len(found) > len(shapes) else "nothing matches, this would evaluate a random backbone: "
    raise UserError(
        f"{path} ({trained}) doesn't fit {name}: {random}{len(missing)} keys missing ({some(missing)}), "
        f"{len(unexpected)} unexpected ({some(unexpected)}), {len(shapes)} of another shape ({some(shapes)}); set "
        "backbone.name and backbone.kwargs to those that it was trained with"
    )


def some(keys: Sequence[object]) -> str:
    """The first few, for an error."""
    shown = ", ".join(str(key)[:80] for key in keys[:_SHOWN])
    return (shown or "none") + (", ..." if len(keys) > _SHOWN else "")


def resized(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Weights whose position embeddings fit the network's image size, and the names of those that changed."""
    from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table  # type: ignore[attr-defined]

    fitted = dict(state)
    for name, own in network.state_dict().items():
        old = state.get(name)
        if old is None or old.shape == own.shape or old.shape[-1:] != own.shape[-1:]:
            continue
        if name.endswith("pos_embed") and old.ndim == own.ndim == 3:
            if (grids := _grids(old.shape[1], own.shape[1])) is not None:
                prefix, before, now = grids
                sizes = {"new_size": [now, now], "old_size": [before, before]}
                fitted[name] = resample_abs_pos_embed(old.float(), **sizes, num_prefix_tokens=prefix).to(old.dtype)
        elif name.endswith("relative_position_bias_table"):
            window = (math.isqrt(len(own)) + 1) // 2
            with warnings.catch_warnings():  # of timm's way to call torch.searchsorted
                warnings.simplefilter("ignore")
                new = resize_rel_pos_bias_table(old.float(), new_window_size=(window, window), new_bias_shape=own.shape)
            fitted[name] = new.to(old.dtype)
    return fitted, [name for name, value in fitted.items() if value is not state[name]]


def _grids(old: int, new: int) -> tuple[int, int, int] | None:
    """Tokens before the patches (class token, registers), and the sides of both grids; None if they aren't square."""
    for prefix in (0, 1, 2, 5):
        sides = [math.isqrt(max(0, length - prefix)) for length in (old, new)]
        if all(side and side**2 == length - prefix for side, length in zip(sides, (old, new), strict=True)):
            return prefix, sides[0], sides[1]
    return None


_KINDS = re.compile(r"[biuf][1248]")


class Inert:
    """Takes any arguments and any state, and does nothing with them."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _DType:
    """`numpy.dtype` of plain numbers; any other kind is None, and so are the arrays of it."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code: str | None = str(code) if _KINDS.fullmatch(str(code)) else None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if self.code and state[1] in (">", b">"):
            self.code = f">{self.code}"


class Array:
    """Stands for `numpy.ndarray` while a file is read; see `tensor`."""

    _state: tuple[Any, ...] = ()

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def tensor(self) -> Tensor | None:
        """Its numbers; None if it holds something else, or fewer than it says."""
        try:
            _, shape, kind, fortran, data = self._state
            if not kind.code or len(data) != math.prod(shape) * int(kind.code[-1]):
                return None
            values = np.frombuffer(data, kind.code).reshape(shape, order="F" if fortran else "C")
            return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), order="C"))
        except (ValueError, TypeError, AttributeError):
            return None


def _scalar(kind: object, data: object = b"") -> object:
    if isinstance(kind, _DType) and kind.code and isinstance(data, bytes) and len(data) == int(kind.code[-1]):
        return np.frombuffer(data, kind.code)[0].item()
    return None


_NAMES: dict[Callable[..., Any], str] = {
    Inert: "argparse.Namespace typing.Any datetime.datetime datetime.date datetime.timedelta builtins.slice "
    "builtins.range types.SimpleNamespace omegaconf.base.ContainerMetadata omegaconf.base.Metadata "
    "omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.SCMode "
    + " ".join(f"omegaconf.nodes.{kind}Node" for kind in "Any String Integer Float Boolean Bytes Path Enum".split()),
    _DType: "numpy.dtype",
    Array: "numpy.ndarray numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct",
    _scalar: "numpy.core.multiarray.scalar numpy._core.multiarray.scalar",
    (lambda *parts: "/".join(map(str, parts))): " ".join(
        f"{room}.{kind}Path" for room in ("pathlib", "pathlib._local") for kind in ("", "Posix", "Windows", "PurePosix")
    ),
    (lambda *_: {}): "collections.defaultdict",
    (lambda items=(), *_: list(items)): "collections.deque builtins.frozenset",
    dict: "builtins.dict pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing."
    "AttributeDict lightning.fabric.utilities.data.AttributeDict lightning_fabric.utilities.data.AttributeDict",
    list: "builtins.list",
    int: "builtins.int",
    str: "builtins.str",
}
# For `torch.serialization.safe_globals`.
STAND_INS: list[Any] = [(stand_in, name) for stand_in, names in _NAMES.items() for name in names.split()]
