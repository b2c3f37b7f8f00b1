from __future__ import annotations

import importlib.util
import socket
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import lightning.pytorch.loggers
import pytest

from solo.cli import main, read_config
from solo.run import trainer as room


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


def test_no_run_is_opened_elsewhere_for_settings_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "wandb_logger", lambda *_: pytest.fail("a run was opened"))
    words = ["devices=9999", "accelerator=cpu", "wandb.enabled=true"]
    assert main(["pretrain", "digits", "simclr", f"checkpoint.dir={tmp_path}", *words]) == 1
    assert "9999 processes are too many" in capsys.readouterr().err


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """A stand-in for MLflow's package below Lightning's own logger; what reaches it."""
    told: list[tuple[str, Any]] = []

    class Client:
        def __init__(self, uri: str) -> None:
            told.append(("uri", uri))

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id=name, lifecycle_stage="active")

        def create_run(self, experiment_id: str, tags: Any) -> Any:
            told.append(("run", (experiment_id, tags)))
            return SimpleNamespace(info=SimpleNamespace(run_id="a" * 32))

        def get_run(self, run_id: str) -> Any:
            return SimpleNamespace(info=SimpleNamespace(run_id=run_id, experiment_id="solo"))

        def log_batch(self, run_id: str, params: Any = (), metrics: Any = ()) -> None:
            told.extend(("param", entry["key"]) for entry in params)
            told.extend(("metric", (entry["key"], entry["value"])) for entry in metrics)

        def set_terminated(self, run_id: str, status: str) -> None:
            told.append(("status", status))

    names = {
        "mlflow": {"set_tracking_uri": lambda uri: None},
        "mlflow.tracking": {"MlflowClient": Client},
        "mlflow.tracking.context": {},
        "mlflow.tracking.context.registry": {"resolve_tags": lambda tags: tags},
        "mlflow.entities": {"Param": dict, "Metric": dict},
        "mlflow.utils": {},
        "mlflow.utils.mlflow_tags": {"MLFLOW_RUN_NAME": "name"},
    }
    for name, held in names.items():
        module: Any = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(held)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return told


WORDS = ["max_epochs=1", "data.fraction=0.1", "optimizer.batch_size=64", "accelerator=cpu", "progress=off"]
WORDS += ["backbone.kwargs.width=8", "knn_eval.enabled=false"]


@pytest.mark.thorough
def test_one_key_names_the_loggers(tmp_path: Path, mlflow: list[tuple[str, Any]]) -> None:
    words = ["pretrain", "digits", "simclr", *WORDS, f"checkpoint.dir={tmp_path}"]
    assert main([*words, "logger=[csv,mlflow]"]) == 0
    folder = tmp_path / "simclr" / ("a" * 32)  # a run is called as MLflow calls it
    assert (folder / "metrics.csv").is_file() and not list(folder.glob("events.*"))
    assert ("uri", f"file:{tmp_path}/simclr/mlruns") in mlflow and ("status", "FINISHED") in mlflow
    assert ("param", "optimizer/lr") in mlflow
    assert any(kind == "metric" and value[0].startswith("val_acc1") for kind, value in mlflow)
    made = len([kind for kind, _ in mlflow if kind == "run"])
    more = [f"resume_from_checkpoint={folder / 'last.ckpt'}", "max_epochs=2", "resume_allow=[max_epochs]"]
    assert main([*words, "logger=[mlflow,tensorboard]", *more]) == 0
    assert len([kind for kind, _ in mlflow if kind == "run"]) == made == 1 and list(folder.glob("events.*"))


def test_trackio_is_told_by_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    run = SimpleNamespace(log=lambda metrics, step: told.append(metrics), finish=lambda: told.append("finished"))
    module: Any = ModuleType("trackio")
    module.__spec__ = ModuleSpec("trackio", None)
    module.init = lambda **given: (told.append(given), run)[1]
    monkeypatch.setitem(sys.modules, "trackio", module)
    words = ["pretrain", "digits", "simclr", *WORDS, f"checkpoint.dir={tmp_path}", "logger=[trackio]"]
    assert main(words) == 0
    first, *metrics, last = told
    assert (first["project"], first["name"], last) == ("solo", "simclr-digits", "finished")
    assert first["config"]["optimizer"]["lr"] and any("val_acc1" in one for one in metrics)
    assert list(tmp_path.glob("simclr/*/metrics.csv")) and not list(tmp_path.glob("simclr/*/events.*"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["logger=[mlflow]"], "needs MLflow, which isn't installed; pip install mlflow"),
        (["logger=[trackio]"], "needs Trackio, which isn't installed; pip install trackio"),
        (["logger=[visdom]"], "choose csv, tensorboard, wandb, mlflow, trackio"),
        (["logger=[csv]", "wandb.enabled=true"], "wandb.enabled does nothing here"),
        (["logger=[csv]", "wandb.project=x"], "wandb.project does nothing here"),
    ],
)
def test_loggers_that_cannot_be(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    if line.startswith("needs") and importlib.util.find_spec(words[0][8:-1]):
        pytest.skip(f"{words[0]} is installed")
    assert main(["pretrain", "digits", "simclr", *words]) == 2 and line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "on"),
    [([], (True, False)), (["wandb.enabled=true"], (True, True)), (["logger=[csv]"], (False, False))]
    + [(["logger=wandb", "wandb.project=x"], (False, True)), (["tensorboard.enabled=false"], (False, False))],
)
def test_old_and_new_keys_say_the_same(words: list[str], on: tuple[bool, bool]) -> None:
    cfg = read_config("pretrain", ["digits", "simclr"], words, for_run=False).config
    assert (cfg.tensorboard.enabled, cfg.wandb.enabled) == on
