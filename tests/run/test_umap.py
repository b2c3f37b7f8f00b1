import pytest

from solo import cli
from solo.run import pretrain


@pytest.fixture
def pretrained(pretrain_cfg, tmp_path):
    pictures = {"enabled": True, "dir": str(tmp_path / "pictures"), "frequency": 2, "embedding": "pca"}
    pretrain.run(pretrain_cfg(auto_umap=pictures, tensorboard={"enabled": False}))
    (folder,) = (tmp_path / "simclr").iterdir()
    return folder


def test_pictures_while_training_share_the_runs_id(pretrained, tmp_path):
    (folder,) = (tmp_path / "pictures" / "simclr").iterdir()
    assert folder.name == pretrained.name
    start = f"simclr-digits-{pretrained.name}-ep=0"
    assert {file.name for file in folder.iterdir()} == {f"{start}.pdf", f"{start}.png"}


def test_a_recipe(pretrained, tmp_path, capsys):
    recipe = ["umap", "scripts/umap/digits", "umap.yaml", f"pretrained_feature_extractor={pretrained}"]
    more = ["embedding=pca", "max_points=100", f"checkpoint.dir={tmp_path}", "accelerator=cpu"]
    assert cli.main([*recipe, *more]) == 0
    (folder,) = (tmp_path / "umap").iterdir()
    expected = {f"{split}_pca.{ending}" for split in ("train", "val") for ending in ("pdf", "png")}
    assert {file.name for file in folder.iterdir()} == {"config.yaml", *expected}
    assert "100 images of 1,437 drawn at random (max_points, seed 5)" in capsys.readouterr().out


@pytest.mark.thorough  # UMAP is compiled for a quarter of a minute
def test_flags(pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset", "digits", "--pretrained_checkpoint_dir", str(pretrained), "--num_workers", "0"]
    assert cli.main(["umap", *flags]) == 0
    for name in ("im100_train_umap.pdf", "im100_val_umap.pdf"):
        assert (tmp_path / name).read_bytes().startswith(b"%PDF")
