"""Code as other repositories write it against solo-learn 1.0.6: each piece runs here and means the same.

The pieces run with solo-learn itself too (`BACKBONE` is then resnet18).
"""

import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader

import solo

PRELUDE = (
    "from torch import nn; from torch.nn import functional as F; from lightning.pytorch import LightningDataModule"
)
BACKBONE = {"name": "resnet10", "kwargs": {"width": 8}} if hasattr(solo, "__version__") else {"name": "resnet18"}
HEADS = {"proj_hidden_dim": 16, "proj_output_dim": 8}
KWARGS = {
    "simclr": {**HEADS, "temperature": 0.2},
    "supcon": {**HEADS, "temperature": 0.2},
    "barlow_twins": HEADS,
    "vicreg": HEADS,
    "vibcreg": HEADS,
    "byol": {**HEADS, "pred_hidden_dim": 16},
    "simsiam": {**HEADS, "pred_hidden_dim": 16},
    "mocov2plus": {**HEADS, "temperature": 0.2, "queue_size": 16},
    "mocov3": {**HEADS, "pred_hidden_dim": 16, "temperature": 0.2},
    "nnclr": {**HEADS, "pred_hidden_dim": 16, "temperature": 0.2, "queue_size": 16},
    "ressl": {**HEADS, "temperature_q": 0.1, "temperature_k": 0.04, "queue_size": 16},
    "swav": {**HEADS, "temperature": 0.1, "queue_size": 0, "num_prototypes": 12},
    "dino": {**HEADS, "num_prototypes": 16},
    "deepclusterv2": {**HEADS, "num_prototypes": [3]},
}


def make_cfg(method="simclr", **sections):
    cfg = {
        "name": "test",
        "method": method,
        "backbone": BACKBONE,
        "method_kwargs": KWARGS.get(method, {}),
        "momentum": {"base_tau": 0.99, "final_tau": 1.0},
        "data": {"dataset": "cifar10", "num_classes": 10, "num_large_crops": 2, "num_small_crops": 0},
        "optimizer": {"name": "sgd", "batch_size": 4, "lr": 0.1, "classifier_lr": 0.1, "weight_decay": 1e-4},
        "scheduler": {"name": "none"},
        "max_epochs": 2,
    }
    merged = OmegaConf.merge(OmegaConf.create(cfg), OmegaConf.create(sections))
    OmegaConf.set_struct(merged, False)
    return merged


def make_batch(rows=4, views=2, size=32):
    torch.manual_seed(0)
    return [torch.arange(rows), [torch.randn(rows, 3, size, size) for _ in range(views)], torch.arange(rows) % 3]


def fit(model, batches=2, val=True, **options):
    train = DataLoader([tuple(x) for x in zip(*_flat(make_batch(8)), strict=True)], 4, collate_fn=_collate)
    ids, views, targets = make_batch(8)
    loader = DataLoader(list(zip(views[0], targets, strict=True)), 4)
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "accelerator": "cpu", **options}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": batches}
    trainer = Trainer(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, train, loader if val else None)
    return trainer


def _flat(batch):
    return [batch[0], *batch[1], batch[2]]


def _collate(rows):
    ids, *views, targets = (torch.stack(column) for column in zip(*rows, strict=True))
    return [ids, views, targets]


def picture(size=40):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(6):
                picture().save(tmp_path / split / name / f"{i}.png")
    return tmp_path


