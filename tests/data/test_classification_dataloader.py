from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import transforms as tvt

from solo.data import classification_dataloader as cd
from solo.data.catalogue.registry import DATASETS
from solo.errors import UserError


def make_folder(root: Path, classes: tuple[str, ...] = ("a", "b"), n: int = 4) -> Path:
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (30, 26), (60 * c, 20 * i, 90)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("dataset", "size"), [("cifar10", 32), ("cifar100", 32), ("stl10", 96), ("imagenet100", 224), ("custom", 224)]
)
def test_transforms_follow_the_table(dataset: str, size: int) -> None:
    T_train, T_val = cd.prepare_transforms(dataset)  # noqa: N806
    image = Image.effect_noise((size, size), 60).convert("RGB")
    assert T_train(image).shape == T_val(image).shape == (3, size, size)
    mean = DATASETS["cifar10"].mean if dataset.startswith("cifar") else DATASETS[dataset].mean
    std = (0.247, 0.243, 0.261) if dataset in ("cifar10", "cifar100", "stl10") else DATASETS[dataset].std
    resize = [tvt.Resize(256), tvt.CenterCrop(224)] if size == 224 else []
    theirs = tvt.Compose([*resize, tvt.ToTensor(), tvt.Normalize(mean, std)])
    assert torch.equal(T_val(image), theirs(image))


def test_transforms_of_custom_data_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cd, "build_custom_pipeline", lambda: {"T_train": "mine", "T_val": "mine too"})
    assert cd.prepare_transforms("custom") == ("mine", "mine too")


def test_transforms_take_what_the_checkpoint_says() -> None:
    T_train, T_val = cd.prepare_transforms("custom", mean=[0.5], std=[0.25], size=56, channels=1)  # noqa: N806
    image = Image.effect_noise((90, 70), 60)
    assert T_train(image).shape == (1, 56, 56)
    theirs = tvt.Compose([tvt.Resize(64), tvt.CenterCrop(56), tvt.ToTensor(), tvt.Normalize([0.5], [0.25])])
    assert torch.equal(T_val(image), theirs(image))
    _, T_val = cd.prepare_transforms("cifar10", size=48)  # noqa: N806
    assert T_val(image).shape == (3, 48, 48)


def test_data_of_folders(tmp_path: Path) -> None:
    train, val = make_folder(tmp_path / "train"), make_folder(tmp_path / "val", n=1)
    loaders = cd.prepare_data("custom", train, val, batch_size=4, num_workers=0, data_fraction=0.5, seed=0)
    (X, targets), *rest = loaders[0]
    assert X.shape == (4, 3, 224, 224) and sorted(targets.tolist()) == [0, 0, 1, 1] and not rest
    assert [t.tolist() for _, t in loaders[1]] == [[0, 1]]


def test_classes_must_agree(tmp_path: Path) -> None:
    train, val = make_folder(tmp_path / "train", ("a", "b", "c")), make_folder(tmp_path / "val", ("a", "c"))
    with pytest.raises(UserError, match=r"different classes \(3 and 2; only in one of them: b\)"):
        cd.prepare_data("custom", train, val, batch_size=2, num_workers=0)


def test_digits_in_one_call() -> None:
    train, val = cd.prepare_data("digits", batch_size=32, num_workers=0, seed=3)
    X, targets = next(iter(train))
    assert X.shape == (32, 1, 16, 16) and targets.shape == (32,)
    assert sum(len(t) for _, t in val) == 360
    again, _ = cd.prepare_data("digits", batch_size=32, num_workers=0, seed=3)
    assert torch.equal(next(iter(again))[0], X)


def test_auto_augment_is_timms(tmp_path: Path) -> None:
    train, val = make_folder(tmp_path / "train"), make_folder(tmp_path / "val")
    loader, _ = cd.prepare_data("imagenet100", train, val, batch_size=2, num_workers=0, auto_augment=True)
    X: Any = next(iter(loader))[0]
    assert X.shape == (2, 3, 224, 224)
    names = [type(t).__name__ for t in loader.dataset.dataset.transform.transforms]  # type: ignore[attr-defined]
    assert {"RandAugment", "RandomErasing"} <= set(names)


@pytest.mark.fault(2, "RandAugment at its largest level, of which Pillow refuses to keep 0 bits", "keeps one")
def test_auto_augment_at_every_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = make_folder(tmp_path / "train"), make_folder(tmp_path / "val")
    loader, _ = cd.prepare_data("imagenet100", train, val, batch_size=2, num_workers=0, auto_augment=True)
    steps: Any = loader.dataset.dataset.transform.transforms  # type: ignore[attr-defined]
    monkeypatch.setattr("random.gauss", lambda *_: 99.0)
    for operation in next(step.ops for step in steps if hasattr(step, "ops")):
        operation.prob = 1.0
        assert operation(Image.new("RGB", (8, 8))).size == (8, 8)


def test_unknown_names_and_formats() -> None:
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        cd.prepare_transforms("cifar1")
    with pytest.raises(UserError, match="data.format='h5'"):
        cd.prepare_data("digits", data_format="h5")


def test_batch_larger_than_the_data() -> None:
    with pytest.raises(UserError, match="5000 .* 1437 images"):
        cd.prepare_data("digits", batch_size=5000, num_workers=0)
