import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Tiny(LightningModule):
    """Two weights, a dropout (so that random states matter) and the metrics of a real run."""

    def __init__(self, crash_in_epoch: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.crash_in_epoch = crash_in_epoch
        self.error = error

    def training_step(self, batch, batch_idx):
        if self.current_epoch == self.crash_in_epoch:
            raise self.error("planned")
        x, y = batch
        loss = nn.functional.cross_entropy(self.layer(nn.functional.dropout(x, 0.5)), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("hex/threshold", 0.5)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log_dict({"val_acc1": 50.0, "val_acc1/coarse": 80.0, "val_acc1/fine": 50.0, "val_knn_acc1": 40.0})

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3])]


@pytest.fixture
def cfg():
    return OmegaConf.create(
        {
            "name": "tiny",
            "method": "simclr",
            "seed": 5,
            "max_epochs": 3,
            "data": {"dataset": "digits"},
            "optimizer": {"name": "sgd", "batch_size": 4, "lr": 0.1, "weight_decay": 0},
        }
    )


@pytest.fixture
def fit():
    def run(callbacks, max_epochs=3, model=None, ckpt_path=None, seed=0, **kwargs):
        torch.manual_seed(seed)
        model = model or Tiny()
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
        data = TensorDataset(x, torch.arange(16) % 3)
        trainer = Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_model_summary=False,
            **{"logger": False, "enable_progress_bar": False, **kwargs},
        )
        with warnings.catch_warnings():  # Lightning's advice for such a small run
            warnings.simplefilter("ignore")
            trainer.fit(model, DataLoader(data, 4, shuffle=True), DataLoader(data, 4), ckpt_path=ckpt_path)
        return trainer

    return run


@pytest.fixture
def tiny():
    return Tiny
