import json
import os
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from solo.callbacks import Checkpointer
from solo.callbacks.run_directory import AutoResumer


def make_run(folder, cfg, age_hours=0.0, wandb_run_id=None, checkpoint="last.ckpt", **more):
    folder.mkdir(parents=True)
    args = {**OmegaConf.to_container(cfg), "wandb_run_id": wandb_run_id, **more}
    (folder / "args.json").write_text(json.dumps(args))
    file = folder / checkpoint
    file.write_bytes(b"x")
    when = time.time() - age_hours * 3600
    os.utime(file, (when, when))
    return file


def test_the_newest_matching_run_is_found_with_its_wandb_id(cfg, tmp_path):
    make_run(tmp_path / "old", cfg, age_hours=3)
    newest = make_run(tmp_path / "new", cfg, age_hours=1, wandb_run_id="abc", checkpoint="tiny-new-ep=3.ckpt")
    make_run(tmp_path / "other", cfg, name="another")
    assert AutoResumer(tmp_path).find_checkpoint(cfg) == (newest, "abc")


@pytest.mark.fault(
    5, "`args.json` that names a variable of the environment, or is half a list", "no run to continue, and a line"
)
def test_other_files_are_no_runs(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    make_run(tmp_path / "one", cfg, wandb_run_id="abc", optimizer={"lr": "${oc.env:SECRET_TOKEN}"})
    make_run(tmp_path / "two", cfg, optimizer={"lr": "${"})
    (make_run(tmp_path / "three", cfg).parent / "args.json").write_text("[" * 50_000)
    resumer = AutoResumer(tmp_path)
    assert resumer.find_checkpoint(cfg) == (None, None) and len(resumer.passed_over) == 3
    assert all(line.endswith("is not continued: args.json beside it can't be read") for line in resumer.passed_over)


def test_a_real_run_is_found(cfg, fit, tmp_path):
    checkpointer = Checkpointer(cfg, tmp_path)
    fit([checkpointer])
    path, wandb_run_id = AutoResumer(tmp_path, max_hours=1).find_checkpoint(cfg)
    assert path == Path(checkpointer.last_ckpt) and wandb_run_id is None


@pytest.mark.parametrize(
    "different",
    [
        {"name": "x"},
        {"max_epochs": 9},
        {"optimizer": {"name": "sgd", "batch_size": 4, "lr": 0.2, "weight_decay": 0}},
        {"seed": 6},
        {"method_kwargs": {"temperature": 0.2}},
        {"hex": {"policy": "fixed"}},
    ],
)
def test_a_run_of_other_settings_is_not_continued(cfg, tmp_path, different):
    make_run(tmp_path / "run", cfg, **different)
    assert AutoResumer(tmp_path).find_checkpoint(cfg) == (None, None)


def test_settings_that_an_old_run_did_not_store_do_not_count(cfg, tmp_path):
    file = make_run(tmp_path / "run", cfg)
    cfg.method_kwargs = {"temperature": 0.2}
    assert AutoResumer(tmp_path).find_checkpoint(cfg)[0] == file


def test_old_finished_damaged_and_absent_runs_are_skipped(cfg, tmp_path):
    make_run(tmp_path / "old", cfg, age_hours=37)
    make_run(tmp_path / "done", cfg)
    (tmp_path / "done" / "summary.json").write_text('{"status": "finished"}')
    make_run(tmp_path / "broken", cfg)
    (tmp_path / "broken" / "args.json").write_text("{")
    assert AutoResumer(tmp_path).find_checkpoint(cfg) == (None, None)
    assert AutoResumer(tmp_path / "nowhere").find_checkpoint(cfg) == (None, None)


def test_defaults_are_written_into_the_configuration():
    cfg = AutoResumer.add_and_assert_specific_cfg(OmegaConf.create({}))
    assert cfg.auto_resume == {"enabled": False, "max_hours": 36}


def test_what_is_passed_over_is_named_with_its_reason(cfg, tmp_path):
    old = make_run(tmp_path / "old", cfg, age_hours=40)
    other = make_run(tmp_path / "other", cfg, seed=6)
    make_run(tmp_path / "of another name", cfg, name="another")
    resumer = AutoResumer(tmp_path)
    assert resumer.find_checkpoint(cfg) == (None, None)
    assert resumer.passed_over == [
        f"{other} is not continued: it has other settings (seed: 6 -> 5)",
        f"{old} is not continued: it is 40.0 h old (auto_resume.max_hours=36); "
        f"resume_from_checkpoint={old} continues it",
    ]


def test_settings_that_may_change_do_not_count(cfg, tmp_path):
    file = make_run(tmp_path / "run", cfg, max_epochs=2)
    cfg.resume_allow = ["max_epochs"]
    assert AutoResumer(tmp_path).find_checkpoint(cfg)[0] == file
