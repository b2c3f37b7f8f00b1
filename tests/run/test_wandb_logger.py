from __future__ import annotations

import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch.loggers
import pytest

from solo.run import wandb_logger as room


@pytest.mark.fault(5, "W&B with a key and no network", "offline after a few seconds, with a line")
def test_without_a_network_it_goes_on_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def logger(**options: Any) -> Any:
        asked.update(options)
        return SimpleNamespace(experiment=None)

    monkeypatch.setattr(lightning.pytorch.loggers, "WandbLogger", logger)
    monkeypatch.setattr(room, "to_plain", dict)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    section = SimpleNamespace(enabled=True, offline=False, project="p", entity=None)
    cfg: Any = type("Cfg", (dict,), {"wandb": section, "name": "x"})()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        started = time.monotonic()
        assert room.wandb_logger(cfg, tmp_path, None) is not None
        assert asked["offline"] is True and time.monotonic() - started < 10
        said = capsys.readouterr().out
        assert "W&B can't be reached" in said and "wandb sync" in said
        server.listen()
        assert room.wandb_logger(cfg, tmp_path, None) is not None and asked["offline"] is False