AUGMENTATION = {
    "crop_size": 32,
    "num_crops": 2,
    "rrc": {"enabled": True, "crop_min_scale": 0.08, "crop_max_scale": 1.0},
    "color_jitter": {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
    "grayscale": {"prob": 0.2},
    "gaussian_blur": {"prob": 0.5},
    "solarization": {"prob": 0.1},
    "equalization": {"prob": 0.1},
    "horizontal_flip": {"prob": 0.5},
}
METHODS = {
    "base step of a concrete method returns its outputs": """
from solo.methods import SimCLR
from solo.methods.base import BaseMethod
class Mine(SimCLR):
    def training_step(self, batch, i):
        out = BaseMethod.training_step(self, batch, i)
        assert isinstance(out, dict) and len(out["z"]) == len(out["feats"]) == len(out["logits"]) == 2
        return out["loss"] + (out["z"][0] - out["z"][1]).square().mean()
assert Mine(make_cfg()).training_step(make_batch(), 0).requires_grad
fit(Mine(make_cfg()))""",
    "super past a concrete method": """
from solo.methods import SimCLR
class Mine(SimCLR):
    def training_step(self, batch, i):
        out = super(SimCLR, self).training_step(batch, i)
        return out["loss"]
assert Mine(make_cfg()).training_step(make_batch(), 0).ndim == 0""",
    "super of a concrete method is its loss": """
from solo.methods import BYOL
class Mine(BYOL):
    def training_step(self, batch, i):
        return 2 * super().training_step(batch, i)
fit(Mine(make_cfg("byol")))""",
    "momentum base step past a concrete method": """
from solo.methods import MoCoV3
from solo.methods.base import BaseMomentumMethod
from solo.losses import mocov3_loss_func
class Mine(MoCoV3):
    def training_step(self, batch, i):
        out = BaseMomentumMethod.training_step(self, batch, i)
        q, k = out["q"], out["momentum_k"]
        assert len(out["momentum_feats"]) == 2
        return out["loss"] + mocov3_loss_func(q[0], k[1], temperature=self.temperature)
fit(Mine(make_cfg("mocov3")))""",
    "the plain base step leaves the slow network out": """
from solo.methods import BYOL
from solo.methods.base import BaseMethod
out = BaseMethod.training_step(BYOL(make_cfg("byol")), make_batch(), 0)
assert not any(key.startswith("momentum") for key in out)""",
    "base forward runs no heads": """
from solo.methods import MoCoV3
from solo.methods.base import BaseMethod, BaseMomentumMethod
class Mine(MoCoV3):
    def forward(self, X):
        out = BaseMomentumMethod.forward(self, X)
        assert set(out) == {"logits", "feats"}
        out["z"] = self.projector(out["feats"])
        out["q"] = self.predictor(out["z"])
        return out
model = Mine(make_cfg("mocov3"))
model.training_step(make_batch(), 0)
assert set(BaseMethod.forward(model, make_batch()[1][0])) == {"logits", "feats"}
assert set(super(MoCoV3, model).momentum_forward(make_batch()[1][0])) == {"feats"}""",
    "own head beside the method's": """
from solo.methods import SimCLR
class Mine(SimCLR):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.rotation = nn.Linear(self.features_dim, 4)
    @property
    def learnable_params(self):
        return super().learnable_params + [{"name": "rotation", "params": self.rotation.parameters(), "lr": 0.5}]
    def forward(self, X):
        out = super().forward(X)
        out.update({"rotation": self.rotation(out["feats"])})
        return out
    def training_step(self, batch, i):
        out = super(SimCLR, self).training_step(batch, i)
        return F.cross_entropy(out["rotation"][0], batch[2]) + out["loss"]
model = Mine(make_cfg())
assert [g["name"] for g in model.learnable_params] == ["backbone", "classifier", "projector", "rotation"]
fit(model)""",
    "base parameter groups past a concrete method": """
from solo.methods import SimSiam, All4One
from solo.methods.base import BaseMethod
names = lambda groups: [g["name"] for g in groups]
model = SimSiam(make_cfg("simsiam"))
assert names(super(SimSiam, model).learnable_params) == ["backbone", "classifier"]
assert names(BaseMethod.learnable_params.fget(model)) == ["backbone", "classifier"]
assert names(model.learnable_params)[2:] == ["projector", "predictor"] and model.learnable_params[3]["static_lr"]""",
    "_base_shared_step overridden": """
from solo.methods import VICReg
calls = []
class Mine(VICReg):
    def _base_shared_step(self, X, targets):
        calls.append(len(X))
        out = super()._base_shared_step(X, targets)
        assert {"loss", "acc1", "acc5", "logits"} <= set(out)
        return out
fit(Mine(make_cfg("vicreg")), batches=1)
assert len(calls) >= 4""",
    "_base_shared_step called": """
from solo.methods import SimCLR
out = SimCLR(make_cfg())._base_shared_step(make_batch()[1][0], make_batch()[2])
assert out["loss"].ndim == 0 and out["z"].shape == (4, 8)""",
    "own base_training_step, validation stays": """
from solo.methods import SimCLR
class Mine(SimCLR):
    def base_training_step(self, X, targets):
        out = self._base_shared_step(X, targets)
        out["mine"] = out["feats"].mean()
        return out
    def base_validation_step(self, X, targets):
        return self._base_shared_step(X, targets)
class Only(SimCLR):
    def base_training_step(self, X, targets):
        assert self.training
        return super().base_training_step(X, targets)
fit(Mine(make_cfg())); fit(Only(make_cfg()))
assert len(super(SimCLR, Mine(make_cfg())).training_step(make_batch(), 0)["mine"]) == 2""",
    "_shared_step_momentum overridden": """
from solo.methods import BYOL
class Mine(BYOL):
    def _shared_step_momentum(self, X, targets):
        out = super()._shared_step_momentum(X, targets)
        out["twice"] = 2 * out["feats"]
        return out
out = super(BYOL, Mine(make_cfg("byol"))).training_step(make_batch(), 0)
assert torch.equal(out["momentum_twice"][1], 2 * out["momentum_feats"][1])""",
    "_build_mlp overridden and called": """
from solo.methods import MoCoV3
class Mine(MoCoV3):
    def _build_mlp(self, num_layers, input_dim, mlp_dim, output_dim, last_bn=True):
        return super()._build_mlp(num_layers + 1, input_dim, mlp_dim, output_dim, last_bn)
model = Mine(make_cfg("mocov3"))
assert sum(isinstance(m, nn.Linear) for m in model.projector) == 3
assert isinstance(model._build_mlp(2, 4, 5, 6, last_bn=False)[-1], nn.Linear)""",
    "distillation from a frozen copy (CaSSLe)": """
import copy
from solo.methods import METHODS
def distill(Method):
    class Distilled(Method):
        def __init__(self, cfg):
            super().__init__(cfg)
            self.frozen_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
            self.distiller = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
            self.frozen_projector = copy.deepcopy(self.projector).requires_grad_(False)
        @property
        def learnable_params(self):
            return super().learnable_params + [{"params": self.distiller.parameters()}]
        @torch.no_grad()
        def frozen_forward(self, X):
            return self.frozen_projector(self.frozen_backbone(X))
        def training_step(self, batch, i):
            loss = super().training_step(batch, i)
            _, (x1, x2), _ = batch
            z = self(x1)["z"]
            return loss - F.cosine_similarity(self.distiller(z), self.frozen_forward(x1)).mean()
    return Distilled
for name in ("simclr", "byol", "barlow_twins"):
    fit(distill(METHODS[name])(make_cfg(name)), batches=1)""",
    "own method on BaseMethod": """
from solo.methods.base import BaseMethod
from solo.losses.simclr import simclr_loss_func
from solo.utils.misc import omegaconf_select
class Mine(BaseMethod):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.temperature = cfg.method_kwargs.temperature
        self.projector = nn.Linear(self.features_dim, 8)
    @staticmethod
    def add_and_assert_specific_cfg(cfg):
        cfg = super(Mine, Mine).add_and_assert_specific_cfg(cfg)
        assert not OmegaConf.is_missing(cfg, "method_kwargs.temperature")
        cfg.method_kwargs.extra = omegaconf_select(cfg, "method_kwargs.extra", 7)
        return cfg
    @property
    def learnable_params(self):
        return super().learnable_params + [{"name": "projector", "params": self.projector.parameters()}]
    def forward(self, X):
        out = super().forward(X)
        out.update({"z": self.projector(out["feats"])})
        return out
    def multicrop_forward(self, X):
        out = super().multicrop_forward(X)
        out.update({"z": self.projector(out["feats"])})
        return out
    def training_step(self, batch, batch_idx):
        indexes = batch[0]
        out = super().training_step(batch, batch_idx)
        z = torch.cat(out["z"])
        loss = simclr_loss_func(z, indexes=indexes.repeat(self.num_crops), temperature=self.temperature)
        self.log("train_nce_loss", loss, on_epoch=True, sync_dist=True)
        return loss + out["loss"]
model = Mine(make_cfg("mine", method_kwargs={"temperature": 0.2}))
assert model.cfg.method_kwargs.extra == 7
fit(model)
fit(Mine(make_cfg("mine", method_kwargs={"temperature": 0.2}, knn_eval={"enabled": True, "k": 2})))""",
    "own method on BaseMomentumMethod": """
from solo.methods.base import BaseMomentumMethod
from solo.utils.momentum import initialize_momentum_params
from solo.losses.byol import byol_loss_func
class Mine(BaseMomentumMethod):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.projector, self.momentum_projector = nn.Linear(self.features_dim, 8), nn.Linear(self.features_dim, 8)
        initialize_momentum_params(self.projector, self.momentum_projector)
    @property
    def learnable_params(self):
        return super().learnable_params + [{"name": "projector", "params": self.projector.parameters()}]
    @property
    def momentum_pairs(self):
        return super().momentum_pairs + [(self.projector, self.momentum_projector)]
    def forward(self, X):
        out = super().forward(X)
        return {**out, "z": self.projector(out["feats"])}
    @torch.no_grad()
    def momentum_forward(self, X):
        out = super().momentum_forward(X)
        out.update({"z": self.momentum_projector(out["feats"])})
        return out
    def training_step(self, batch, batch_idx):
        out = super().training_step(batch, batch_idx)
        loss = byol_loss_func(out["z"][0], out["momentum_z"][1]) + byol_loss_func(out["z"][1], out["momentum_z"][0])
        self.log_dict({"mine": loss}, on_epoch=True, sync_dist=True)
        return loss + out["loss"]
model = Mine(make_cfg("mine"))
assert len(model.momentum_pairs) == 2
before = model.momentum_projector.weight.clone()
fit(model)
assert not torch.equal(before, model.momentum_projector.weight)
fit(Mine(make_cfg("mine", momentum={"classifier": True})))""",
    "own multicrop": """
from solo.methods import SwAV
model = SwAV(make_cfg("swav", data={"num_small_crops": 3}))
assert set(model.multicrop_forward(torch.randn(2, 3, 24, 24))) == {"feats", "z", "p"}
batch = make_batch(views=2)
batch[1] += [torch.randn(4, 3, 24, 24) for _ in range(3)]
out = super(SwAV, model).training_step(batch, 0)
assert len(out["z"]) == 5 and len(out["logits"]) == 2""",
    "_BACKBONES takes a new entry": """
from solo.methods import SimCLR
from solo.methods.base import BaseMethod
def tiny(method, *args, width=4, **kwargs):
    assert method == "simclr" and not kwargs
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.num_features = width
    return net
BaseMethod._BACKBONES["tiny"] = tiny
try:
    cfg = make_cfg()
    cfg.backbone = {"name": "tiny", "kwargs": {"width": 6}}
    model = SimCLR(cfg)
    assert model.features_dim == 6
    fit(model)
finally:
    del BaseMethod._BACKBONES["tiny"]""",
    "_BACKBONES of a subclass": """
import torchvision
from solo.methods import BYOL
from solo.methods.base import BaseMethod
class Mine(BYOL):
    _BACKBONES = {**BaseMethod._BACKBONES, "resnet34": lambda method, **kw: torchvision.models.resnet34(**kw)}
BaseMethod._BACKBONES["resnet34"] = Mine._BACKBONES["resnet34"]
cfg = make_cfg("byol")
cfg.backbone = {"name": "resnet34"}
model = Mine(cfg)
assert model.features_dim == 512 and isinstance(model.momentum_backbone.fc, nn.Identity)
assert isinstance(model.backbone.maxpool, nn.Identity) and model.backbone.conv1.padding == (2, 2)
del BaseMethod._BACKBONES["resnet34"]""",
    "_OPTIMIZERS takes a new entry": """
from solo.methods import SimCLR
from solo.methods.base import BaseMethod
BaseMethod._OPTIMIZERS["rms"] = torch.optim.RMSprop
try:
    model = SimCLR(make_cfg(optimizer={"name": "rms", "kwargs": {"momentum": 0.5}}))
    assert type(model.configure_optimizers()) is torch.optim.RMSprop
    fit(model)
finally:
    del BaseMethod._OPTIMIZERS["rms"]""",
    "_OPTIMIZERS of a subclass": """
from solo.methods import SimCLR
class Mine(SimCLR):
    _OPTIMIZERS = {**SimCLR._OPTIMIZERS, "adagrad": torch.optim.Adagrad}
assert type(Mine(make_cfg(optimizer={"name": "adagrad"})).configure_optimizers()) is torch.optim.Adagrad
try:
    SimCLR(make_cfg(optimizer={"name": "adagrad"})).configure_optimizers()
except AssertionError:
    pass
else:
    raise SystemExit("an optimizer that this class doesn't have")""",
    "own scheduler": """
from solo.methods import SimCLR
assert "warmup_cosine" in SimCLR._SCHEDULERS
class Mine(SimCLR):
    def configure_optimizers(self):
        self.scheduler = "none"
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)]
fit(Mine(make_cfg(scheduler={"name": "cyclic"})))""",
    "METHODS is a dict": """
from solo.methods import METHODS, SimCLR, BaseMethod
assert isinstance(METHODS, dict) and METHODS["simclr"] is SimCLR and METHODS.get("nothing") is None
assert dict(METHODS)["simclr"] is SimCLR and {**METHODS}["base"] is BaseMethod and "byol" in METHODS.keys()
assert all(isinstance(m, type) for m in METHODS.values()) and dict(METHODS.items())["simclr"] is SimCLR
class Mine(SimCLR): pass
METHODS["mine"] = Mine
METHODS.update({"mine2": Mine})
assert METHODS["mine"] is METHODS["mine2"] is Mine and METHODS.pop("mine") is Mine
del METHODS["mine2"]
assert "mine" not in METHODS and len(METHODS) == len(list(METHODS))""",
    "optimizer and scheduler forms without a trainer": """
from solo.methods import BarlowTwins
model = BarlowTwins(make_cfg("barlow_twins"))
model.optimizer, model.scheduler, model.extra_optimizer_args = "adam", "step", {}
model.lr_decay_steps = [1, 2]
[optimizer], [scheduler] = model.configure_optimizers()
assert isinstance(scheduler, torch.optim.lr_scheduler.MultiStepLR)
model.scheduler = "none"
assert isinstance(model.configure_optimizers(), torch.optim.Adam)""",
    "schedulers of a linear model without a trainer": """
from solo.methods.linear import LinearModel
from torchvision.models import resnet18
backbone = resnet18(); backbone.fc = nn.Identity()
cfg = make_cfg("none", max_epochs=3)
model = LinearModel(backbone, cfg=cfg)
model.add_and_assert_specific_cfg(cfg)
for name, kind in (("reduce", "ReduceLROnPlateau"), ("step", "MultiStepLR"), ("exponential", "ExponentialLR")):
    model.scheduler, model.lr_decay_steps = name, [1]
    scheduler = model.configure_optimizers()[1][0]
    assert isinstance(scheduler, getattr(torch.optim.lr_scheduler, kind))
model.scheduler = "reduce"
fit_linear(model)""",
    "linear model with own loss and mixup": """
from solo.methods.linear import LinearModel
from torchvision.models import resnet18
backbone = resnet18(); backbone.fc = nn.Identity()
def mix(X, y): return X, F.one_hot(y, 10).float()
def soft(logits, y): return -(y * logits.log_softmax(1)).sum(1).mean()
model = LinearModel(backbone, make_cfg("none", finetune=True), loss_func=soft, mixup_func=mix)
batch = make_batch()
out = model.shared_step((batch[1][0], batch[2]), 0)
assert out["batch_size"] == 4 and out["loss"].requires_grad
fit_linear(model)""",
    "forward hooks and the features of a trained model": """
from solo.methods import SimCLR
model = SimCLR(make_cfg()).eval()
seen = []
model.backbone.layer4.register_forward_hook(lambda module, args, out: seen.append(out))
with torch.no_grad():
    feats = model.backbone(make_batch()[1][0])
assert feats.shape[1] == model.features_dim == model.backbone.inplanes and len(seen) == 1""",
    "validation step of an own module": """
from solo.methods import SimCLR
class Mine(SimCLR):
    def validation_step(self, batch, batch_idx, dataloader_idx=None, update_validation_step_outputs=True):
        metrics = super().validation_step(batch, batch_idx, update_validation_step_outputs=False)
        assert {"batch_size", "val_loss", "val_acc1", "val_acc5"} <= set(metrics)
        self.validation_step_outputs.append(metrics)
        return metrics
    def on_validation_epoch_end(self):
        assert len(self.validation_step_outputs) == 2
        super().on_validation_epoch_end()
fit(Mine(make_cfg()))""",
    "validation step of an own momentum module": """
from solo.methods import BYOL
class Mine(BYOL):
    def validation_step(self, batch, batch_idx):
        metrics = super().validation_step(batch, batch_idx)
        return metrics
fit(Mine(make_cfg("byol", momentum={"classifier": True})))""",
    "attributes that code reads": """
from solo.methods import NNCLR
model = NNCLR(make_cfg("nnclr"))
names = ("cfg backbone backbone_name backbone_args base_model features_dim num_classes classifier max_epochs "
         "accumulate_grad_batches optimizer batch_size lr weight_decay classifier_lr extra_optimizer_args "
         "exclude_bias_n_norm_wd scheduler lr_decay_steps min_lr warmup_start_lr warmup_epochs scheduler_interval "
         "num_large_crops num_small_crops num_crops multicrop knn_eval knn_k no_channel_last validation_step_outputs")
assert all(hasattr(model, name) for name in names.split())
assert callable(model.base_model) and isinstance(model.backbone_args, dict) or hasattr(model.backbone_args, "copy")
index, nn_rows = model.find_nn(F.normalize(torch.randn(4, 8), dim=1))
model.dequeue_and_enqueue(torch.randn(4, 8), torch.arange(4))
assert int(model.queue_ptr) == 4 and model.queue.shape == (16, 8) and list(model.queue_y[:4]) == [0, 1, 2, 3]""",
    "find_nn overridden": """
from solo.methods import NNCLR
calls = []
class Mine(NNCLR):
    @torch.no_grad()
    def find_nn(self, z):
        calls.append(z)
        return super().find_nn(z)
    @torch.no_grad()
    def dequeue_and_enqueue(self, z, y):
        calls.append(y)
        super().dequeue_and_enqueue(z, y)
Mine(make_cfg("nnclr")).training_step(make_batch(), 0)
assert len(calls) == 3""",
    "the backbone is built by its constructor and method": """
from solo.methods import BYOL
model = BYOL(make_cfg("byol"))
twin = model.base_model(model.cfg.method, **model.backbone_args)
assert isinstance(twin, nn.Module) and twin.inplanes == model.features_dim""",
    "losses of a momentum classifier": """
from solo.methods import MoCoV2Plus
model = MoCoV2Plus(make_cfg("mocov2plus", momentum={"classifier": True}))
out = super(MoCoV2Plus, model).training_step(make_batch(), 0)
assert out["momentum_loss"].ndim == 0 and "momentum_acc5" in out and "momentum_logits" in out
assert [g["name"] for g in model.learnable_params][:2] == ["backbone", "classifier"]
assert "momentum_classifier" in [g["name"] for g in model.learnable_params]
keys = torch.stack([F.normalize(torch.randn(4, 8), dim=1)] * 2)
model._dequeue_and_enqueue(keys)
assert int(model.queue_ptr) == 4""",
    "weights saved and loaded by hand": """
from solo.methods import SimCLR
model, other = SimCLR(make_cfg()), SimCLR(make_cfg())
state = {"state_dict": model.state_dict()}
state = {k.replace("backbone.", ""): v for k, v in state["state_dict"].items() if "backbone" in k}
other.backbone.load_state_dict(state, strict=False)
assert torch.equal(model.backbone.conv1.weight, other.backbone.conv1.weight)""",
    "load_from_checkpoint with cfg": """
import tempfile, os
from solo.methods import METHODS
model = METHODS["byol"](make_cfg("byol"))
trainer = fit(model, batches=1)
path = os.path.join(tempfile.mkdtemp(), "a.ckpt")
trainer.save_checkpoint(path)
again = METHODS["byol"].load_from_checkpoint(path, strict=False, cfg=make_cfg("byol"), map_location="cpu")
assert torch.equal(again.projector[0].weight, model.projector[0].weight)""",
    "all the methods, one step each": """
from solo.methods import METHODS
for name in KWARGS:
    if name == "deepclusterv2": continue
    model = METHODS[name](make_cfg(name))
    if name == "swav": model.on_train_start()
    loss = model.training_step(make_batch(), 0) if name not in ("dino", "swav") else fit(model, 1) and torch.ones(())
    assert loss.ndim == 0, name""",
    "weights of a loss that change while it trains; helpers of a method": """
from solo.methods import METHODS
for name in ("vicreg", "vibcreg"):
    model, batch = METHODS[name](make_cfg(name)), make_batch()
    before = float(model.training_step(batch, 0))
    model.sim_loss_weight = 1000.0
    assert float(model.training_step(batch, 0)) > before + 1
assert METHODS["all4one"].off_diagonal(torch.arange(9).reshape(3, 3)).tolist() == [1, 2, 3, 5, 6, 7]""",
    "a DataModule of the user's": """
from solo.methods import SimCLR
class Data(LightningDataModule):
    def train_dataloader(self):
        return DataLoader([tuple(x) for x in zip(*_flat(make_batch(8)), strict=True)], 4, collate_fn=_collate)
trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                  enable_model_summary=False, accelerator="cpu")
trainer.fit(SimCLR(make_cfg()), datamodule=Data())""",
}


def fit_linear(model):
    ids, views, targets = make_batch(8)
    loader = DataLoader(list(zip(views[0], targets, strict=True)), 4)
    options = {"enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": 1}
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader, loader)


