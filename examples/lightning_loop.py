"""HEX in a LightningModule of your own: the loss is one object, everything else is Lightning's.

`python examples/lightning_loop.py` takes images, views and network from `minimal.py` and ends where that ends.
"""

from __future__ import annotations

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from minimal import BATCH, LR, WARM_UP, Network, images, probe, view
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from solo import AdaptivePercentile, HEXLoss


class HexSimCLR(LightningModule):
    """SimCLR whose loss knows of the hierarchy that emerges; the loss gathers the views of all processes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()
        self.loss = HEXLoss(temperature=0.2, policy=AdaptivePercentile(quantile=0.99, warm_epoch=4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The loss of two views of each image."""
        z0, z1 = self.network(torch.cat([view(batch[0]), view(batch[0])])).chunk(2)
        epochs = self.trainer.max_epochs or 1
        loss: Tensor = self.loss(z0, z1, epoch=self.current_epoch, max_epochs=epochs)
        self.log_dict({"loss": loss, **{f"hex/{name}": value for name, value in self.loss.stats.items()}})
        return loss

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW along a cosine that is warmed up."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=LR, weight_decay=0.01)
        steps = int(self.trainer.estimated_stepping_batches)
        warm = min(WARM_UP / (self.trainer.max_epochs or 1), 0.5)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps, pct_start=warm, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(epochs: int, seed: int) -> tuple[float, float]:
    """Learn without labels; returns the accuracies of kNN and of a linear classifier in percent."""
    seed_everything(seed, verbose=False)
    x, y, val_x, val_y = images()
    loader = DataLoader(TensorDataset(x), batch_size=BATCH, shuffle=True, drop_last=True)
    model = HexSimCLR()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(max_epochs=epochs, accelerator="cpu", devices=1, **quiet).fit(model, loader)
    knn, linear = probe(model.network, x, y, val_x, val_y)
    print(f"{epochs} epochs: kNN {knn:.2f} %, linear {linear:.2f} %")
    return knn, linear


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="HEX in a LightningModule on scikit-learn's digits.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    train(given.epochs, given.seed)
