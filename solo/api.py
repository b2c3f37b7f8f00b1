"""What `import solo` offers: training, evaluation and trained backbones, one call each.

`pretrain` and `evaluate` are the commands of the same name: the same recipes, keys, checks and files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solo.args.words import as_word
from solo.cli import COMMANDS, execute, read_config
from solo.errors import UserError

if TYPE_CHECKING:
    import torch

    from solo.run.pretrain import PretrainResult
    from solo.run.pretrained import PretrainedModel

__all__ = ["evaluate", "load", "pretrain"]

_FEATURE_FILES = (".npz", ".safetensors")


def pretrain(*recipe: str | Path, overrides: Sequence[str] = (), **settings: Any) -> PretrainResult:
    """Train as `solo pretrain` does, in this process.

    Args:
        recipe: a YAML file, or its folder and its name: `"scripts/pretrain/digits/hex.yaml"`, or
            `"scripts/pretrain/digits", "hex"`.
        overrides: words as on the command line, `"optimizer.lr=0.1"`.
        settings: the same as Python values: `max_epochs=2`, `optimizer={"lr": 0.1}`, which changes nothing else of
            `optimizer`, or `**{"optimizer.lr": 0.1}`.

    Returns:
        The run's folder, its summary, its last checkpoint and the trained model.

    Raises:
        ConfigError: a recipe, key or value that is wrong, before anything is loaded; all problems, one a line.
        UserError: something on this machine that has to be solved first.
    """
    words = [*overrides, *_words(settings)]
    result: PretrainResult = _run("pretrain", recipe, words)
    return result


def evaluate(source: str | Path, *recipe: str | Path, overrides: Sequence[str] = (), **settings: Any) -> dict[str, Any]:
    """Measure features at every level of the label tree as `solo evaluate` does.

    Args:
        source: a checkpoint, the folder of a run, `timm/NAME`, `torchvision/NAME`, or a file of features.
        recipe: of `solo evaluate`; a run says itself what it has to be measured on.
        overrides: words as on the command line, `"k=5"`.
        settings: the same as Python values: `measures=["knn"]`, `data={"val_path": "images"}`.

    Returns:
        What `evaluate.json` holds: under `results` the numbers of each kind of features.

    Raises:
        ConfigError: a key or value that is wrong; all problems, one a line.
        UserError: the source can't be read, or the images aren't there.
    """
    kind = "pretrained_feature_extractor"
    if str(_named(source)).startswith(("timm/", "torchvision/")):
        kind = "model"
    elif Path(source).suffix in _FEATURE_FILES:
        kind = "features"
    words = [*_words({kind: str(source)}), *overrides, *_words(settings)]
    found: dict[str, Any] = _run("evaluate", recipe, words)
    return found


def load(source: str | Path, device: str | torch.device | None = None, **data: Any) -> PretrainedModel:
    """Load the backbone of a run, ready to be used.

    Args:
        source: a checkpoint of ours or of solo-learn, or the folder of a run.
        device: where to compute; default: a GPU where there is one.
        data: what the file doesn't say or is to be changed: `dataset`, `image_size`, `channels`, `mean`, `std`.

    Returns:
        An object with `.backbone` in eval mode, `.transform`, `.taxonomy` and `.embed(images)`.

    Raises:
        UserError: the file can't be read, holds no backbone, or doesn't say which one.
    """
    from solo.run.pretrained import load_pretrained

    return load_pretrained(_named(source), device, **data)


def _named(source: object) -> str | Path:
    if not isinstance(source, (str, Path)) or not str(source):
        raise UserError(f"{source!r} is no model; give a checkpoint, the folder of a run, timm/NAME or another source")
    return source


def _run(name: str, recipe: Sequence[str | Path], words: list[str]) -> Any:
    command = COMMANDS[name]
    assert command.schema is not None
    return execute(command.module, read_config(name, [str(place) for place in recipe], words, for_run=True))


def _words(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Python values as `key=value`; a dict changes the keys that it has."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _words(value, f"{above}{name}.")
        else:
            yield as_word(f"{above}{name}", value)
