"""Weights & Biases: the logger of a run, which goes on without a network."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from lightning.pytorch.loggers import Logger

from solo.args.config import to_plain
from solo.args.schema import LinearCfg, PretrainCfg
from solo.errors import UserError
from solo.run.report import say

_PATIENCE = 5.0  # seconds; W&B's own is two minutes


def wandb_logger(cfg: PretrainCfg | LinearCfg, root: Path, run_id: str | None) -> Logger | None:
    """The logger that `cfg.wandb` asks for, if it does; offline where the server can't be reached, which is said.

    Raises:
        UserError: W&B can't be used: no account, no package.
    """
    if not cfg.wandb.enabled:
        return None
    try:
        from lightning.pytorch.loggers import WandbLogger

        root.mkdir(parents=True, exist_ok=True)
        options: Mapping[str, Any] = {"resume": "allow", "id": run_id} if run_id else {}
        reason = None if cfg.wandb.offline or os.environ.get("WANDB_MODE") else out_of_reach(_server())
        if reason is not None:
            say(f"W&B can't be reached ({reason}): the run goes on offline; upload it with: wandb sync {root}/wandb/*")
        logger = WandbLogger(
            name=str(cfg.name),
            project=cfg.wandb.project,
            entity=cfg.wandb.entity,
            offline=cfg.wandb.offline or reason is not None,
            save_dir=root,
            config=to_plain(cfg),
            **options,
        )
        _ = logger.experiment  # signs in now, on the first process
    except Exception as error:  # whatever W&B raises: no account, no package
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"wandb.enabled=True, but W&B can't be used ({reason}); "
            "log in with `wandb login`, or set wandb.offline=True or wandb.enabled=False"
        ) from error
    return logger


def _server() -> str:
    import wandb

    return str(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url)


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
