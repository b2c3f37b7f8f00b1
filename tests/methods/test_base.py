"""`BaseMethod` without and with a trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from solo.errors import ConfigError, UserError
from solo.methods import METHODS, SimCLR
from solo.methods.base import BaseMethod, BaseMomentumMethod, static_lr


def test_registry_imports_on_demand() -> None:
    assert METHODS["simclr"] is SimCLR
    assert {"base", "linear", "simclr"} <= set(METHODS)
    assert issubclass(BaseMomentumMethod, BaseMethod)
    with pytest.raises(KeyError):
        METHODS["simclrr"]


def test_defaults_are_written_into_the_config_and_twice_is_once(make_cfg: Any) -> None:
    cfg = make_cfg(type="hex_ADAPTIVE", warmm_epoch=3, optimizer__weight_decay="0.5")
    model = SimCLR(cfg)
    assert cfg.hex.policy == "adaptive" and cfg.hex.warm_epoch == 3 and "type" not in cfg
    assert cfg.data.num_classes == 10 and cfg.data.num_large_crops == 2 and cfg.data.num_small_crops == 0
    assert cfg.scheduler.warmup_start_lr == 3e-5 and cfg.knn_eval.k == 20 and cfg.optimizer.weight_decay == 0.5
    before = OmegaConf.to_container(cfg)
    assert model.add_and_assert_specific_cfg(cfg) is cfg
    assert OmegaConf.to_container(cfg) == before


def test_views_are_counted_in_the_augmentations(make_cfg: Any) -> None:
    entries = [{"crop_size": 28, "num_crops": 2}, {"crop_size": 28, "num_crops": 1}, {"crop_size": 12, "num_crops": 4}]
    model = SimCLR(make_cfg(augmentations=entries))
    assert (model.num_large_crops, model.num_small_crops, model.num_crops, model.multicrop) == (3, 4, 7, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "HEX_adaptve"}, ["HEX_adaptve", "HEX_adaptive"]),
        ({"method_kwargs": {"proj_hidden_dim": 4}}, ["simclr", "proj_output_dim", "temperature"]),
        ({"hex__quantil": 0.9}, ["hex.quantil", "quantile"]),
        ({"backbone__name": "resnet9"}, ["resnet9", "resnet10"]),
        ({"backbone__kwargs": {"widht": 3}}, ["widht", "resnet10"]),
        ({"data__dataset": "mine"}, ["data.num_classes"]),
        ({"hex__level": "genus"}, ["genus", "group", "class"]),
        ({"optimizer__lr": "fast"}, ["optimizer.lr", "fast"]),
    ],
)
def test_wrong_configs_say_what_is_wrong(make_cfg: Any, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        SimCLR(make_cfg(**changes))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_all_wrong_values_are_reported_together(make_cfg: Any) -> None:
    with pytest.raises(ConfigError) as error:
        SimCLR(make_cfg(optimizer__lr=-1, scheduler__interval="week"))
    assert "optimizer.lr" in str(error.value) and "scheduler.interval" in str(error.value)


def test_someones_own_data_needs_only_the_number_of_classes(make_cfg: Any) -> None:
    model = SimCLR(make_cfg(data={"dataset": "mine", "num_classes": 7, "channels": 2}))
    assert model(torch.randn(2, 2, 40, 40))["logits"].shape == (2, 7)


def test_outputs_have_the_contracts_shapes(make_cfg: Any, make_batch: Any) -> None:
    model = SimCLR(make_cfg(data__num_small_crops=3))
    assert model.features_dim == model.backbone.inplanes == 64
    out = model.view_outputs(make_batch(small=3))
    assert {key: len(value) for key, value in out.items() if isinstance(value, list)} == {
        "logits": 2,
        "feats": 5,
        "z": 5,
    }
    assert out["z"][4].shape == (8, 8) and out["loss"].ndim == 0
    assert torch.isfinite(model.training_step(make_batch(small=3), 0))
    with pytest.raises(AssertionError, match="2 views"):
        model.training_step(make_batch(), 0)


def test_the_classifier_does_not_train_the_backbone(make_cfg: Any, make_batch: Any) -> None:
    model = BaseMethod(make_cfg("base"))
    model.training_step(make_batch(), 0)["loss"].backward()
    assert model.classifier.weight.grad.any()
    assert all(p.grad is None for p in model.backbone.parameters())


def test_targets_of_one_level_and_of_all_levels_agree(make_cfg: Any, make_batch: Any) -> None:
    model = SimCLR(make_cfg(type="superclass", warm_epoch=0))
    ids, views, targets = make_batch()
    fine = model.training_step([ids, views, targets], 0)
    both = model.training_step([ids, views, model.label_paths(targets)], 0)
    assert fine == both


def test_superclass_reads_the_level_it_is_told(make_cfg: Any, make_batch: Any) -> None:
    losses = []
    for level in (None, "group", "class", 1):
        torch.manual_seed(0)
        model = SimCLR(make_cfg(type="superclass", warm_epoch=0, hex__level=level))
        losses.append(model.training_step(make_batch(), 0).item())
    assert losses[0] == losses[1] != losses[2] == losses[3]


def test_without_labels_the_class_loss_is_zero(make_cfg: Any, make_batch: Any) -> None:
    model = BaseMethod(make_cfg("base"))
    ids, views, targets = make_batch()
    out = model.training_step([ids, views, torch.full_like(targets, -1)], 0)
    assert out["loss"] == 0 and out["acc1"] == 0
    targets[1:] = -1
    one = model.training_step([ids, views, targets], 0)
    assert one["acc5"] in (0.0, 50.0, 100.0) and one["loss"] > 0


def test_coarse_accuracy_adds_the_leaves_probabilities(make_cfg: Any) -> None:
    model = BaseMethod(make_cfg("base"))
    parents = [path[0] for path in model.taxonomy.path_table()]
    group = max(set(parents), key=parents.count)
    members = [leaf for leaf, parent in enumerate(parents) if parent == group]
    other = next(leaf for leaf, parent in enumerate(parents) if parent != group)
    probabilities = torch.full((10,), 1e-6)
    probabilities[other] = 0.4  # the best leaf, but the group has more together
    probabilities[members[:2]] = 0.3
    logits, targets = probabilities.log()[None], torch.tensor([members[0]])
    record = model.validation_record({"logits": logits, **model.classification_metrics(logits, targets)}, targets)
    assert record["val_acc1/group"] == 100 and record["val_acc1/class"] == record["val_acc1"] == 0


def test_optimizers_and_schedulers_without_a_trainer(make_cfg: Any) -> None:
    model = SimCLR(make_cfg())
    assert isinstance(model.configure_optimizers(), Optimizer)
    model.optimizer = "random"
    with pytest.raises(AssertionError, match="sgd, lars, adam, adamw"):
        model.configure_optimizers()
    for name in ("sgd", "lars", "adam", "adamw"):
        model.optimizer = name
        assert type(model.configure_optimizers()) is BaseMethod._OPTIMIZERS[name]
    model.scheduler, model.lr_decay_steps = "step", None
    assert isinstance(model.configure_optimizers()[1][0], MultiStepLR)
    model.scheduler = "warmup_cosine"
    assert model.configure_optimizers()[1][0]["interval"] == "epoch"
    for unknown in ("reduce", "random"):
        model.scheduler = unknown
        with pytest.raises(ValueError, match="warmup_cosine"):
            model.configure_optimizers()
    model.scheduler, model.extra_optimizer_args = "none", {"etaa": 1}
    with pytest.raises(UserError, match="etaa"):
        model.configure_optimizers()


def test_groups_and_weight_decay_exclusion(make_cfg: Any) -> None:
    model = SimCLR(make_cfg(optimizer__exclude_bias_n_norm_wd=True, accumulate_grad_batches=2))
    groups = {group["name"]: group for group in model.configure_optimizers().param_groups}
    assert list(groups) == [name + end for name in ("backbone", "classifier", "projector") for end in ("", "_no_decay")]
    assert all(p.ndim > 1 for p in groups["backbone"]["params"]) and groups["backbone"]["weight_decay"] == 1e-4
    assert all(p.ndim == 1 for p in groups["backbone_no_decay"]["params"])
    assert groups["backbone_no_decay"]["weight_decay"] == 0
    # accumulation scales the rates
    assert groups["projector"]["lr"] == pytest.approx(0.2) and groups["classifier"]["lr"] == pytest.approx(0.4)


def test_static_lr_replaces_the_rates_of_some_groups() -> None:
    assert static_lr(lambda: (1.0, 2.0, 3.0), [1], [9.0]) == [1.0, 9.0, 3.0]


def test_a_loss_that_is_not_finite_stops_with_the_terms_name(make_cfg: Any, make_batch: Any) -> None:
    model = SimCLR(make_cfg())
    batch = make_batch()
    batch[1][0][0, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match=r"epoch 0, step 0: .*train_class_loss=nan"):
        model.training_step(batch, 0)


def test_training_logs_the_contracts_names_and_the_checkpoint_is_plain(
    make_cfg: Any, ToyViews: Any, fit: Any, tmp_path: Path
) -> None:
    cfg = make_cfg(
        type="HEX_adaptive",
        warm_epoch=0,
        knn_eval__enabled=True,
        scheduler={"name": "warmup_cosine", "warmup_epochs": 1},
    )
    model = SimCLR(cfg)
    saver = ModelCheckpoint(tmp_path, save_last=True)
    trainer = fit(
        model,
        ToyViews(),
        ToyViews(20, views=0, levels=True),
        callbacks=[saver],
        enable_checkpointing=True,
        max_epochs=2,
    )
    logged = trainer.callback_metrics
    for name in ("train_class_loss", "train_acc1", "train_acc5", "train_nce_loss", "val_loss", "val_acc1", "val_acc5"):
        assert torch.isfinite(logged[name]), name
    for name in ("val_knn_acc1", "val_knn_acc5", "val_acc1/group", "val_acc1/class", "val_knn_acc1/group"):
        assert 0 <= logged[name] <= 100, name
    for name in ("threshold", "hierarchy_negatives", "log_global", "log_local", "local_share"):
        assert f"hex/{name}" in logged
    assert logged["val_acc1"] == logged["val_acc1/class"] and logged["val_knn_acc1"] == logged["val_knn_acc1/class"]
    assert logged["val_knn_acc1"] > 90  # ten patterns with little noise
    rate = model.optimizers().param_groups[0]["lr"]
    assert rate == pytest.approx(0.0, abs=1e-9)  # after the last of the 8 steps
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["solo"]["format"] == 1 and saved["solo"]["cfg"]["hex"]["policy"] == "adaptive"
    data = saved["solo"]["data"]
    assert (data["dataset"], data["channels"], data["size"]) == ("fashion_mnist", 1, 28)
    assert data["taxonomy"]["levels"] == ["group", "class"] and len(data["mean"]) == 1
    again = SimCLR.load_from_checkpoint(tmp_path / "last.ckpt", cfg=OmegaConf.create(saved["solo"]["cfg"]))
    assert torch.equal(again.projector[0].weight, model.projector[0].weight)


def test_training_without_labels_logs_no_accuracy(make_cfg: Any, ToyViews: Any, fit: Any) -> None:
    cfg = make_cfg(
        data={"dataset": "custom", "num_classes": 1, "no_labels": True, "channels": 1}, knn_eval__enabled=True
    )
    logged = fit(SimCLR(cfg), ToyViews(labelled=False), max_epochs=1).callback_metrics
    assert torch.isfinite(logged["train_nce_loss"])
    assert not any("acc" in name for name in logged)


class _UsersMethod(BaseMethod):
    """A subclass in solo-learn's form."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.temperature = cfg.method_kwargs.temperature
        self.projector = nn.Sequential(nn.Linear(self.features_dim, 8), nn.ReLU(), nn.Linear(8, 4))
        self.predictor = nn.Linear(4, 4)

    @staticmethod
    def add_and_assert_specific_cfg(cfg: Any) -> Any:
        cfg = super(_UsersMethod, _UsersMethod).add_and_assert_specific_cfg(cfg)
        assert not OmegaConf.is_missing(cfg, "method_kwargs.temperature")
        cfg.method_kwargs.extra = 3
        return cfg

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        extra = [
            {"name": "projector", "params": self.projector.parameters()},
            {"name": "predictor", "params": self.predictor.parameters(), "static_lr": True},
        ]
        return super().learnable_params + extra

    def forward(self, X: Any) -> Any:
        out = super().forward(X)
        z = self.projector(out["feats"])
        return {**out, "z": z, "p": self.predictor(z)}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        out = super().training_step(batch, batch_idx)
        z1, p2 = out["z"][0], out["p"][1]
        loss = -nn.functional.cosine_similarity(p2, z1.detach()).mean() / self.temperature
        self.log("train_neg_cos_sim", loss, on_epoch=True, sync_dist=True)
        return loss + out["loss"]


def test_a_subclass_in_solo_learns_form_trains(make_cfg: Any, ToyViews: Any, fit: Any) -> None:
    cfg = make_cfg("users", method_kwargs={"temperature": 1.0}, scheduler={"name": "warmup_cosine", "warmup_epochs": 0})
    model = _UsersMethod(cfg)
    assert cfg.method_kwargs.extra == 3
    before = model.projector[0].weight.detach().clone()
    trainer = fit(model, ToyViews(), ToyViews(8, views=0))
    assert torch.isfinite(trainer.callback_metrics["train_neg_cos_sim"])
    assert not torch.equal(before, model.projector[0].weight)
    rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    assert rates["predictor"] == 0.1 and rates["backbone"] == pytest.approx(0, abs=1e-9)
    state = trainer.lr_scheduler_configs[0].scheduler.state_dict()
    assert not any(callable(value) for value in state.values())


def test_users_register_their_methods(monkeypatch: Any) -> None:
    monkeypatch.setitem(METHODS, "users", _UsersMethod)
    assert METHODS["users"] is _UsersMethod and "users" in list(METHODS) and METHODS["simclr"] is SimCLR
    monkeypatch.undo()
    assert "users" not in METHODS
