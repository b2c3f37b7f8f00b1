"""A run that starts from weights: adapters, frozen layers, and what it says of both ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.utils import save_image

import solo
from solo import api
from solo.args.parse import parse
from solo.args.schema import PretrainCfg
from solo.backbones.registry import published_model
from solo.checkpoint import load_checkpoint
from solo.errors import ConfigError
from solo.run import pretrain, source

VALUES: dict[str, Any] = {
    "method": "simclr",
    "method_kwargs": {"proj_hidden_dim": 16, "proj_output_dim": 8, "temperature": 0.2},
    "backbone": {"name": "vit_tiny", "kwargs": {"patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}},
    "data": {"dataset": "digits", "num_workers": 0},
    "augmentations": [{"num_crops": 2, "crop_size": 16}],
    "optimizer": {"name": "adamw", "batch_size": 32, "lr": 0.05},
    "scheduler": {"name": "none"},
    "accelerator": "cpu",
    "limit_train_batches": 3,
    "limit_val_batches": 1,
    "num_sanity_val_steps": 0,
    "max_epochs": 1,
    "progress": "off",
}


def run(folder: Path, **words: Any) -> pretrain.PretrainResult:
    values = {**VALUES, "checkpoint": {"enabled": True, "dir": str(folder), "keep_prev": True}, **words}
    return pretrain.run(parse(values, PretrainCfg).config)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("start")).folder


@pytest.mark.thorough  # what it says is tested in tests/eval/test_verdict.py
def test_the_verdict_is_on_the_screen_and_in_the_summary(start: Path, tmp_path: Path, capsys: Any) -> None:
    found = run(tmp_path, finetune_from=str(start), finetune_lora=2)
    said = found.summary["verdict"]
    assert f"against the weights it started from: {said['text']}" in " ".join(capsys.readouterr().out.split())
    assert said["bank"] > 1000 and said["images"] > 300 and said["knn"]["start"] > 10
    # The checkpoint has the sums, and is read as any other.
    images = torch.randn(3, 1, 16, 16)
    model = solo.load(found.folder)
    with torch.no_grad():
        expected = found.model.backbone.eval()(images)
    torch.testing.assert_close(model.backbone(images), expected)
    moved = load_checkpoint(start)["state_dict"], load_checkpoint(found.folder)["state_dict"]
    names = [k for k, v in moved[0].items() if k.startswith("backbone.") and not torch.equal(v, moved[1][k])]
    assert names == [f"backbone.blocks.{i}.attn.{part}.weight" for i in (0, 1) for part in ("qkv", "proj")]


@pytest.mark.thorough
def test_no_verdict_without_weights_or_where_nobody_asks(start: Path, tmp_path: Path) -> None:
    assert "verdict" not in run(tmp_path, finetune_from=str(start), verdict=False).summary
    with pytest.raises(ConfigError, match=r"finetune_lora=2 leaves the rest .* say where from"):
        parse({**VALUES, "finetune_lora": 2}, PretrainCfg)


@pytest.mark.thorough
def test_adapters_are_resumed_to_the_last_bit(start: Path, tmp_path: Path) -> None:
    words = {"finetune_from": str(start), "finetune_lora": 2, "max_epochs": 2, "verdict": False}
    words |= {"optimizer": {**VALUES["optimizer"], "layer_decay": 0.7}}
    whole = run(tmp_path / "a", **words)
    first = next(whole.folder.glob("*ep=0.ckpt"))
    again = run(tmp_path / "b", resume_from_checkpoint=str(first), **words)
    a, b = (load_checkpoint(x.folder)["state_dict"] for x in (whole, again))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.thorough  # networks of 20 million weights and more
@pytest.mark.parametrize(
    ("recipe", "trained", "kept"),
    [
        ("continue_dinov2", ("attn.qkv.weight", "attn.proj.weight"), ("patch_embed", "reg_token", "mlp", "norm")),
        ("continue_dinov3", ("patch_embed", "cls_token", "attn.qkv.weight", "mlp"), ()),
        ("continue_supervised", ("layer3", "layer4"), ("layer1", "layer2")),
    ],
)
def test_recipes_fit_the_networks_that_they_name(
    recipe: str, trained: tuple[str, ...], kept: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step from random weights of the published networks; of the weights that are to move, all have moved."""
    start: dict[str, torch.Tensor] = {}

    def without_weights(name: str, **how: Any) -> Any:
        made = published_model(name, fetch=False, **how)
        start.update({key: value.clone() for key, value in made.network.state_dict().items()})
        return made

    monkeypatch.setattr(source, "published_model", without_weights)
    for number, part in enumerate(("train/a", "train/b", "val/a", "val/b")):
        (tmp_path / part).mkdir(parents=True)
        for image in range(2):
            save_image(torch.rand(3, 112, 112) * (number % 2 + 1) / 2, tmp_path / part / f"{image}.png")
    words = [f"data.train_path={tmp_path}/train", f"data.val_path={tmp_path}/val", "data.image_size=112", "seed=1"]
    words += ["optimizer.batch_size=4", "optimizer.lr=0.1", "max_steps=1", "max_epochs=1", "scheduler.warmup_epochs=0"]
    words += [
        "precision=32",
        "data.num_workers=0",
        "progress=off",
        "accelerator=cpu",
        f"checkpoint.dir={tmp_path}/runs",
    ]
    found = api.pretrain("custom", recipe, overrides=words)
    assert found.summary["verdict"]["images"] == 4 and found.summary["verdict"]["text"]
    after = load_checkpoint(found.folder)["state_dict"]
    assert {f"backbone.{name}" for name in start} <= after.keys()
    alike = {name for name, value in start.items() if value.shape == after[f"backbone.{name}"].shape}
    assert {*start} - alike <= {"pos_embed"}  # brought to the images' size
    moved = {name for name in alike if not torch.equal(start[name], after[f"backbone.{name}"])}
    assert all(any(part in name for name in moved) for part in trained)
    assert not [name for name in moved if any(part in name for part in kept)]
