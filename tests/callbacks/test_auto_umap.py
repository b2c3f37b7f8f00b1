import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from solo.callbacks import optional
from solo.callbacks.optional import AutoUMAP, OfflineUMAP


@pytest.fixture
def drawing(tiny):
    class Drawing(tiny):
        training_when_drawn = None

        def forward(self, x):
            self.training_when_drawn = self.training
            return {"feats": self.layer(x)}

    return Drawing()


@pytest.mark.parametrize("embedding", ["tsne", "pca"])
def test_other_pictures(fit, drawing, tmp_path, embedding, monkeypatch):
    drawn, draw = [], optional.draw_embedding
    spy = lambda *a, **more: (drawn.append(more["embedding"]), draw(*a, **more))  # noqa: E731
    monkeypatch.setattr(optional, "draw_embedding", spy)
    callback = AutoUMAP("test", tmp_path, embedding=embedding)
    fit([callback], max_epochs=1, model=drawing)
    assert drawn == [embedding] and (callback.path / callback.umap_placeholder.format(0)).exists()


@pytest.mark.parametrize(("keep", "epochs"), [(True, [0, 2]), (False, [2])])
def test_pictures_appear_where_the_callback_says(fit, drawing, tmp_path, keep, epochs):
    callback = AutoUMAP("test", tmp_path / "umap", frequency=2, keep_previous=keep, embedding="pca")
    fit([callback], max_epochs=3, model=drawing)
    assert callback.path.parent == tmp_path / "umap" and callback.path.name.startswith("offline-")
    assert callback.umap_placeholder == f"test-{callback.path.name}-ep={{}}.pdf"
    pictures = [callback.path / callback.umap_placeholder.format(epoch) for epoch in epochs]
    assert set(callback.path.glob("[!.]*")) == {*pictures, *(file.with_suffix(".png") for file in pictures)}
    assert drawing.training_when_drawn is False


def test_training_is_not_disturbed(fit, drawing, tiny, tmp_path):
    plain, threads = tiny(), torch.get_num_threads()
    drawing.load_state_dict(plain.state_dict())
    fit([], model=plain)
    fit([AutoUMAP("test", tmp_path)], model=drawing)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), drawing.parameters(), strict=True))
    assert torch.get_num_threads() == threads


def test_four_images_are_enough_and_limits_are_kept(fit, drawing, tmp_path):
    callback = AutoUMAP("test", str(tmp_path))
    fit([callback], max_epochs=1, model=drawing, limit_val_batches=1)
    assert (callback.path / callback.umap_placeholder.format(0)).exists()


def test_wandb_gets_the_picture(fit, drawing, tmp_path, monkeypatch):
    sent = []

    class Fake(WandbLogger):
        version = "abc"
        name = "fake"
        save_dir = None

        def __init__(self):
            pass

        def log_image(self, key, images, **kwargs):
            sent.append((key, images))

        log_metrics = log_hyperparams = save = finalize = after_save_checkpoint = lambda self, *a, **k: None

    fit([AutoUMAP("test", tmp_path)], max_epochs=1, model=drawing, logger=Fake())
    assert sent == [("validation_umap", [str(tmp_path / "abc" / "test-abc-ep=0.png")])]


def test_defaults_of_the_section():
    cfg = AutoUMAP.add_and_assert_specific_cfg(OmegaConf.create({"auto_umap": {"frequency": 3}}))
    assert cfg.auto_umap == {"enabled": False, "dir": "auto_umap", "frequency": 3, "embedding": "umap"}


def test_offline(tmp_path):
    data = TensorDataset(torch.randn(20, 3, 4, 4), torch.arange(20) % 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.Dropout(0.5))
    OfflineUMAP().plot("cpu", model, DataLoader(data, 8), tmp_path / "plot.pdf")
    assert (tmp_path / "plot.pdf").read_bytes().startswith(b"%PDF") and not model.training
    with Image.open(tmp_path / "plot.png") as image:
        assert len(image.convert("RGB").getcolors(maxcolors=10**6)) > 20
