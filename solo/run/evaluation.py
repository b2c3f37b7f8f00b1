"""What the commands that only look at features share: the names of the labels, the run's folder."""

from __future__ import annotations

from pathlib import Path

from solo.analysis.embedding import LabelNames
from solo.args.config import to_yaml
from solo.args.eval_schema import FeatureCfg
from solo.callbacks.run_directory import RunDirectory
from solo.errors import UserError
from solo.eval.features import Features, FeatureTable
from solo.files import write_text


def label_names(features: Features) -> LabelNames:
    """Names of the levels and of their classes."""
    return LabelNames(features.levels, [features.class_names(level) for level in range(len(features.levels))])


def training_table(features: Features, command: str) -> FeatureTable:
    """The training images.

    Raises:
        UserError: there are none.
    """
    if features.train is None:
        raise UserError(
            f"solo {command} needs training images, and {features.name} has none; a file of features takes them as "
            "train_features and train_labels"
        )
    return features.train


def open_folder(cfg: FeatureCfg, command: str) -> Path:
    """Make `<checkpoint.dir>/<command>/<run id>/` with the resolved config in it.

    Raises:
        UserError: it can't be written.
    """
    folder = RunDirectory(Path(cfg.checkpoint.dir).expanduser() / command).open_alone()
    write_text(folder / "config.yaml", to_yaml(cfg))
    return folder
