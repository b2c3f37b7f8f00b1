"""Loggers beside a run's own files: Weights & Biases, which goes on without a network, MLflow and Trackio."""

import os
import re
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from solo.args.config import to_plain
from solo.args.schema import LinearCfg, PretrainCfg, RunCfg
from solo.errors import UserError, reason
from solo.run.report import say

_PATIENCE = 5.0  # seconds; W&B's own is two minutes


def loggers(cfg: PretrainCfg | LinearCfg, root: Path, run_id: str | None, wandb_id: str | None) -> list[Logger]:
    """Those that have to be there before the run's folder has a name, which their id becomes.

    `root` is where they keep what stays on this machine; `run_id` and W&B's `wandb_id` are of the run that is
    continued. Raises a `UserError` where one of them can't be used: no account, no package, no server.
    """
    found = [wandb_logger(cfg, root, wandb_id), mlflow_logger(cfg, root, run_id)]
    found += [TrackioLogger(cfg)] if "trackio" in (cfg.logger or ()) else []
    return [logger for logger in found if logger is not None]


def mlflow_logger(cfg: RunCfg, root: Path, run_id: str | None) -> Logger | None:
    """Lightning's logger for MLflow, if `cfg.logger` names it; MLFLOW_TRACKING_URI says where, else below `root`."""
    if "mlflow" not in (cfg.logger or ()):
        return None
    try:
        from lightning.pytorch.loggers import MLFlowLogger

        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "solo")
        known = run_id if run_id and re.fullmatch("[0-9a-f]{32}", run_id) else None  # MLflow's own form
        name, place = str(getattr(cfg, "name", "")), str(root / "mlruns")
        logger = MLFlowLogger(experiment, run_name=name, save_dir=place, run_id=known)
        if known is None:
            logger.log_hyperparams(to_plain(cfg))
    except Exception as error:  # whatever MLflow raises: no package, no server
        text = f"logger=[mlflow] can't be used ({reason(error)}); see MLFLOW_TRACKING_URI, or leave it out"
        raise UserError(text) from error
    return logger


class TrackioLogger(Logger):
    """Metrics to Trackio's local store, which `trackio show` draws; its run is started by the first of them.

    Lightning has none. TRACKIO_PROJECT names the project, and Trackio reads TRACKIO_SPACE_ID and TRACKIO_DIR itself.
    """

    def __init__(self, cfg: PretrainCfg | LinearCfg) -> None:
        super().__init__()
        self._cfg = cfg
        self._run: Any = None

    @property
    def name(self) -> str:
        """The name under which the run is logged."""
        return str(self._cfg.name)

    @property
    def version(self) -> None:
        """None: the run's folder has an id of its own."""
        return None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the settings are those that the run starts with."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hand them on; the first ones start the run."""
        if self._run is None:
            import trackio

            project = os.environ.get("TRACKIO_PROJECT", "solo")
            self._run = trackio.init(project=project, name=self.name, config=to_plain(self._cfg))
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run, which writes what is left."""
        if self._run is not None:
            self._run.finish()


def wandb_logger(cfg: PretrainCfg | LinearCfg, root: Path, run_id: str | None) -> Logger | None:
    """The logger that `cfg.wandb` asks for, if it does; offline where nobody answers."""
    if not cfg.wandb.enabled:
        return None
    try:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        root.mkdir(parents=True, exist_ok=True)
        options: Mapping[str, Any] = {"resume": "allow", "id": run_id} if run_id else {}
        server = str(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url)
        why = None if cfg.wandb.offline or os.environ.get("WANDB_MODE") else out_of_reach(server)
        if why is not None:
            say(f"W&B can't be reached ({why}): the run goes on offline; upload it with: wandb sync {root}/wandb/*")
        logger = WandbLogger(
            name=str(cfg.name),
            project=cfg.wandb.project,
            entity=cfg.wandb.entity,
            offline=cfg.wandb.offline or why is not None,
            save_dir=root,
            config=to_plain(cfg),
            **options,
        )
        _ = logger.experiment  # signs in now, on the first process
    except Exception as error:  # whatever W&B raises: no account, no package
        raise UserError(
            f"wandb.enabled=True, but W&B can't be used ({reason(error)}); "
            "log in with `wandb login`, or set wandb.offline=True or wandb.enabled=False"
        ) from error
    return logger


def out_of_reach(url: str, patience: float = _PATIENCE) -> str | None:
    """Why nobody answers at an address, or at the proxy on the way, within `patience` seconds; None if one does."""
    place = urlsplit(getproxies().get("https") or url)
    found: list[str | None] = []

    def connect() -> None:
        try:
            port = place.port or (80 if place.scheme == "http" else 443)
            socket.create_connection((place.hostname or "", port), timeout=patience).close()
            found.append(None)
        except (OSError, ValueError) as error:
            found.append(getattr(error, "strerror", None) or str(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(patience)
    return found[0] if found else f"no answer within {patience:g} s"
