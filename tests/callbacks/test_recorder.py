import json

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import OmegaConf

from solo.callbacks import Checkpointer, Meter, Recorder, RunDirectory
from solo.callbacks.recorder import Facts, config_hash, read_rows, summarize
from solo.files import csv_text, write_text


def make(cfg, root, history=None, run_id=None, **kwargs):
    run, meter = RunDirectory(root, run_id), Meter()
    facts = Facts("pretrain", OmegaConf.to_container(cfg), ("coarse", "fine"), {"val_acc1": "how", "absent": "x"})
    recorder = Recorder(cfg, run, meter, facts, history, **kwargs)
    return recorder, [meter, Checkpointer(cfg, root, run=run, keep_prev=True), recorder]


def test_files_and_numbers_of_a_finished_run(cfg, fit, tmp_path):
    recorder, callbacks = make(cfg, tmp_path)
    fit(callbacks)
    folder = recorder.run.path
    assert {"config.yaml", "metrics.csv", "summary.json", "curves.png", "args.json", "last.ckpt"} <= {
        file.name for file in folder.iterdir()
    }
    assert OmegaConf.load(folder / "config.yaml") == cfg
    rows = read_rows(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2] and [row["step"] for row in rows] == [4, 8, 12]
    assert rows[0]["loss"] == pytest.approx(rows[0]["train_loss"], rel=1e-5)
    assert not any(key.endswith(("_step", "_epoch")) for key in rows[0])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["epochs"] == 3 and summary["seed"] == 5
    assert (summary["val_acc1"], summary["knn_acc1"], summary["threshold"]) == (50.0, 40.0, 0.5)
    assert summary["levels"] == {"coarse": {"val_acc1": 80.0}, "fine": {"val_acc1": 50.0, "knn_acc1": 40.0}}
    assert summary["protocol"] == {"val_acc1": "how"}
    assert summary["images_per_second"] > 0 and 0 <= summary["data_wait"] <= 1 and summary["peak_memory_mb"] > 0
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0] or summary["versions"]["torch"]
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_metrics_survive_a_resume(cfg, fit, tmp_path):
    first, callbacks = make(cfg, tmp_path)
    fit(callbacks, max_epochs=3)
    folder = first.run.path
    start = folder / f"tiny-{folder.name}-ep=1.ckpt"
    again, callbacks = make(cfg, tmp_path, history=folder / "metrics.csv", run_id=folder.name)
    fit(callbacks, max_epochs=4, ckpt_path=start)
    assert again.run.path == folder
    rows = read_rows(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3] and [row["step"] for row in rows] == [4, 8, 12, 16]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "interrupted"), (SIGTERMException, "interrupted"), (ValueError, "failed")]
)
def test_a_stopped_run_keeps_its_finished_epochs(cfg, fit, tiny, tmp_path, error, status):
    recorder, callbacks = make(cfg, tmp_path)
    with pytest.raises((SystemExit, ValueError)):
        fit(callbacks, model=tiny(crash_in_epoch=2, error=error))
    folder = recorder.run.path
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == status and summary["epochs"] == 2
    assert torch.load(folder / "last.ckpt")["epoch"] == 1
    assert len(read_rows(folder / "metrics.csv")) == 2 and (folder / "curves.png").is_file()


def test_tensorboard_writes_into_the_run_folder(cfg, fit, tmp_path):
    recorder, callbacks = make(cfg, tmp_path, tensorboard=True)
    fit(callbacks)
    files = [
        file for file in tmp_path.rglob("*") if file.is_file() and ("tfevents" in file.name or "hparams" in file.name)
    ]
    assert [file.parent for file in files] == [recorder.run.path]


def test_csv_round_trip_with_columns_that_come_later():
    rows = [{"epoch": 0, "step": 3, "loss": 0.123}, {"epoch": 1, "step": 6, "hex/threshold": None}]
    assert csv_text(rows).splitlines() == ["epoch,step,loss,hex/threshold", "0,3,0.123,", "1,6,,"]


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "a\x0cb", "a\x85b", 'a,"b'])
def test_names_of_columns_may_hold_ends_of_lines(tmp_path, name):
    file = tmp_path / "metrics.csv"
    write_text(file, csv_text([{"epoch": 0, f"val_acc1/{name}": 1.5, "loss": 2.0}]))
    assert read_rows(file) == [{"epoch": 0.0, f"val_acc1/{name}": 1.5, "loss": 2.0}]


def test_rows_that_are_not_there(tmp_path):
    assert read_rows(tmp_path / "metrics.csv") == []


def test_config_hash_ignores_names_and_places():
    cfg = {"name": "a", "seed": 1, "checkpoint": {"dir": "x"}, "data": {"dataset": "digits", "train_path": "x"}}
    same = {"name": "b", "seed": 1, "checkpoint": {"dir": "y"}, "data": {"dataset": "digits", "train_path": "y"}}
    assert config_hash(cfg) == config_hash(same) and len(config_hash(cfg)) == 12
    assert config_hash(cfg) != config_hash({**cfg, "seed": 2})
    assert config_hash(cfg) != config_hash({**cfg, "data": {"dataset": "cifar10"}})


def test_numbers_that_are_not_finite_become_null():
    summary = summarize(
        [{"epoch": 0.0, "val_acc1": float("nan"), "seconds": 1.0}], Facts("pretrain", {}), "id", "failed"
    )
    assert summary["val_acc1"] is None and summary["images_per_second"] is None
    json.dumps(summary, allow_nan=False)


@pytest.mark.fault(6, "`type` in `summary.json`", "as in a recipe")
@pytest.mark.parametrize(
    ("cfg", "kind"),
    [({"hex": {"policy": "adaptive"}}, "HEX_adaptive"), ({"hex": {"policy": "standard"}}, "standard"), ({}, None)],
)
def test_the_type_is_written_as_in_a_recipe(cfg, kind):
    row = {"epoch": 0.0, "loss": 1.0, "train_class_loss": 2.0}
    summary = summarize([row], Facts("pretrain", cfg), "id", "finished")
    assert (summary["type"], summary["loss"], summary["train_class_loss"]) == (kind, 1.0, 2.0)


def test_one_level_repeats_the_plain_numbers():
    row = {"epoch": 0.0, "val_acc1": 90.0, "val_knn_acc1": 91.0}
    summary = summarize([row], Facts("pretrain", {}, ("digit",)), "id", "finished")
    assert summary["levels"] == {"digit": {"val_acc1": 90.0, "knn_acc1": 91.0}}
