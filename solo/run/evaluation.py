"""What the commands that only look at features share: the run's folder, and what their files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from solo.args.config import to_plain, to_yaml
from solo.args.eval_schema import FeatureCfg
from solo.callbacks.run_directory import RunDirectory
from solo.callbacks.summary import config_hash, versions
from solo.files import write_text


def facts_of(cfg: FeatureCfg, kind: str, **more: Any) -> dict[str, Any]:
    """What the JSON file of a command holds beside its results."""
    of = {"kind": kind, "name": cfg.name, "dataset": cfg.data.dataset}
    return {**of, **more, "config_hash": config_hash(to_plain(cfg)), "versions": versions()}


def open_folder(cfg: FeatureCfg, command: str) -> Path:
    """Make `<checkpoint.dir>/<command>/<run id>/` with the resolved config in it.

    Raises a `UserError`: it can't be written.
    """
    folder = RunDirectory(Path(cfg.checkpoint.dir).expanduser() / command).open_alone()
    write_text(folder / "config.yaml", to_yaml(cfg))
    return folder
