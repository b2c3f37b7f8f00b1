"""solo-learn's call form with flags (`--dataset cifar10 --k 1 20 ...`), read into the same config as a recipe."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from solo.args.knn import knn_args
from solo.args.origins import COMMAND_LINE
from solo.args.umap import umap_args
from solo.errors import ConfigError

# flag -> key, where they differ
_KEYS = {
    "dataset": "data.dataset",
    "train_data_path": "data.train_path",
    "val_data_path": "data.val_path",
    "data_format": "data.format",
    "data_fraction": "data.fraction",
    "no_labels": "data.no_labels",
    "mean": "data.mean",
    "std": "data.std",
    "num_workers": "data.num_workers",
    "pretrained_checkpoint_dir": "pretrained_feature_extractor",
    "ckpt": "pretrained_feature_extractor",
}
_FORMS: dict[str, Callable[[ArgumentParser], ArgumentParser]] = {"knn": knn_args, "umap": umap_args}
_TELLING = ("--dataset", "--ckpt", "--pretrained_checkpoint_dir", "--train_data_path")


class LineParser(ArgumentParser):
    """An argparse parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise ConfigError(f"command line: {message}; see --help")


def has_flags(command: str, words: Sequence[str]) -> bool:
    """Whether the words are in the form with flags."""
    return command in _FORMS and any(word.split("=")[0] in _TELLING for word in words)


def read_flags(command: str, words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The config as a recipe would give it, and the place of each key.

    Raises:
        ConfigError: for words that the form doesn't have, in one line.
    """
    given = vars(_FORMS[command](LineParser(add_help=False, allow_abbrev=False)).parse_args(list(words)))
    values: dict[str, Any] = {}
    origins = {"": COMMAND_LINE}
    for flag, value in given.items():
        if value is None or value is False:
            continue
        section, _, name = _KEYS.get(flag, flag).rpartition(".")
        target = values.setdefault(section, {}) if section else values
        target[name] = value
        origins[_KEYS.get(flag, flag)] = f"{COMMAND_LINE}, --{flag}"
    return values, origins
