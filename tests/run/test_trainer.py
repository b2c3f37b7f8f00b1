import signal
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from solo.callbacks.recorder import Facts
from solo.errors import UserError
from solo.run import trainer as module
from solo.run.machine import SyncedNorms


class Tiny(LightningModule):
    def __init__(self, error=None):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.error = error

    def training_step(self, batch, batch_idx):
        if self.error is not None and self.current_epoch == 1:
            raise self.error
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def prepare(cfg, model=None):
    return module.prepare(cfg, "simclr", Facts("pretrain", {"name": "tiny"}), model or Tiny())


def fit(cfg, model):
    run = prepare(cfg, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.fit(model, DataLoader(TensorDataset(torch.randn(8, 2)), 4), None)
    return run


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), {1, 130}), (SIGTERMException(), {143})])
def test_a_stopped_run_says_what_it_kept_and_does_not_exit_with_0(pretrain_cfg, tmp_path, capsys, error, code):
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises((SystemExit, KeyboardInterrupt)) as stopped:
            fit(pretrain_cfg(), Tiny(error))
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it from here on
    assert getattr(stopped.value, "code", 130) in code
    (folder,) = (tmp_path / "simclr").iterdir()
    screen = capsys.readouterr().out
    assert f"1 finished epoch is kept in {folder}" in screen
    assert f"resume_from_checkpoint={folder / 'last.ckpt'}" in screen


def test_only_the_trainers_keys_reach_the_trainer(pretrain_cfg):
    options = module.trainer_options(pretrain_cfg(precision="bf16-mixed", gradient_clip_val=1.0))
    assert options["precision"] == "bf16-mixed" and options["gradient_clip_val"] == 1.0 and options["max_epochs"] == 2
    assert not {"name", "method", "data", "strategy", "devices", "logger", "callbacks"} & set(options)


@pytest.mark.parametrize(("devices", "processes"), [(1, 1), ([0], 1), ([0, 1], 2), ("2", 2), ("auto", 1), (-1, 1)])
def test_devices_on_a_cpu_are_processes(pretrain_cfg, devices, processes):
    trainer = prepare(pretrain_cfg(devices=devices)).trainer
    assert trainer.num_devices == trainer.world_size == processes


def test_ddp_looks_for_no_unused_parameters(pretrain_cfg):
    strategy = prepare(pretrain_cfg(strategy="ddp")).trainer.strategy
    assert strategy._ddp_kwargs["broadcast_buffers"] is True  # `Tiny` is a user's own: who knows what it keeps
    assert isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs["find_unused_parameters"] is False
    assert not isinstance(prepare(pretrain_cfg()).trainer.strategy, DDPStrategy)


@pytest.mark.parametrize("wanted", [True, False])
def test_batch_norms_of_processes_on_a_cpu_are_synchronised_if_asked_for(pretrain_cfg, wanted):
    cfg = pretrain_cfg(sync_batchnorm=wanted, strategy="ddp", devices=2)
    strategy = prepare(cfg).trainer.strategy
    assert isinstance(strategy._layer_sync, SyncedNorms) == wanted


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(pretrain_cfg):
    cfg = pretrain_cfg(accelerator="cuda")
    with pytest.raises(UserError, match="no GPU is visible; use accelerator=auto"):
        prepare(cfg)


def test_a_folder_that_cannot_be_made(pretrain_cfg, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        fit(pretrain_cfg(checkpoint={"enabled": True, "dir": str(tmp_path / "file")}), Tiny())


def test_auto_resume_goes_on_with_the_interrupted_run(pretrain_cfg, tmp_path):
    cfg = pretrain_cfg(auto_resume={"enabled": True})
    with pytest.raises(ValueError):
        fit(cfg, Tiny(ValueError()))
    run = fit(cfg, Tiny())
    (folder,) = (tmp_path / "simclr").iterdir()
    assert run.resume.parent == folder and run.directory.path == folder
    assert [row["epoch"] for row in run.recorder.rows] == [0, 1]
    assert fit(cfg, Tiny()).resume is None  # it is finished now
