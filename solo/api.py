"""What `import solo` offers: training, evaluation and trained backbones, one call each.

`inspect`, `pretrain`, `evaluate` and `analyze` are the commands of the same name: the same keys, checks and files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solo.args.compose import as_word
from solo.cli import COMMANDS, execute, read_config, settings_of
from solo.errors import UserError

if TYPE_CHECKING:
    import torch

    from solo.run.pretrain import PretrainResult
    from solo.run.pretrained import PretrainedModel
    from solo.run.take import Found

__all__ = ["analyze", "evaluate", "inspect", "load", "pretrain", "search"]


def pretrain(*recipe: str | Path, overrides: Sequence[str] = (), **settings: Any) -> PretrainResult:
    """Train as `solo pretrain` does, in this process.

    Args:
        recipe: a YAML file, or its folder and its name: `"scripts/pretrain/digits/hex.yaml"`, or
            `"scripts/pretrain/digits", "hex"`.
        overrides: words as on the command line, `"optimizer.lr=0.1"`.
        settings: the same as Python values: `max_epochs=2`, `optimizer={"lr": 0.1}`, which changes nothing else of
            `optimizer`, or `**{"optimizer.lr": 0.1}`.

    Returns the run's folder, its summary, its last checkpoint and the trained model. Raises a `ConfigError`: a recipe,
    key or value that is wrong, before anything is loaded, with all problems, one a line; or a `UserError`: something on
    this machine that has to be solved first.
    """
    result: PretrainResult = _run("pretrain", recipe, [*overrides, *_words(settings)])
    return result


def evaluate(source: str | Path, *recipe: str | Path, overrides: Sequence[str] = (), **settings: Any) -> dict[str, Any]:
    """Measure features at every level of the label tree as `solo evaluate` does; all else and errors as of `pretrain`.

    The source is a checkpoint, the folder of a run, `timm/NAME`, `torchvision/NAME`, or a file of features; a run says
    itself what it has to be measured on. Returns what `evaluate.json` holds: under `results` the numbers of each kind
    of features.
    """
    words = [*_words({_kind(source): str(source)}), *overrides, *_words(settings)]
    found: dict[str, Any] = _run("evaluate", recipe, words)
    return found


def analyze(*sources: str | Path, overrides: Sequence[str] = (), **settings: Any) -> Path:
    """Look at embeddings as `solo analyze` does: what emerges in them, and what collapses; all else as of `pretrain`.

    Sources are checkpoints, folders of runs, `timm/NAME`, or files of features; several are compared. Returns
    `report.html`, a page that opens in a browser; `analysis.json` and `figures` lie beside it.
    """
    kinds = {_kind(source) for source in sources or (None,)}
    if len(kinds) > 1:
        raise UserError(f"sources of different kinds, {' and '.join(sorted(kinds))}, can't be compared; give one kind")
    words = [*_words({kinds.pop(): [str(source) for source in sources]}), *overrides, *_words(settings)]
    report: Path = _run("analyze", (), words)
    return report


def inspect(path: str | Path) -> dict[str, Any]:
    """Print what is in a folder, table, tar or HDF5 file of images, as `solo inspect` does.

    Returns the settings that train on it: `solo.pretrain("custom", "hex", data=solo.inspect(path))`. Raises a
    `UserError`: there is nothing to look at.
    """
    from solo.run.inspect import inspect as look

    return look(str(path))


def load(source: str | Path, device: str | torch.device | None = None, **data: Any) -> PretrainedModel:
    """Load the backbone of a run, ready to be used.

    Args:
        source: a checkpoint of ours or of solo-learn, the folder of a run, a folder that `solo export` wrote,
            `hf://NAME/REPOSITORY` with such a folder, `timm/NAME` or `torchvision/NAME`.
        device: where to compute; default: a GPU where there is one.
        data: what the file doesn't say or is to be changed: `dataset`, `image_size`, `channels`, `mean`, `std`.

    Returns an object with `.backbone` in eval mode, `.transform`, `.taxonomy` and `.embed(images)`. Raises a
    `UserError`: the file can't be read, holds no backbone, or doesn't say which one; there is no such device.
    """
    from solo.run.pretrained import load_pretrained

    return load_pretrained(_named(source), device, **data)


def search(
    model: str | Path | PretrainedModel,
    query: str | Path,
    among: str | Path,
    k: int = 20,
    out: str | Path | None = None,
) -> list[Found]:
    """Find the images most alike to one, by exact cosine similarity, as `solo search` does.

    Args:
        model: what `load` has given, or what it takes.
        query: an image file, or a folder of them.
        among: a folder of images, or an `.npz` file that `solo embed` has written with this model.
        k: images found for each query.
        out: a file to write as well: `.html` with pictures, `.png` or `.csv`.

    Returns for each query its path (`.query`), and `.paths` and `.cosines` of what was found, most similar first.
    Raises a `UserError`: nothing to search, or a file can't be read or written.
    """
    from solo.args.eval_schema import SearchCfg
    from solo.run.take import search as look

    loaded = load(model) if isinstance(model, (str, Path)) else model
    place = "features" if str(among).endswith(".npz") else "among"
    given = {"run": "-", "query": str(query), place: str(among), "k": k, "out": None if out is None else str(out)}
    return look(settings_of(SearchCfg, given), loaded)


def _kind(source: object) -> str:
    if str(_named(source)).startswith(("timm/", "torchvision/")):
        return "model"
    return "features" if Path(str(source)).suffix in (".npz", ".safetensors") else "pretrained_feature_extractor"


def _named(source: object) -> str | Path:
    if not isinstance(source, (str, Path)) or not str(source):
        raise UserError(f"{source!r} is no model; give a checkpoint, the folder of a run, timm/NAME or another source")
    return source


def _run(name: str, recipe: Sequence[str | Path], words: list[str]) -> Any:
    command = COMMANDS[name]
    assert command.schema is not None
    return execute(command.call, read_config(name, [str(place) for place in recipe], words, for_run=True))


def _words(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Python values as `key=value`; a dict changes the keys that it has."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _words(value, f"{above}{name}.")
        else:
            yield as_word(f"{above}{name}", value)