@pytest.mark.fault(7, "own steps, heads, tables and methods on its classes, 36 pieces", "run, and mean the same")
@pytest.mark.sampled(3)
@pytest.mark.parametrize("code", METHODS.values(), ids=METHODS)
@pytest.mark.filterwarnings("ignore")
def test_models(code):
    torch.manual_seed(0)
    names = dict(globals())
    exec(PRELUDE, names)
    exec(code, names)


DATA = {
    "transform of a loader's data set": """
from solo.data.pretrain_dataloader import *
T = prepare_n_crop_transform([build_transform_pipeline("custom", OmegaConf.create(AUGMENTATION))], [2])
dataset = prepare_datasets("custom", T, train_data_path=str(folder / "train"), data_format="image_folder")
loader = prepare_dataloader(dataset, batch_size=4, num_workers=0)
ids, views, targets = next(iter(loader))
assert len(views) == 2 and views[0].shape == (4, 3, 32, 32)
loader.dataset.transform = lambda image: [torch.zeros(3, 8, 8)] * 3
ids, views, targets = next(iter(loader))
assert len(views) == 3 and views[0].shape == (4, 3, 8, 8) and not views[0].any()
dataset.transform = lambda image: [torch.ones(1)]
assert float(next(iter(loader))[1][0].sum()) == 4 and dataset[3][0] == 3""",
    "transform of an evaluation loader's data set": """
from solo.data.classification_dataloader import *
T_train, T_val = prepare_transforms("custom")
train, val = prepare_datasets("custom", T_train, T_val, train_data_path=folder / "train", val_data_path=folder / "val",
                              data_format="image_folder")
for loader in prepare_dataloaders(train, val, batch_size=4, num_workers=0):
    loader.dataset.transform = lambda image: torch.zeros(3, 8, 8)
    assert next(iter(loader))[0].shape == (4, 3, 8, 8)""",
    "a transform set between epochs reaches the workers": """
from solo.data.pretrain_dataloader import *
T = lambda image: [torch.zeros(3, 4, 4)] * 2
dataset = prepare_datasets("custom", T, train_data_path=str(folder / "train"), data_format="image_folder")
loader = prepare_dataloader(dataset, batch_size=4, num_workers=1)
assert not next(iter(loader))[1][0].any()
loader.dataset.transform = lambda image: [torch.ones(3, 4, 4)] * 2
assert next(iter(loader))[1][0].all()""",
    "a folder's attributes": """
from torchvision.datasets import ImageFolder
from solo.data.pretrain_dataloader import prepare_datasets, prepare_dataloader
dataset = prepare_datasets("custom", None, train_data_path=str(folder / "train"), data_format="image_folder")
for data in (dataset, prepare_dataloader(dataset, batch_size=2, num_workers=0).dataset):
    assert isinstance(data, ImageFolder) and data.classes == ["cat", "dog"] and len(data) == 12
    assert data.class_to_idx == {"cat": 0, "dog": 1} and len(data.samples) == len(data.imgs) == 12
    assert list(data.targets) == [0] * 6 + [1] * 6 and str(data.root) == str(folder / "train")
    assert data.transform is None and data.samples[0][0].endswith("0.png") and data.loader(data.samples[0][0]).size""",
    "images in memory, changed": """
from solo.data.sources.images import ArrayDataset
data = ArrayDataset(np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1])
data.data, data.targets = data.data[:2] + 7, data.targets[:2]
assert len(data) == 2 and data[1][0].getpixel((0, 0)) == 7""",
    "samples cut by hand": """
from solo.data.pretrain_dataloader import prepare_datasets, prepare_dataloader
dataset = prepare_datasets("custom", None, train_data_path=str(folder / "train"), data_format="image_folder")
dataset.samples = [s for s in dataset.samples if s[1] == 1]
dataset.targets = [s[1] for s in dataset.samples]
assert len(dataset) == 6 and {dataset[i][2] for i in range(6)} == {1}""",
    "a class-incremental split": """
from torch.utils.data import Subset
from solo.data.pretrain_dataloader import prepare_datasets, prepare_dataloader
T = lambda image: [torch.zeros(3, 4, 4)] * 2
dataset = prepare_datasets("custom", T, train_data_path=str(folder / "train"), data_format="image_folder")
tasks = torch.tensor([1, 0]).chunk(2)
mask = [bool((int(c) == tasks[0]).any()) for c in dataset.targets]
task = Subset(dataset, torch.tensor(mask).nonzero().flatten())
assert len(task) == 6 and set(next(iter(prepare_dataloader(task, batch_size=6, num_workers=0)))[2].tolist()) == {1}""",
    "a fraction keeps its folder": """
from torchvision.datasets import ImageFolder
from solo.data.classification_dataloader import prepare_datasets
train, val = prepare_datasets("custom", None, None, train_data_path=str(folder / "train"), val_data_path=folder / "val",
                              data_format="image_folder", data_fraction=0.5)
assert isinstance(train, ImageFolder) and isinstance(val, ImageFolder)
assert len(train) == len(train.samples) == 6 and val.classes == ["cat", "dog"]""",
    "no labels": """
from solo.data.pretrain_dataloader import prepare_datasets, CustomDatasetWithoutLabels
dataset = prepare_datasets("custom", None, train_data_path=str(folder / "train" / "cat"), no_labels=True)
assert isinstance(dataset, CustomDatasetWithoutLabels) and len(dataset.images) == 6 and dataset[0][2] == -1""",
    "cifar by torchvision": """
import unittest.mock, torchvision
from solo.data.pretrain_dataloader import prepare_datasets, prepare_dataloader
class Fake(torchvision.datasets.CIFAR10):
    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        torchvision.datasets.VisionDataset.__init__(self, root, transform=transform)
        self.data, self.targets = np.zeros((8, 32, 32, 3), np.uint8), [0, 1] * 4
        self.classes, self.class_to_idx = ["a", "b"], {"a": 0, "b": 1}
T = lambda image: [torch.zeros(3, 4, 4)] * 2
with unittest.mock.patch("torchvision.datasets.CIFAR10", Fake):
    dataset = prepare_datasets("cifar10", T, train_data_path="there")
loader = prepare_dataloader(dataset, batch_size=4, num_workers=0)
for data in (dataset, loader.dataset):
    assert isinstance(data, Fake) and data.data.shape == (8, 32, 32, 3) and data.targets[1] == 1
dataset.data, dataset.targets = dataset.data[:4], dataset.targets[:4]
assert len(dataset) == 4 and len(dataset[0]) == 3""",
    "steps of a pipeline are torchvision's": """
from torchvision import transforms
from solo.data.pretrain_dataloader import build_transform_pipeline
T = build_transform_pipeline("cifar10", OmegaConf.create(AUGMENTATION))
kinds = (transforms.RandomResizedCrop, transforms.RandomApply, transforms.RandomGrayscale, transforms.RandomApply,
         transforms.RandomApply, transforms.RandomApply, transforms.RandomHorizontalFlip, transforms.ToTensor,
         transforms.Normalize)
assert isinstance(T, transforms.Compose) and len(T.transforms) == len(kinds)
assert all(isinstance(t, kind) for t, kind in zip(T.transforms, kinds))
assert isinstance(T.transforms[1].transforms[0], transforms.ColorJitter) and T.transforms[1].p == 0.8
assert tuple(T.transforms[0].size) == (32, 32) and T.transforms[-1].mean is not None
plain = transforms.Compose([t for t in T.transforms if not isinstance(t, transforms.Normalize)])
assert 0 <= float(plain(picture()).min()) and float(plain(picture()).max()) <= 1
T.transforms[-1] = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
T.transforms.insert(0, transforms.RandomRotation(10))
T.transforms[0] = transforms.Resize(36)
assert T(picture()).shape == (3, 32, 32) and -1 <= float(T(picture()).min())""",
    "image operations by keyword": """
from solo.data.pretrain_dataloader import GaussianBlur, Solarization, Equalization
assert GaussianBlur()(img=picture()).size == Solarization()(img=picture()).size == (40, 40)
assert Equalization()(img=picture()).size == (40, 40) and GaussianBlur([0.1, 1.0])(picture()).size == (40, 40)
assert GaussianBlur(sigma=[0.1, 2.0]).sigma is not None""",
    "transforms of an evaluation": """
from torchvision import transforms
from solo.data.classification_dataloader import prepare_transforms, build_custom_pipeline
T_train, T_val = prepare_transforms("imagenet100")
assert isinstance(T_train.transforms[0], transforms.RandomResizedCrop)
assert isinstance(T_val.transforms[0], transforms.Resize)
assert isinstance(T_val.transforms[1], transforms.CenterCrop) and T_val(picture(300)).shape == (3, 224, 224)
assert set(build_custom_pipeline()) == {"T_train", "T_val"}""",
    "dataset_with_index of torchvision": """
from torchvision.datasets import FakeData, ImageFolder
from solo.data.pretrain_dataloader import dataset_with_index, prepare_dataloader
data = dataset_with_index(FakeData)(size=8, image_size=(3, 8, 8), transform=lambda im: [torch.zeros(3, 4, 4)])
assert len(data[2]) == 3 and data[2][0] == 2 and isinstance(data, FakeData)
assert next(iter(prepare_dataloader(data, batch_size=4, num_workers=0)))[0].shape == (4,)
folder_data = dataset_with_index(ImageFolder)(str(folder / "train"))
assert folder_data[7][0] == 7 and folder_data.classes == ["cat", "dog"]""",
    "the size of a data set": """
from solo.utils.misc import compute_dataset_size
assert compute_dataset_size("custom", train=True, data_path=folder / "train", data_format="image_folder") == 12
assert compute_dataset_size("cifar10", train=False) == 10000 and compute_dataset_size("stl10") == 105000
assert compute_dataset_size(dataset="custom", data_path=str(folder / "train" / "cat"), no_labels=True) == 6""",
}


@pytest.mark.fault(7, "data sets, loaders and transforms read, cut and changed", "every change has its effect")
@pytest.mark.parametrize("code", DATA.values(), ids=DATA)
@pytest.mark.filterwarnings("ignore")
def test_data(code, folder):
    names = {**globals(), "folder": folder}
    exec(PRELUDE, names)
    exec(code, names)
